"""Finds what repeats: running heads and page numbers within a document, lines that most files share."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from data_builders.documents.parts import Block, Document, Line, Part

_EDGE_LINES = 3  # lines at the top and at the bottom of a page that may be running heads
_FEWEST_PAGES = 3
_FEWEST_FILES = 5
_NUMBERS = re.compile(r"\d{1,9}")
_RISING = "\x00"  # marks a number given relative to the page
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)")


def without_running_heads(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], int]:
    """Return the parts without running heads and page numbers, and how many lines that were.

    A line is one if it stands, in the same size, at the top or bottom of most pages, of most left or of most right
    ones; or, with a number that rises with the pages, on three pages in a row (left or right ones: in their row).
    """
    edges = _edge_lines([part for part in parts if isinstance(part, Line)])
    pages = {part.page for part in parts if isinstance(part, Line)}
    seen: dict[tuple[str, str], set[int]] = {}
    for place, line in edges:
        for key in _keys(line):
            seen.setdefault((place, key), set()).add(line.page)
    heads = {key for key, found in seen.items() if _on_most(found, pages) or (_RISING in key[1] and _in_a_row(found))}
    gone = {id(line) for place, line in edges if any((place, key) in heads for key in _keys(line))}
    return tuple(part for part in parts if id(part) not in gone), len(gone)


def _edge_lines(lines: list[Line]) -> list[tuple[str, Line]]:
    by_page: dict[int, list[Line]] = {}
    for line in lines:
        by_page.setdefault(line.page, []).append(line)
    found: list[tuple[str, Line]] = []
    for own in by_page.values():
        ordered = sorted(own, key=lambda line: line.top)
        found += [("top", line) for line in ordered[:_EDGE_LINES]]
        found += [("bottom", line) for line in ordered[-_EDGE_LINES:]]
    return found


def _keys(line: Line) -> Iterator[str]:
    """Yield the line with its size (a title often is the running head too), and with a number relative to the page."""
    text = f"{line.size:.0f} {normal_line(line.text)}"
    yield text
    for match in list(_NUMBERS.finditer(text, text.index(" ")))[:4]:
        yield f"{text[: match.start()]}{_RISING}{int(match.group()) - line.page}{text[match.end() :]}"


def _on_most(found: set[int], pages: set[int]) -> bool:
    if len(found) < _FEWEST_PAGES:
        return False
    sides = [{page for page in pages if page % 2 == side} for side in (0, 1)]
    return len(found) > len(pages) / 2 or any(len(found & side) > len(side) / 2 for side in sides if side)


def _in_a_row(found: set[int]) -> bool:
    return any({page, page + step, page + 2 * step} <= found for page in found for step in (1, 2))


def normal_line(text: str) -> str:
    """Return a line as lines are compared: one form of each character, case folded, spaces single."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class LineCounts:
    """Counts in how many files each line stands, in bounded memory (lossy counting, Manku and Motwani 2002).

    Lines of fewer than two words or eight letters, headings and code never count. What the counts say depends on the
    order of the files, so give them sorted.
    """

    _EVERY = 1000  # files between two clearings
    _LEAST = 0.01  # share of the files below which a line is forgotten

    def __init__(self) -> None:
        self.files = 0
        self._counts: Counter[bytes] = Counter()
        self._missed: dict[bytes, int] = {}

    def add(self, document: Document) -> None:
        """Count the lines of one file, each once."""
        for key in {line_key(text) for text in _countable(document.parts)}:
            if key not in self._counts:
                self._missed[key] = int(self._LEAST * self.files)
            self._counts[key] += 1
        self.files += 1
        if self.files % self._EVERY == 0:
            floor = self._LEAST * self.files
            for key in [key for key, count in self._counts.items() if count + self._missed[key] <= floor]:
                del self._counts[key], self._missed[key]

    def repeated(self) -> frozenset[bytes]:
        """Return the keys of the lines that stand in more than half of the files; nothing below five files."""
        if self.files < _FEWEST_FILES:
            return frozenset()
        return frozenset(key for key, count in self._counts.items() if count + self._missed[key] > self.files / 2)


def line_key(text: str) -> bytes:
    """Return eight bytes that stand for a line."""
    return hashlib.blake2b(normal_line(text).encode(), digest_size=8).digest()


def _countable(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Line):
            yield from [part.text] if _may_repeat(part.text) else []
        elif isinstance(part, Block) and part.kind == "text":
            yield from (text for text in part.text.split("\n") if _may_repeat(text))


def _may_repeat(text: str) -> bool:
    return len(text.split()) >= 2 and sum(letter.isalpha() for letter in text) >= 8 and not _FENCE.match(text)


def without_repeated_lines(parts: Iterable[Part], repeated: frozenset[bytes]) -> tuple[tuple[Part, ...], int]:
    """Return the parts without the lines that most files share, and how many lines that were."""
    kept: list[Part] = []
    gone = 0
    for part in parts:
        if isinstance(part, Line):
            drop = _is_repeated(part.text, repeated)
            kept += [] if drop else [part]
            gone += drop
        elif isinstance(part, Block) and part.kind == "text" and not part.pages:
            lines = part.text.split("\n")
            rest = [line for line in lines if not _is_repeated(line, repeated)]
            gone += len(lines) - len(rest)
            kept += [replace(part, text="\n".join(rest))] if any(map(str.strip, rest)) else []
        else:
            kept.append(part)
    return tuple(kept), gone


def _is_repeated(text: str, repeated: frozenset[bytes]) -> bool:
    return bool(repeated) and _may_repeat(text) and line_key(text) in repeated
