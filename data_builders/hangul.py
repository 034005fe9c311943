"""Korean words in a text: what may follow one inside its token, particles and forms of the copula."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

# After any syllable: particles and the copula in full.
_ANY = (
    "의|도|만|에|에서|에게|에게서|께|께서|한테|한테서|까지|부터|마다|처럼|같이|보다|만큼|조차|마저|밖에|뿐|하고|이랑|"
    "이다|이었다|이었으며|이었던|입니다|이었습니다|이며|이자|이라|이라는|이라고|이에요|이란"
)
# Written one way after a consonant and another way after a vowel. 로 also follows the consonant ㄹ ("서울로").
_AFTER_CONSONANT = "은|이|을|과|으로|으로서|으로써|으로부터|이나|아"
_AFTER_VOWEL = "는|가|를|와|로|로서|로써|로부터|나|랑|다|였다|였으며|였던|였습니다|며|라는|라고|예요|란"
_AFTER_RIEUL = f"{_AFTER_CONSONANT}|로|로서|로써|로부터"
_AFTER_ANY = f"{_AFTER_RIEUL}|{_AFTER_VOWEL}"
_SOUNDS = {"consonant": _AFTER_CONSONANT, "vowel": _AFTER_VOWEL, "rieul": _AFTER_RIEUL, "unknown": _AFTER_ANY}
# The same one after a consonant and after a vowel.
_WITH_CONSONANT = (
    "은|이|을|과|으로|으로서|으로써|으로부터|이나|이랑|"
    "이다|이었다|이었으며|이었던|이었습니다|이며|이라는|이라고|이에요|이란"
)
_WITH_VOWEL = "는|가|를|와|로|로서|로써|로부터|나|랑|다|였다|였으며|였던|였습니다|며|라는|라고|예요|란"
_PAIRS = dict(zip(_WITH_CONSONANT.split("|"), _WITH_VOWEL.split("|"), strict=True))
_SPOKEN = dict(zip("0123456789", "영일이삼사오육칠팔구", strict=True))  # 10, 100, 1000, 10,000 end as 영 does
# What a second and a third one may be: "서울에서는", "서울까지만은", "서울에서부터의".
_STACKED = "은|는|이|가|을|를|의|도|만|로|까지|부터|보다|이나|다|이다|였다|이었다|입니다|라는|이라는"

_FIRST_SYLLABLE, _LAST_SYLLABLE, _FINALS, _RIEUL = 0xAC00, 0xD7A3, 28, 8


def is_hangul(token: str) -> bool:
    """Tell whether a token (which is of one script) is Korean."""
    return token[:1] >= "\u1100" and bool(_HANGUL.match(token))


_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


@dataclass(frozen=True)
class Inflected:
    """A phrase whose last word is Korean and may carry particles.

    The plural 들, then up to three particles of the closed lists above may follow. Their form depends on the sound
    before, so that 효과 is not 효 with a particle. 인, as in 한국인, is not among them: it makes another word.
    Between two Korean words the space may be missing, because spacing varies.
    """

    body: re.Pattern[str]
    tail: re.Pattern[str]

    @classmethod
    def of(cls, tokens: Sequence[str]) -> Inflected:
        """Prepare the tokens of a phrase, the last of them Korean."""
        body = " "
        for token, following in pairwise(tokens):
            body += re.escape(token) + (" ?" if is_hangul(token) and is_hangul(following) else " ")
        return cls(re.compile(body + re.escape(tokens[-1])), re.compile(f"{particles_after(tokens[-1])} "))

    def stands(self, joined_text: str) -> bool:
        """Tell whether the phrase stands in a text whose tokens have one space around each."""
        return any(self.tail.match(joined_text, found.end()) for found in self.body.finditer(joined_text))


def particles_after(word: str) -> str:
    """Return a pattern of the particles that may follow a word, and of none; a digit is spoken, Latin may be either."""
    return _run(_sound(word))


def fitted(particles: str, word: str) -> str:
    """Return particles in the form they take after `word`: "은" after "서울" is "는" after "파리".

    The first alone depends on the word before. After a word whose sound is not known they stay as they are.
    """
    sound = _sound(word)
    if sound == "unknown":
        return particles
    for consonant, vowel in sorted(_PAIRS.items(), key=lambda pair: -max(map(len, pair))):
        for first in sorted((consonant, vowel), key=len, reverse=True):
            rest = particles.removeprefix(first)
            if rest != particles and re.fullmatch(f"(?:{_STACKED}){{0,2}}", rest):
                keeps = sound == "consonant" or (sound == "rieul" and not consonant.startswith("으로"))
                return (consonant if keeps else vowel) + rest
    return particles


def _sound(word: str) -> str:
    """Return how a word ends when it is spoken: consonant, rieul, vowel; unknown where it is not Korean or a number."""
    last = _SPOKEN.get(word[-1:], word[-1:])
    if not last or not _FIRST_SYLLABLE <= ord(last) <= _LAST_SYLLABLE:
        return "unknown"
    final = (ord(last) - _FIRST_SYLLABLE) % _FINALS
    return "vowel" if not final else "rieul" if final == _RIEUL else "consonant"


@cache
def _run(sound: str) -> str:
    more = f"(?:{_STACKED}){{0,2}}"
    return f"(?:(?:{_ANY}|{_SOUNDS[sound]}){more}|들(?:(?:{_ANY}|{_AFTER_RIEUL}){more})?)?"
