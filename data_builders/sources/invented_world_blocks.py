"""Draws the entities of the invented world and how they are related. Writes no sentences.

The world is a row of blocks that share nothing, so that it streams at any size. A block holds one family of each kind:
near-namesakes whose names combine the same few words, who have the same attributes, and whose values all differ.
Relations join the families of a block one to one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace

from data_builders.files import seeded
from data_builders.sources import invented_world_names as names
from data_builders.sources.invented_world_model import KINDS, ORGANISATION, PERSON, PLACE, WORK, Entity, Kind
from data_builders.sources.invented_world_organisations import ORGANISATIONS
from data_builders.sources.invented_world_people import PEOPLE
from data_builders.sources.invented_world_places import PLACES
from data_builders.sources.invented_world_works import TYPES, WORKS

FAMILY = 12
"""Members of a family: each has eleven near-namesakes."""
BLOCK = FAMILY * len(KINDS)
"""Entities, hence passages, of a block."""
GRAMMAR: Mapping[str, Kind] = {PERSON: PEOPLE, PLACE: PLACES, ORGANISATION: ORGANISATIONS, WORK: WORKS}
"""How each kind is written about."""

_WORDS = 34  # pseudo-words a block uses up
_BYSTANDERS = ("spouse", "mayor", "founder", "director", "hero")  # attributes whose values are people without a passage
_POPULATIONS = {"village": (1050, 4900), "town": (5000, 60000), "city": (80000, 900000), "borough": (9000, 70000)}
_IT = ("it", "its", "it")

Families = Mapping[str, tuple[Entity, ...]]


def draw_block(seed: int, split: str, number: int, facts: int) -> Families:
    """Return the families of block `number` by kind; each of their members has values for `facts` attributes."""
    rng = seeded(seed, "invented_world", split, "block", number)
    words = [names.pseudo_word(seed, split, number * _WORDS + index) for index in range(_WORDS)]
    blank = {
        PERSON: _people(rng, words[:7]),
        PLACE: _places(rng, words[7]),
        ORGANISATION: _organisations(rng, words[8]),
        WORK: _works(rng, words[9]),
    }
    shifts = _draw_shifts(rng)
    values = {"river": words[10:22], **_bystanders(rng, words[:2] + words[22:28], words[5:7] + words[28:])}
    values |= _years(rng, shifts["creator"], blank[WORK][0].words["type"])
    values |= _quantities(rng, blank[PLACE][0].words["type"], blank[WORK][0].words["unit"]) | _things(rng)
    values |= {name: _related(blank, name, shift) for name, shift in shifts.items()}
    families = {}
    for position, kind in enumerate(KINDS):
        first, chosen = number * BLOCK + position * FAMILY, _choose_attributes(rng, GRAMMAR[kind], facts)
        families[kind] = tuple(
            replace(
                entity,
                id=f"{split}-p{first + index:06d}",
                values={name: values[name][index] for name in chosen},
                targets={name: (index + shifts[name]) % FAMILY for name in chosen if name in shifts},
            )
            for index, entity in enumerate(blank[kind])
        )
    return families


def _people(rng: random.Random, words: list[str]) -> list[Entity]:
    women = {first: rng.random() < 0.5 for first in words[:2]}
    called = rng.sample(list(itertools.product(words[:2], words[2:5], words[5:7])), FAMILY)
    return [_blank(PERSON, " ".join(name), "person", name[2], women[name[0]]) for name in called]


def _places(rng: random.Random, stem: str) -> list[Entity]:
    kind = rng.choice(list(_POPULATIONS))
    called = [f"{prefix} {stem}" for prefix in names.PLACE_PREFIXES]
    called += [f"{stem} {suffix}" for suffix in names.PLACE_SUFFIXES]
    return [_blank(PLACE, name, kind) for name in rng.sample(called, FAMILY)]


def _organisations(rng: random.Random, stem: str) -> list[Entity]:
    kinds = rng.sample(names.ORGANISATION_TYPES, FAMILY)
    return [_blank(ORGANISATION, f"{stem} {kind}", kind.lower()) for kind in kinds]


def _works(rng: random.Random, stem: str) -> list[Entity]:
    kind = rng.choice(list(TYPES))
    nouns = rng.sample(names.WORK_NOUNS, FAMILY)
    return [_blank(WORK, f"The {stem} {noun}", kind, words=TYPES[kind]) for noun in nouns]


def _blank(
    kind: str, name: str, type_: str, short: str = "", woman: bool = False, words: Mapping[str, str] | None = None
) -> Entity:
    """Return an entity without id and facts: its name and the ways to refer to it."""
    mention = f"the {name}" if kind == ORGANISATION else name
    if kind == PERSON:
        pronouns, noun = (("she", "her", "her") if woman else ("he", "his", "him")), short
    else:
        pronouns, noun = _IT, f"the {type_}"
    opening = noun[:1].upper() + noun[1:]
    subjects = ((pronouns[0].capitalize(), pronouns[1].capitalize()), (opening, f"{opening}'s"))
    slots = {"t": noun, "type": type_, "a_type": names.indefinite(type_), **(words or {})}
    return Entity("", kind, name, mention, subjects, pronouns, slots, {}, {})


def _draw_shifts(rng: random.Random) -> dict[str, int]:
    """Draw the one-to-one relations: member i is related to member i + shift of the other family.

    Draws again while a chain of two relations leads back to its start or to what one relation states already, since
    the answer of a two-hop question would then stand in the first passage.
    """
    linking = [name for kind in GRAMMAR.values() for name, attribute in kind.attributes.items() if attribute.target]
    while True:
        shift = {name: rng.randrange(FAMILY) for name in linking}
        detours = (
            shift["creator"] + shift["essay"],
            shift["creator"] + shift["birthplace"] - shift["setting"],
            shift["creator"] + shift["employer"] - shift["sponsor"],
            shift["sponsor"] + shift["headquarters"] - shift["setting"],
            shift["employer"] + shift["headquarters"] - shift["birthplace"],
            shift["essay"] + shift["setting"] - shift["birthplace"],
            shift["essay"] + shift["sponsor"] - shift["employer"],
        )
        if all(detour % FAMILY for detour in detours):
            return shift


def _related(blank: Mapping[str, list[Entity]], name: str, shift: int) -> list[str]:
    target = next(kind.attributes[name].target for kind in GRAMMAR.values() if name in kind.attributes)
    return [blank[target][(index + shift) % FAMILY].name for index in range(FAMILY)]


def _bystanders(rng: random.Random, firsts: list[str], surnames: list[str]) -> dict[str, list[str]]:
    people = rng.sample([f"{first} {surname}" for first in firsts for surname in surnames], FAMILY * len(_BYSTANDERS))
    return {name: people[index :: len(_BYSTANDERS)] for index, name in enumerate(_BYSTANDERS)}


def _years(rng: random.Random, creator_shift: int, work_type: str) -> dict[str, list[str]]:
    """Draw years that fit together: charters, then organisations, then people, then what people made as adults."""
    start = rng.randrange(1885 if work_type == "film" else 1720, 1920)
    births = rng.sample(range(start, start + 30), FAMILY)
    made: list[int] = []
    for index in range(FAMILY):
        birth = births[(index + creator_shift) % FAMILY]
        made.append(rng.choice([year for year in range(birth + 20, birth + 46) if year not in made]))
    years = {
        "birth_year": births,
        "founding_year": rng.sample(range(start - 90, start + 18), FAMILY),
        "charter_year": rng.sample(range(start - 600, start - 120), FAMILY),
        "year": made,
    }
    return {name: [str(year) for year in drawn] for name, drawn in years.items()}


def _quantities(rng: random.Random, place_type: str, unit: str) -> dict[str, list[str]]:
    lengths = range(96, 790) if unit == "pages" else range(48, 176)
    return {
        "altitude": [f"{metres} metres" for metres in rng.sample(range(12, 990), FAMILY)],
        "population": [f"{people:,}" for people in rng.sample(range(*_POPULATIONS[place_type]), FAMILY)],
        "staff": [str(people) for people in rng.sample(range(21, 960), FAMILY)],
        "length": [f"{number} {unit}" for number in rng.sample(lengths, FAMILY)],
    }


def _things(rng: random.Random) -> dict[str, list[str]]:
    awards = rng.sample(list(itertools.product(names.ADJECTIVES, names.AWARD_NOUNS)), 2 * FAMILY)
    landmarks = rng.sample(list(itertools.product(names.ADJECTIVES, names.LANDMARK_NOUNS)), FAMILY)
    return {
        "award": [" ".join(award) for award in awards[:FAMILY]],
        "prize": [" ".join(award) for award in awards[FAMILY:]],
        "landmark": [" ".join(landmark) for landmark in landmarks],
        "profession": rng.sample(names.PROFESSIONS, FAMILY),
        "instrument": rng.sample(names.INSTRUMENTS, FAMILY),
        "product": rng.sample(names.PRODUCTS, FAMILY),
        "field": rng.sample(names.FIELDS, FAMILY),
        "emblem": rng.sample(names.EMBLEMS, FAMILY),
    }


def _choose_attributes(rng: random.Random, kind: Kind, facts: int) -> list[str]:
    """Choose what a family's passages state: enough relations for two-hop questions, the rest at random."""
    linking = [name for name, attribute in kind.attributes.items() if attribute.target]
    chosen = rng.sample(linking, kind.links)
    rest = [name for name in kind.attributes if name not in chosen]
    return chosen + rng.sample(rest, facts - len(chosen))
