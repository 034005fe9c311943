"""Blocks and tables become chunks of a bounded number of tokens, cut between sentences and between table rows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Tallied
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_builders.documents.parts import Block, Document, Report, Table, markdown_header, markdown_row
from data_builders.documents.tokens import Counter, token_counter
from data_builders.records import Passage
from data_builders.sentences import sentences

if TYPE_CHECKING:
    from data_builders.sources.documents_settings import DocumentsSettings


@dataclass(frozen=True)
class Chunk:
    """A passage and the pages its text comes from, sentences repeated of the passage before included.

    Attributes:
        pages: (offset into the text, page) wherever a page begins; empty where the file has none.
    """

    passage: Passage
    first_page: int
    last_page: int
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Header:
    """The header of one table, as text and in tokens."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Unit:
    """What is never cut: a sentence, a heading, a row. Its text ends with the space or lines that follow it."""

    text: str
    kind: Literal["text", "heading", "code", "row"]
    tokens: int
    page: int = 0
    last_page: int = 0
    header: Header | None = None


def chunk_blocks(
    document: Document, blocks: Sequence[Block | Table], settings: DocumentsSettings, report: Report
) -> Iterator[Chunk]:
    """Yield the chunks of a document; what is shorter than `min_words` is counted and left out."""
    count = token_counter(settings.tokenizer)
    units = _units(blocks, count, settings.chunk_tokens)
    numbers: Tallied[int] = Tallied()
    for packed, repeated in pack(units, settings.chunk_tokens, settings.overlap_tokens):
        text, page = rendered(packed), packed[repeated].page
        if words_in(text) < settings.min_words:
            report.dropped["chunks of fewer than min_words words"] += 1
            continue
        report.counts["chunks longer than chunk_tokens for a single table row"] += _size(packed) > settings.chunk_tokens
        numbers[page] += 1
        place = f"p{page}-{numbers[page]}" if page else f"{numbers[page]}"
        passage = Passage(f"{document.name}#{place}", document.title, text, document.name, page)
        yield Chunk(passage, packed[0].page, max(unit.last_page for unit in packed), tuple(_page_starts(packed)))


def pack(units: Iterable[Unit], limit: int, overlap: int) -> Iterator[tuple[list[Unit], int]]:
    """Fill chunks of at most `limit` tokens; each begins with sentences of at most `overlap` tokens of the one before.

    Only a single unit longer than `limit`, a table row, makes a chunk longer. Headings go to the chunk of what they
    head; rows are not repeated, headers of tables are. Yields each chunk and how many units at its beginning are
    repeated.
    """
    chunk: list[Unit] = []
    size = repeated = 0
    for unit in units:
        cost = _cost(unit, chunk[-1] if chunk else None)
        if chunk and size + cost > limit:
            full, chunk = _closed(chunk, unit, limit, overlap)
            yield full, repeated
            repeated = len(chunk) if chunk and full[-1] is chunk[-1] else 0
            size = _size(chunk)
            cost = _cost(unit, chunk[-1] if chunk else None)
        chunk.append(unit)
        size += cost
    if chunk:
        yield chunk, repeated


def rendered(units: Sequence[Unit]) -> str:
    """Return the text of a chunk; the header of a table stands before its first row."""
    texts: list[str] = []
    for before, unit in zip([None, *units], units, strict=False):
        if unit.header is not None and _begins_table(unit, before):
            texts.append(f"{unit.header.text}\n")
        texts.append(unit.text)
    return "".join(texts).strip()


def _page_starts(units: Sequence[Unit]) -> Iterator[tuple[int, int]]:
    """Yield where in the rendered text each page begins, as far as units tell: a sentence belongs to its first page."""
    offset = page = 0
    for before, unit in zip([None, *units], units, strict=False):
        if unit.page and unit.page != page:
            page = unit.page
            yield offset, page
        if unit.header is not None and _begins_table(unit, before):
            offset += len(unit.header.text) + 1
        offset += len(unit.text)


def words_in(text: str) -> int:
    """Return how many words a text has; a Chinese character or kana counts as one."""
    spaced = "".join(f" {letter} " if "\u3040" <= letter <= "\u9fff" else letter for letter in text)
    return sum(any(map(str.isalnum, word)) for word in spaced.split())


def _begins_table(unit: Unit, before: Unit | None) -> bool:
    return unit.header is not None and (before is None or before.header is not unit.header)


def _cost(unit: Unit, before: Unit | None) -> int:
    return unit.tokens + (unit.header.tokens if unit.header is not None and _begins_table(unit, before) else 0)


def _size(units: Sequence[Unit]) -> int:
    return sum(_cost(unit, before) for before, unit in zip([None, *units], units, strict=False))


def _closed(units: list[Unit], after: Unit, limit: int, overlap: int) -> tuple[list[Unit], list[Unit]]:
    """Return a full chunk and what the next one, in which `after` comes, begins with."""
    stop = len(units)
    while stop and units[stop - 1].kind == "heading":
        stop -= 1
    headings = units[stop:]
    if stop and headings and _size([*headings, after]) <= limit:
        return units[:stop], headings
    tail = _tail(units, overlap)
    while tail and _size([*tail, after]) > limit:
        tail = tail[1:]
    return units, tail


def _tail(units: list[Unit], overlap: int) -> list[Unit]:
    start, size = len(units), 0
    while start > 1 and units[start - 1].kind == "text" and size + units[start - 1].tokens <= overlap:
        start -= 1
        size += units[start].tokens
    return units[start:]


def _units(blocks: Iterable[Block | Table], count: Counter, limit: int) -> Iterator[Unit]:
    for block in blocks:
        if isinstance(block, Table):
            yield from _rows(block, count)
        else:
            yield from _pieces(block, count, limit)


def _rows(table: Table, count: Counter) -> Iterator[Unit]:
    texts = [markdown_header(table.header), *(f"{markdown_row(row.cells)}\n" for row in table.rows)]
    texts[-1] += "\n"
    tokens = count(texts)
    header = Header(texts[0], tokens[0])
    for row, text, size in zip(table.rows, texts[1:], tokens[1:], strict=True):
        yield Unit(text, "row", size, row.page, row.page, header)


def _pieces(block: Block, count: Counter, limit: int) -> Iterator[Unit]:
    """Cut a block into sentences (code: lines), and what is longer than a chunk between words."""
    cut = {"text": sentences, "code": _lines, "heading": _whole}[block.kind]
    spans = list(cut(block.text))
    sizes = count([block.text[start:end] for start, end in spans])
    for (start, end), size in zip(spans, sizes, strict=True):
        for low, high, tokens in (
            [(start, end, size)] if size <= limit else _split(block.text, start, end, count, limit)
        ):
            text = block.text[low:high] + ("\n\n" if high == len(block.text) else "")
            yield Unit(text, block.kind, tokens, _page(block, low), _page(block, high - 1))


def _split(text: str, start: int, end: int, count: Counter, limit: int) -> Iterator[tuple[int, int, int]]:
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_callback(lambda piece: count([piece])[0], limit, trim=False)
    for piece in splitter.chunks(text[start:end]):
        yield start, start + len(piece), count([piece])[0]
        start += len(piece)


def _page(block: Block, offset: int) -> int:
    if not block.pages:
        return 0
    return block.pages[max(bisect_right(block.pages, offset, key=lambda place: place[0]) - 1, 0)][1]


def _whole(text: str) -> Iterator[tuple[int, int]]:
    yield 0, len(text)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)
