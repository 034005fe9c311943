"""What reading a document gives: its lines, blocks and tables, and what was left out of it. Reads nothing itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

AtPage = Callable[[int, int], None]
"""Is told before each page its number, from 1, and how many there are; it may raise `UnreadableError`."""

ENDS_SENTENCE = re.compile(r"[.!?\u2026\u3002\uff01\uff1f:;][\"'\u201d\u2019\u00bb)\]]*$")
"""A line after which a sentence does not go on."""
LIST_ITEM = re.compile(
    r"^(?:[-\u2013*\u2022\u25e6\u25aa\u25cf\u25a0\u25a1\u25cb\u00b7\u2023\u2219]|\(?(?:\d{1,3}|[a-zA-Z\uac00-\ud558])[.)])\s"
)
"""The beginning of an item: a bullet, a number, a letter."""
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")


class UnreadableError(Exception):
    """A file gives no text; the message names the kind of failure, and is what the tally counts."""


@dataclass(frozen=True)
class Line:
    """A line of a page as it was set; `assemble.py` joins lines to blocks.

    Attributes:
        top: distance from the top of the page, in points.
        size: height of its letters, in points.
        flow: number of the column or run it stands in, unique in the document.
        paragraph: number of its paragraph, unique in the document.
        full: whether it reaches the right border of its column.
    """

    text: str
    page: int
    top: float
    size: float
    flow: int
    paragraph: int
    full: bool


@dataclass(frozen=True)
class Block:
    """A paragraph, a heading, or preformatted text.

    Attributes:
        pages: (offset into the text, page) wherever a page begins; empty where the file has none.
    """

    text: str
    kind: Literal["text", "heading", "code"] = "text"
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Row:
    """The cells of one row of a table, and the page it stands on (0: the file has none)."""

    cells: tuple[str, ...]
    page: int = 0


@dataclass(frozen=True)
class Table:
    """A table with one label per column.

    Attributes:
        header: the labels; the levels of a header with several are joined as "A / B".
        rows: the body.
        head_rows: the header as it was set, level by level; needed when a table turns out to continue another.
        edges: left borders of the columns in points; empty where the file has no geometry.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    head_rows: tuple[tuple[str, ...], ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def page(self) -> int:
        """The page it begins on."""
        return self.rows[0].page


Part = Line | Block | Table


@dataclass
class Report:
    """What happened to one document. Small and picklable: processes send it back with the document."""

    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    ocr_problem: str = ""
    """Why pages without text could not be read; empty if none had to be or all were."""


@dataclass(frozen=True)
class Document:
    """One file, read. `name` is its path from the folder, with slashes."""

    name: str
    title: str
    parts: tuple[Part, ...]
    report: Report


def clean(text: str) -> str:
    """Return `text` without control characters, byte order marks and halves of surrogate pairs."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def markdown_row(cells: tuple[str, ...]) -> str:
    """Return one line of a Markdown table; pipes in cells are escaped."""
    return "| " + " | ".join(_ESCAPED.sub(r"\|", cell) for cell in cells) + " |"


def markdown_header(header: tuple[str, ...]) -> str:
    """Return the two lines that begin a Markdown table."""
    return f"{markdown_row(header)}\n|{' --- |' * len(header)}"


_ESCAPED = re.compile(r"(?<!\\)\|")  # a cell of a Markdown file comes escaped


@dataclass
class Layout:
    """Counts flows and paragraphs through a document, so that each has a number of its own."""

    flow: int = 0
    paragraph: int = 0
