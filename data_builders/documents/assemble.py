"""Lines of pages become paragraphs and headings; tables that go on over a page are put together. Cuts nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from data_builders.documents.parts import ENDS_SENTENCE, LIST_ITEM, Block, Line, Part, Row, Table

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LAST_WORD = re.compile(r"([^\W\d_]+)-$")
_FIRST_WORD = re.compile(r"^([^\W\d_]+)")
_NO_SPACE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")  # Chinese and Japanese: no space where lines meet
_HEADING_SIZE = 1.15  # of the usual size of letters
_LONGEST_HEADING = 200


def assembled(parts: Sequence[Part]) -> list[Block | Table]:
    """Return blocks and tables in order; lines are joined by paragraph, over columns and pages too."""
    words = {match.casefold() for part in parts if isinstance(part, Line) for match in _WORD.findall(part.text)}
    usual = _usual_size(parts)
    found: list[Block | Table] = []
    for group in _groups(parts):
        if isinstance(group, list):
            found.append(_block(group, usual, words))
        elif isinstance(group, Table) and found and isinstance(last := found[-1], Table) and _goes_on(last, group):
            found[-1] = _joined_tables(last, group)
        else:
            found.append(group)
    return found


def title_of(parts: Sequence[Part]) -> str:
    """Return the text in the largest letters of the first page, if they are larger than usual; nothing otherwise."""
    lines = [part for part in parts if isinstance(part, Line)]
    first = [line for line in lines if line.page == lines[0].page]
    largest = max(first, key=lambda line: line.size, default=None)
    if largest is None or largest.size <= _HEADING_SIZE * _usual_size(parts):
        return ""
    title = " ".join(line.text for line in first if line.paragraph == largest.paragraph)
    return title if len(title) <= _LONGEST_HEADING else ""


def _usual_size(parts: Sequence[Part]) -> float:
    """Return the size that most letters have."""
    letters: Counter[float] = Counter()
    for part in parts:
        if isinstance(part, Line):
            letters[part.size] += len(part.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _groups(parts: Sequence[Part]) -> Iterator[list[Line] | Block | Table]:
    group: list[Line] = []
    for part in parts:
        if isinstance(part, Line) and group and not _belongs(group[-1], part):
            yield group
            group = []
        if isinstance(part, Line):
            group.append(part)
            continue
        yield from [group] if group else []
        group = []
        yield part
    yield from [group] if group else []


def _belongs(before: Line, line: Line) -> bool:
    """Tell whether a line continues the paragraph of the one before, be it in the next column or on the next page."""
    if before.paragraph == line.paragraph:
        return True
    same_size = abs(before.size - line.size) <= 0.08 * max(before.size, line.size)
    goes_on = not ENDS_SENTENCE.search(before.text) and not LIST_ITEM.match(line.text)
    return before.flow != line.flow and same_size and goes_on and (before.full or line.text[0].islower())


def _block(lines: list[Line], usual: float, words: set[str]) -> Block:
    text, pages = "", list[tuple[int, int]]()
    for line in lines:
        text, offset = _joined(text, line.text, words)
        if not pages or pages[-1][1] != line.page:
            pages.append((offset, line.page))
    is_heading = lines[0].size > _HEADING_SIZE * usual and len(text) <= _LONGEST_HEADING
    return Block(text, "heading" if is_heading else "text", tuple(pages))


def _joined(text: str, line: str, words: set[str]) -> tuple[str, int]:
    """Return the text with a line added, and where the line begins in it."""
    if not text:
        return line, 0
    if text.endswith("\xad"):
        return text[:-1] + line, len(text) - 1
    broken, rest = _LAST_WORD.search(text), _FIRST_WORD.match(line)
    if broken and rest:
        first, second = broken.group(1).casefold(), rest.group(1).casefold()
        if first + second in words or (line[0].islower() and f"{first}-{second}" not in words):
            return text[:-1] + line, len(text) - 1
        return text + line, len(text)
    if _NO_SPACE.match(text[-1]) and _NO_SPACE.match(line[0]):
        return text + line, len(text)
    return f"{text} {line}", len(text) + 1


def _goes_on(table: Table, after: Table) -> bool:
    """Tell whether a table continues the one before: on the next page, with the same columns at the same places."""
    if not table.edges or len(table.edges) != len(after.edges) or after.page != table.rows[-1].page + 1:
        return False
    aligned = all(abs(first - second) < 3 for first, second in zip(table.edges, after.edges, strict=True))
    return aligned and (after.header == table.header or len(after.head_rows) == 1)


def _joined_tables(table: Table, after: Table) -> Table:
    head = () if after.header == table.header else tuple(Row(cells, after.page) for cells in after.head_rows)
    return replace(table, rows=table.rows + head + after.rows)
