"""Names and plain values of the invented world. Writes no sentences and draws no facts.

A name is built from pseudo-words. Every pseudo-word has a number, and the numbers are dealt out to the splits in turn,
so that no pseudo-word (and hence no name) of one split ever occurs in another, whatever the question counts are.
"""

from __future__ import annotations

import functools
import math

from data_builders.files import seeded

SPLITS = ("train", "validation", "test")


def _listed(text: str, separator: str = " ") -> list[str]:
    return [item.strip("-") for item in text.split(separator)]


# Consonants and vowels alternate, so two different choices of syllables never spell the same word.
_ONSETS = _listed("- b br c d dr f fl g gr h j k l m n p pr qu r s sk st t th tr v z")
_VOWELS = "aeiou"
_MIDDLES = _listed("b bl d dr g gl k l ld lm lv m mbr n nd nv r rl rn rv sk sm t thr v z")
_ENDINGS = _listed("a ai ald am and arn ath eld elm em esk eth ia il ilt im io ir ith o ol olm om orn oth ua ul um un")


def pseudo_word(seed: int, split: str, number: int) -> str:
    """Return pseudo-word `number` (from 0) of a split: capitalised, unique over all splits of one seed."""
    index, middles = number * len(SPLITS) + SPLITS.index(split), 1
    while index >= (size := _words_with(middles)):
        index, middles = index - size, middles + 1
    factor, offset = _shuffle(seed, size)
    return _spell((index * factor + offset) % size, middles).capitalize()


def _words_with(middles: int) -> int:
    return len(_ONSETS) * (len(_VOWELS) * len(_MIDDLES)) ** middles * len(_ENDINGS)


@functools.lru_cache(maxsize=16)
def _shuffle(seed: int, size: int) -> tuple[int, int]:
    """Return a factor and an offset that permute range(size): neighbours in number look nothing alike."""
    random = seeded(seed, "invented_world", "words", size)
    factor = random.randrange(size // 3, size)
    while math.gcd(factor, size) != 1:
        factor += 1
    return factor, random.randrange(size)


def _spell(index: int, middles: int) -> str:
    index, onset = divmod(index, len(_ONSETS))
    index, ending = divmod(index, len(_ENDINGS))
    inner = ""
    for _ in range(middles):
        index, vowel = divmod(index, len(_VOWELS))
        index, middle = divmod(index, len(_MIDDLES))
        inner += _VOWELS[vowel] + _MIDDLES[middle]
    return _ONSETS[onset] + inner + _ENDINGS[ending]


def indefinite(noun: str) -> str:
    """Return the noun with "a" or "an" before it (all nouns of this world are spelled as they sound)."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


PLACE_PREFIXES = _listed("Upper Lower Old New Port Saint Fort North South East West Great Little Lake")
PLACE_SUFFIXES = _listed("Hill Bridge Harbour Cross Ford Green Heath Bay Valley Market Abbey Grove")
ORGANISATION_TYPES = _listed(
    "Institute Museum Foundation Academy Society Company Library Observatory Laboratory Archive College Guild "
    "Club Trust Bureau Workshop"
)
WORK_NOUNS = _listed(
    "Lantern Garden Letter Winter Orchard Voyage Mirror Inheritance Lighthouse Promise Harvest Masquerade "
    "Labyrinth Feast Island Shadow Journey Bargain Comet Staircase"
)

PROFESSIONS = _listed(
    "botanist|clockmaker|surveyor|architect|chemist|cartographer|bookbinder|astronomer|veterinarian|translator|"
    "engraver|librarian|shipwright|midwife|apothecary|glassblower|geologist|journalist|interpreter|optician|"
    "stonemason|accountant|seismologist|beekeeper|dentist|locksmith|photographer|notary|weaver|entomologist|"
    "dressmaker|baker|archaeologist|statistician|gardener|nurse",
    "|",
)
INSTRUMENTS = _listed(
    "cello|oboe|harp|flute|trumpet|mandolin|bassoon|accordion|zither|trombone|viola|clarinet|lute|harmonica|"
    "dulcimer|piccolo|banjo|violin|double bass|xylophone|concertina|French horn|bagpipes|recorder|"
    "saxophone",
    "|",
)
PRODUCTS = _listed(
    "lace|glassware|felt hats|smoked trout|candles|rope|ceramic tiles|cider|saddles|paper|honey|copper kettles|"
    "umbrellas|goat cheese|carpets|soap|chess sets|mustard|wooden clogs|violin strings|silk ribbons|bricks|"
    "gloves|clocks|vinegar|fishing nets|pencils|blankets|church bells|marzipan|baskets|ink",
    "|",
)
FIELDS = _listed(
    "soil chemistry|river ecology|ancient music|marine navigation|folk medicine|bridge design|bird migration|"
    "early printing|volcanic rocks|textile dyes|rural education|glacier mapping|celestial mechanics|"
    "seed breeding|public hygiene|mountain rescue|optical instruments|dialect studies|coin collecting|"
    "forest management|tidal energy|medieval law|insect anatomy|paper conservation|railway safety|deep mining|"
    "child nutrition|weather forecasting|stained glass|horse breeding|map making|desert irrigation",
    "|",
)
EMBLEMS = _listed(
    "heron|otter|lynx|oak leaf|anchor|beehive|stag|falcon|compass rose|thistle|salmon|key|lantern|boar|swan|"
    "wheel|badger|owl|ram|sickle|tortoise|crane|raven|acorn|wolf|plough|hare|dolphin|sundial|griffin",
    "|",
)
ADJECTIVES = _listed(
    "Copper Silver Amber Crimson Ivory Golden Velvet Marble Scarlet Iron Crystal Bronze Emerald Granite "
    "Sapphire Cedar Willow Opal Coral Ebony Cobalt Jade Pewter Walnut"
)
AWARD_NOUNS = _listed(
    "Quill Medal Laurel Feather Star Rose Crown Shield Torch Ribbon Compass Key Bell Ring Ladder Palm Arrow "
    "Chalice Globe Wreath Hammer Swallow Thimble Plume"
)
LANDMARK_NOUNS = _listed(
    "Tower Gate Fountain Chapel Windmill Arch Obelisk Viaduct Column Dome Citadel Pavilion Steeple Rotunda "
    "Stairway Pagoda"
)
