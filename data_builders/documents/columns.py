"""Reading order of a page: which words belong to columns beside each other. Knows words and boxes, no PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from data_builders.documents.parts import Table

_GAP = 8.0  # points between columns, at least
_LINES = 4  # lines on either side, at least
_WORDS = 3  # words in a typical line of a column: cells of a table without rulings have fewer
_FILL = 0.5  # share of the column's width that a typical line fills
_DEEPEST = 4  # columns within columns


@dataclass(frozen=True)
class Word:
    """A word with its box in points, from the top left of the page; or a table in the place of a word."""

    text: str
    x0: float
    x1: float
    top: float
    bottom: float
    table: Table | None = None
    caption: str = ""


WordLine = list[Word]


def flows(words: Sequence[Word], depth: int = 0) -> list[list[WordLine]]:
    """Return the lines of a page in reading order, as runs that do not break within: columns one after the other.

    A gutter is a strip that no word crosses over at least four lines on both sides of prose. Tables without rulings
    stay lines: their columns hold few words.
    """
    lines = _lines(words)
    gutter = _best_gutter(lines) if depth < _DEEPEST else None
    if gutter is None:
        return [lines] if lines else []
    x, start, stop = gutter
    band = [word for line in lines[start:stop] for word in line]
    left, right = [word for word in band if word.x1 <= x], [word for word in band if word.x1 > x]
    above = [word for line in lines[:start] for word in line]
    below = [word for line in lines[stop:] for word in line]
    return [*flows(above, depth + 1), *flows(left, depth + 1), *flows(right, depth + 1), *flows(below, depth + 1)]


def _lines(words: Sequence[Word]) -> list[WordLine]:
    """Group words whose middles are at one height; a table is a line of its own."""
    lines: list[WordLine] = []
    for word in sorted(words, key=lambda word: ((word.top + word.bottom) / 2, word.x0)):
        last = lines[-1][0] if lines else None
        if word.table is None and last is not None and last.table is None and _same_height(last, word):
            lines[-1].append(word)
        else:
            lines.append([word])
    ordered = [sorted(line, key=lambda word: word.x0) for line in lines]
    return sorted(ordered, key=lambda line: min(word.top for word in line))


def _same_height(first: Word, second: Word) -> bool:
    distance = abs((first.top + first.bottom) - (second.top + second.bottom)) / 2
    return distance < 0.5 * max(first.bottom - first.top, second.bottom - second.top)


def _best_gutter(lines: list[WordLine]) -> tuple[float, int, int] | None:
    """Return the place of the gutter that separates most lines, and the first and last line beside it."""
    found: list[tuple[int, float, int, int]] = []
    for x in _candidates(lines):
        for start, stop in _uncrossed(lines, x):
            if _is_gutter(lines[start:stop], x):
                found.append((stop - start, x, start, stop))
    return max(found)[1:] if found else None


def _candidates(lines: list[WordLine]) -> list[float]:
    begins = {
        round(second.x0 - _GAP / 2) for line in lines for first, second in _pairs(line) if second.x0 - first.x1 >= _GAP
    }
    begins |= {round(line[0].x0 - _GAP / 2) for line in lines}
    return sorted(begins)


def _pairs(line: WordLine) -> list[tuple[Word, Word]]:
    return list(pairwise(line))


def _uncrossed(lines: list[WordLine], x: float) -> list[tuple[int, int]]:
    """Return the runs of lines in which no word comes within half a gap of `x`."""
    margin, runs, start = _GAP / 2 - 0.5, list[tuple[int, int]](), 0
    for number, line in enumerate(lines):
        if any(word.x0 < x + margin and word.x1 > x - margin for word in line):
            runs.append((start, number))
            start = number + 1
    runs.append((start, len(lines)))
    return [(low, high) for low, high in runs if high - low >= _LINES]


def _is_gutter(lines: list[WordLine], x: float) -> bool:
    left = [[word for word in line if word.x1 <= x] for line in lines]
    right = [[word for word in line if word.x1 > x] for line in lines]
    beside = sum(1 for a, b in zip(left, right, strict=True) if a and b)
    return _is_prose([line for line in left if line]) and _is_prose([line for line in right if line]) and (
        beside >= _LINES or _overlap(left, right)
    )  # fmt: skip


def _is_prose(lines: list[WordLine]) -> bool:
    lines = [line for line in lines if line[0].table is None]
    if len(lines) < _LINES:
        return False
    width = max(line[-1].x1 for line in lines) - min(line[0].x0 for line in lines)
    fill = median(line[-1].x1 - line[0].x0 for line in lines) / max(width, 1.0)
    return median(len(line) for line in lines) >= _WORDS and fill >= _FILL


def _overlap(left: list[WordLine], right: list[WordLine]) -> bool:
    """Tell whether two sets of lines stand beside each other although their lines are at different heights."""
    tops = [[line[0].top for line in side if line] for side in (left, right)]
    low, high = max(min(side) for side in tops), min(max(side) for side in tops)
    return all(sum(low <= top <= high for top in side) >= _LINES for side in tops)
