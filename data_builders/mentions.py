"""Where a text states an answer, sign by sign as it is written, and the same text stating another one.

Borders are those of text.py: a mention ends where a word, a number or the script does, and anywhere in scripts without
spaces; Korean particles may follow it and take the form that the other answer asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from data_builders.hangul import fitted, is_hangul, particles_after
from data_builders.text import HANGUL, UNSPACED

_LETTER = rf"[^\W\d_{UNSPACED}{HANGUL}]"


def restated(text: str, answers: Iterable[str], other: str) -> str:
    """Return a text whose mentions of `answers` are `other`; case and the kind of white space do not matter to them."""
    longest_first = sorted((answer for answer in answers if answer.strip()), key=len, reverse=True)
    if not longest_first:
        return text
    parts, at = [], 0
    for found in re.finditer("|".join(map(_spelt, longest_first)), text, re.IGNORECASE):
        parts += [text[at : found.start()], other]
        at = found.end()
        if particles := re.compile(f"{particles_after(found[0])}(?![{HANGUL}])").match(text, at):
            parts.append(fitted(particles[0], other))
            at = particles.end()
    return "".join([*parts, text[at:]])


def _spelt(answer: str) -> str:
    """Return the pattern of one answer's mentions."""
    words = answer.split()
    pattern = re.escape(words[0])
    for before, word in pairwise(words):
        pattern += (r"\s*" if is_hangul(before[-1]) and is_hangul(word) else r"\s+") + re.escape(word)
    return _begins(words[0][0]) + pattern + _ends(words[-1])


def _begins(sign: str) -> str:
    if sign.isdigit():
        return r"(?<!\d)(?<!\d[.,])"
    if is_hangul(sign):
        return f"(?<![{HANGUL}])"
    return f"(?<!{_LETTER})" if re.fullmatch(_LETTER, sign) else ""


def _ends(word: str) -> str:
    if word[-1].isdigit():
        return r"(?!\d|[.,]\d)"
    if is_hangul(word[-1]):
        return f"(?={particles_after(word)}(?![{HANGUL}]))"
    return f"(?!{_LETTER})" if re.fullmatch(_LETTER, word[-1]) else ""
