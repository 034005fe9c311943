"""Borders of sentences and words, by punctuation and script. No language model: a wrong one cuts at a worse place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from data_builders.text import contains_answer

LONGEST_QUOTE = 500  # characters; a paragraph without full stops is no sentence to quote

_BORDER = re.compile(
    r"(?<=[.!?\u2026])[\"'\u201d\u2019\u00bb)\]]*\s+(?=[^\s.,;:!?)\]])"  # a full stop, what closes it, space
    r"|(?<=[\u3002\uff01\uff1f])[\u201d\u2019\u300d\u300f\uff09]*\s*"  # Chinese and Japanese need no space
    r"|\n+(?=[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t])"  # the next item of a list
)
_ABBREVIATION = re.compile(
    r"(?<![^\s(\[\"'\u201c\u2018])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|cf|ca|Fig|Figs|Eq|No|Nos|Vol|pp|"
    r"p|al|Inc|Ltd|Co|Corp|approx|z\.B|d\.h|bzw|Nr|Abb|(?:[A-Z]\.)+[A-Z])\.$"
)
_UNSPACED = (
    re.compile(  # scripts in which words touch, or endings do: Korean, Chinese, Japanese, Thai, Lao, Burmese, Khmer
        "[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7a3\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
    )
)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the sentences of a paragraph; together they are the whole text, spaces included."""
    start = 0
    for border in _BORDER.finditer(text):
        end = border.end()
        if end == start or end == len(text) or _is_inside(text, start, border):
            continue
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _is_inside(text: str, start: int, border: re.Match[str]) -> bool:
    """Tell whether the full stop is that of an abbreviation, or a sentence in small letters goes on after it."""
    if text[border.start() - 1] != "." or "\n" in border.group():
        return False
    after = text[border.end()]
    return after.islower() or bool(_ABBREVIATION.search(text, max(start, border.start() - 12), border.start()))


def sentence_around(text: str, start: int, end: int) -> str:
    """Return the sentence that holds `start` to `end` (characters), or the whole of those it touches.

    It is empty where that goes over a line or is longer than a quote should be.
    """
    borders, offset = [0], 0
    for line in text.splitlines(keepends=True):
        borders += [offset + last for _, last in sentences(line)]
        offset += len(line)
        borders.append(offset)
    low, high = max(b for b in borders if b <= start), min(b for b in borders if b >= end)
    found = text[low:high].strip()
    return found if len(found) <= LONGEST_QUOTE and len(found.splitlines()) == 1 else ""


def quote_with(text: str, answers: Iterable[str]) -> str:
    """Return the first sentence of a passage in which an accepted answer stands word for word, or nothing."""
    found = []
    for answer in filter(None, map(str.strip, answers)):
        for match in re.finditer(re.escape(answer), text, re.IGNORECASE):
            quote = sentence_around(text, *match.span())
            if quote and contains_answer(quote, [answer]):
                found.append((match.start(), quote))
                break
    return min(found)[1] if found else ""


def standing_whole(needle: str, text: str) -> Iterator[int]:
    """Yield where `needle` stands in `text` without cutting a word."""
    start = text.find(needle) if needle else -1
    while start >= 0:
        if not cuts_word(text, start) and not cuts_word(text, start + len(needle)):
            yield start
        start = text.find(needle, start + 1)


def cuts_word(text: str, place: int) -> bool:
    """Tell whether a border at `place` goes through a word."""
    if not 0 < place < len(text):
        return False
    around = text[place - 1 : place + 1]
    return around[0].isalnum() and around[1].isalnum() and not _UNSPACED.search(around)
