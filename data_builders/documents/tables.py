"""Cells with spans, from PDF rulings or HTML, become a table with one label per column. Finds no cells itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_builders.documents.parts import Row, Table

_MOST_HEAD_ROWS = 3
_NUMBER = re.compile(r"^[^\w]*\d[\d\s.,:/%+-]*\D{0,3}$")


@dataclass(frozen=True)
class Cell:
    """A cell: its place (from 0), how many rows and columns it covers, and its text."""

    row: int
    column: int
    rows: int
    columns: int
    text: str


@dataclass(frozen=True)
class Grid:
    """A table's cells. `head` is the number of header rows, None where the file does not say."""

    cells: tuple[Cell, ...]
    head: int | None = None
    page: int = 0
    edges: tuple[float, ...] = ()


def make_table(grid: Grid) -> tuple[str, Table | None]:
    """Return the caption that stands in the first row over all columns (or nothing), and the table.

    The table is None where the cells are no table: fewer than two columns with text, or no row below the header.
    A cell over several rows is repeated in each, so that every row can be read alone; a cell over several columns is
    repeated in the header and stands in its first column in the body.
    """
    caption, grid = _without_caption(_compact(grid))
    width = max((cell.column + cell.columns for cell in grid.cells), default=0)
    height = max((cell.row + cell.rows for cell in grid.cells), default=0)
    if width < 2 or height < 2:
        return "", None
    owners = _owners(grid.cells, height, width)
    filled = {cell.column for cell in grid.cells if cell.text}
    depth = min(grid.head if grid.head else _head_rows(owners, width), height - 1)
    if len(filled) < 2:
        return "", None
    head = _head_texts(owners[:depth])
    body = [tuple(_body_text(cell, column) for column, cell in enumerate(row)) for row in owners[depth:]]
    rows = tuple(Row(cells, grid.page) for cells in body if any(cells))
    header = tuple(" / ".join(dict.fromkeys(filter(None, labels))) for labels in zip(*head, strict=True))
    return (caption, Table(header, rows, head, grid.edges)) if rows else ("", None)


def _compact(grid: Grid) -> Grid:
    """Leave out rows and columns in which no text begins: rulings of forms make them, and spans that claim too much."""
    texts = [cell for cell in grid.cells if cell.text]
    rows, columns = _renumbered({cell.row for cell in texts}), _renumbered({cell.column for cell in texts})
    kept = []
    for cell in grid.cells:
        own_rows = [rows[row] for row in range(cell.row, cell.row + cell.rows) if row in rows]
        own_columns = [columns[c] for c in range(cell.column, cell.column + cell.columns) if c in columns]
        if own_rows and own_columns:
            kept.append(Cell(own_rows[0], own_columns[0], len(own_rows), len(own_columns), cell.text))
    head = None if grid.head is None else sum(row < grid.head for row in rows)
    edges = tuple(edge for column, edge in enumerate(grid.edges) if column in columns)
    return replace(grid, cells=tuple(kept), head=head, edges=edges)


def _renumbered(kept: set[int]) -> dict[int, int]:
    return {old: new for new, old in enumerate(sorted(kept))}


def _without_caption(grid: Grid) -> tuple[str, Grid]:
    first = [cell for cell in grid.cells if cell.row == 0]
    width = max((cell.column + cell.columns for cell in grid.cells), default=0)
    if len(first) != 1 or width < 2 or first[0].columns < width or first[0].rows > 1:
        return "", grid
    rest = tuple(replace(cell, row=cell.row - 1) for cell in grid.cells if cell.row)
    return first[0].text, replace(grid, cells=rest, head=grid.head - 1 if grid.head else None)


_Owners = list[list[Cell | None]]


def _owners(cells: Sequence[Cell], height: int, width: int) -> _Owners:
    owners: _Owners = [[None] * width for _ in range(height)]
    for cell in cells:
        for row in range(cell.row, cell.row + cell.rows):
            for column in range(cell.column, cell.column + cell.columns):
                owners[row][column] = owners[row][column] or cell
    return owners


def _head_rows(owners: _Owners, width: int) -> int:
    """Guess the header's rows: more than one only below a cell that spans columns, or below labels with gaps."""
    depth = 1
    while depth < min(_MOST_HEAD_ROWS, len(owners) - 1) and _spans(owners[depth - 1], width):
        depth += 1
    return 2 if depth == 1 and _has_gaps_filled_below(owners) else depth


def _spans(row: list[Cell | None], width: int) -> bool:
    return any(cell is not None and 1 < cell.columns < width for cell in row)


def _has_gaps_filled_below(owners: _Owners) -> bool:
    """Tell a two-level header without merged cells: labels, then empty cells that the next row names."""
    if len(owners) < 3:
        return False
    texts = [[cell.text if cell else "" for cell in row] for row in owners]
    upper, lower, rest = texts[0], texts[1], texts[2:]
    gaps = [column for column in range(1, len(upper)) if not upper[column]]
    named = gaps and any(upper[1:]) and all(lower[column] for column in gaps)
    words = not any(_NUMBER.match(text) for text in lower if text) or not set(lower) - {"", *_years(lower)}
    return bool(named and words and any(_NUMBER.match(text) for row in rest for text in row))


def _years(texts: Sequence[str]) -> set[str]:
    return {text for text in texts if re.fullmatch(r"(?:19|20)\d\d", text)}


def _head_texts(rows: _Owners) -> tuple[tuple[str, ...], ...]:
    texts = [[cell.text if cell else "" for cell in row] for row in rows]
    if len(texts) > 1 and not any(cell and cell.columns > 1 for cell in rows[0]):
        for column in range(1, len(texts[0])):  # labels over gaps: the gap belongs to the label on its left
            texts[0][column] = texts[0][column] or (texts[0][column - 1] if column > 1 else "")
    return tuple(tuple(row) for row in texts)


def _body_text(cell: Cell | None, column: int) -> str:
    return cell.text if cell is not None and cell.column == column else ""
