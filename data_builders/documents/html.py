"""An HTML page becomes blocks and tables, through BeautifulSoup. Scripts are neither run nor kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from bs4 import BeautifulSoup, Tag
from bs4.dammit import EncodingDetector
from bs4.element import CData, NavigableString

from data_builders.documents.parts import Block, Part, Report
from data_builders.documents.plain import decode
from data_builders.documents.tables import Cell, Grid, make_table

_DROPPED = {
    "script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "nav", "header", "footer",
    "aside", "title", "button", "select", "textarea",
}  # fmt: skip
_BLOCKS = {
    "address", "article", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "html", "li", "main",
    "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
}  # fmt: skip
_MOST_SPANNED = 100  # columns or rows one cell may claim to cover
Event = tuple[Literal["open", "close", "text"], Tag | NavigableString]


def html_parts(data: bytes, report: Report) -> tuple[str, tuple[Part, ...]]:
    """Return the title of a page (<title>, else <h1>) and its blocks and tables in order.

    Raises:
        UnreadableError: it is no text.
    """
    declared = EncodingDetector.find_declared_encoding(data[:4096], is_html=True)
    soup = BeautifulSoup(decode(data, report, declared), "html.parser")
    heading = soup.find("h1")
    titles = (_line(tag.get_text(" ")) for tag in (soup.title, heading) if tag is not None)
    return next(filter(None, titles), ""), tuple(_Reader().parts(soup))


class _Reader:
    """Gathers text until a block begins or ends."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._prefix = ""
        self._preformatted = 0

    def parts(self, root: Tag) -> Iterator[Part]:
        skipped: Tag | None = None
        for event, node in _events(root):
            if skipped is not None:
                skipped = None if event == "close" and node is skipped else skipped
            elif isinstance(node, NavigableString):
                self._texts.append(str(node) if self._preformatted else re.sub(r"\s+", " ", node))
            elif event == "open" and _is_dropped(node):
                skipped = node
            elif event == "open" and node.name == "table" and (found := _table(node)):
                yield from self._flushed()
                yield from found
                skipped = node
            elif node.name == "br":
                self._texts.append("\n" if event == "open" else "")
            elif node.name in _BLOCKS:
                yield from self._flushed(node.name if event == "close" else "")
                self._enter(node, event)
        yield from self._flushed()

    def _enter(self, node: Tag, event: str) -> None:
        self._preformatted += (node.name == "pre") * (1 if event == "open" else -1)
        if node.name == "li":
            self._prefix = "- " if event == "open" else ""

    def _flushed(self, closed: str = "") -> Iterator[Block]:
        text, self._texts = "".join(self._texts), []
        if closed == "pre" and text.strip():
            yield Block(f"```\n{text.strip(chr(10))}\n```", "code")
            return
        text = "\n".join(filter(None, map(_line, text.split("\n"))))
        if not text:
            return
        if re.fullmatch(r"h[1-6]", closed):
            yield Block(f"{'#' * int(closed[1])} {_line(text)}", "heading")
        else:
            yield Block(self._prefix + text)
        self._prefix = ""


def _events(root: Tag) -> Iterator[Event]:
    """Walk a tree without recursion: pages may be nested deeper than Python's stack."""
    stack: list[tuple[Tag, Iterator[object]]] = [(root, iter(root.children))]
    while stack:
        tag, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            yield "close", tag
        elif isinstance(child, Tag):
            yield "open", child
            stack.append((child, iter(child.children)))
        elif isinstance(child, NavigableString) and type(child) in (NavigableString, CData):
            yield "text", child


def _is_dropped(tag: Tag) -> bool:
    return tag.name in _DROPPED or tag.has_attr("hidden") or tag.get("aria-hidden") == "true"


def _line(text: str) -> str:
    return " ".join(text.split())


def _table(tag: Tag) -> list[Part]:
    """Return a table of data (and its caption), or nothing for one that only places things on the page."""
    if tag.find(["table", "h1", "h2", "h3", "h4", "h5", "h6", "pre"]) or tag.get("role") == "presentation":
        return []
    rows = tag.find_all("tr")
    caption, table = make_table(_grid(rows))
    if table is None:
        return []
    own = tag.find("caption")
    texts = filter(None, [_line(own.get_text(" ")) if own else "", caption])
    return [*(Block(text) for text in texts), table]


def _grid(rows: list[Tag]) -> Grid:
    taken: set[tuple[int, int]] = set()
    cells: list[Cell] = []
    head = 0
    for number, row in enumerate(rows):
        own = row.find_all(["td", "th"])
        head += head == number and bool(own) and (_in_head(row) or all(cell.name == "th" for cell in own))
        column = 0
        for cell in own:
            while (number, column) in taken:
                column += 1
            height = min(_span(cell, "rowspan"), len(rows) - number)
            width = _span(cell, "colspan")
            taken |= {(number + down, column + right) for down in range(height) for right in range(width)}
            cells.append(Cell(number, column, height, width, _line(cell.get_text(" "))))
            column += width
    return Grid(tuple(cells), head or None)


def _in_head(row: Tag) -> bool:
    return row.parent is not None and row.parent.name == "thead"


def _span(cell: Tag, name: str) -> int:
    given = str(cell.get(name) or "1").strip()
    return min(max(int(given), 1), _MOST_SPANNED) if given.isdecimal() and len(given) < 10 else 1
