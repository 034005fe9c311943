"""Pages of a PDF become lines in reading order and tables, through pdfplumber; pages without text go to OCR."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pdfplumber
from pdfminer.pdfdocument import PDFPasswordIncorrect
from pdfplumber.page import Page

from data_builders.documents.columns import Word, WordLine, flows
from data_builders.documents.ocr import Ocr, read_image
from data_builders.documents.parts import (
    ENDS_SENTENCE,
    LIST_ITEM,
    AtPage,
    Block,
    Layout,
    Line,
    Part,
    Report,
    UnreadableError,
    clean,
)
from data_builders.documents.tables import Cell, Grid, make_table

if TYPE_CHECKING:
    from pdfplumber.table import Table as FoundTable

_SPACES = {"x_tolerance_ratio": 0.15}  # a gap of 15 % of the letter size is a space, also in tightly set lines
_FEW_LETTERS = 20  # a page with less text than this, and with drawings, was scanned
_JUNK_TITLE = re.compile(
    r"^(?:untitled|microsoft \w+ - .*|slide 1|powerpoint(?:-| )\w+|\W*|제목 ?없음|문서 ?\d*)$"
    r"|\.(?:docx?|pptx?|xlsx?|pdf|hwpx?|indd|tex|dvi|odt|rtf|txt)$",
    re.I,
)


def read_pdf(path: Path, ocr: Ocr, report: Report, at_page: AtPage | None = None) -> tuple[str, tuple[Part, ...]]:
    """Return the title a PDF gives itself (or nothing) and its lines and tables, page after page.

    Raises:
        UnreadableError: it is encrypted, broken, or has no page, or `at_page` refuses it.
    """
    with path.open("rb") as stream, _quiet():
        pdf, pages = _opened(stream)
        parts: list[Part] = []
        layout = Layout()
        for page in pages:
            if at_page is not None:
                at_page(page.page_number, len(pages))
            try:
                parts += _page_parts(page, layout, ocr, report)
            except Exception:  # pdfminer raises whatever a damaged object leads to
                report.dropped["PDF pages that could not be read"] += 1
            finally:
                page.close()
        report.counts["PDF pages"] += len(pages)
        return _own_title(pdf.metadata), tuple(parts)


def _opened(stream: Any) -> tuple[Any, list[Page]]:
    try:
        pdf = pdfplumber.open(stream, raise_unicode_errors=False)
        pages = pdf.pages
    except Exception as error:
        if any(isinstance(cause, PDFPasswordIncorrect) for cause in (error, *error.args)):
            raise UnreadableError("PDF files that need a password") from error
        raise UnreadableError("PDF files that are broken") from error
    if not pages:
        raise UnreadableError("PDF files that are broken")
    return pdf, pages


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pdfminer says of damaged files, line after line, off the terminal: the tally says it once."""
    logger = logging.getLogger("pdfminer")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _own_title(metadata: dict[str, Any]) -> str:
    title = metadata.get("Title")
    title = " ".join(clean(title).split()) if isinstance(title, str) else ""
    return "" if _JUNK_TITLE.search(title) else title


def _page_parts(page: Page, layout: Layout, ocr: Ocr, report: Report) -> list[Part]:
    number = page.page_number
    chars = [char for char in page.chars if char["text"].strip()]
    readable = [char for char in chars if not char["text"].startswith("(cid:")]
    if len(readable) < _FEW_LETTERS or len(readable) < 0.7 * len(chars):
        drawn = page.images or page.curves or len(readable) < len(chars)
        lines = read_image(page, ocr, report, layout) if drawn else None
        if lines:
            return list(lines)
        if not readable:
            report.counts["PDF pages without anything on them"] += not drawn
            return []
    upright = sum(char["upright"] for char in chars)
    if len({(char["text"], round(char["x0"]), round(char["top"])) for char in chars}) < len(chars):
        page = page.dedupe_chars()  # letters printed twice to look bold; slow, so only where there are some
    if 0.9 * len(chars) < upright < len(chars):  # stamps along the margin
        report.counts["rotated letters left out"] += len(chars) - upright
        page = page.filter(lambda item: item.get("upright", True))
    return [part for flow in flows(_words(page)) for part in _flow_parts(flow, number, layout)]


def _words(page: Page) -> list[Word]:
    """Return the words outside tables, and each table in the place of a word."""
    tables = list(_tables(page))
    boxes = [(word.x0, word.top, word.x1, word.bottom) for word in tables]
    outside = page.filter(lambda item: item["object_type"] != "char" or not any(_inside(item, box) for box in boxes))
    words = [
        Word(text, word["x0"], word["x1"], word["top"], word["bottom"])
        for word in outside.extract_words(**_SPACES)
        if (text := clean(word["text"]).strip())
    ]
    return words + tables


def _inside(char: dict[str, Any], box: tuple[float, float, float, float]) -> bool:
    x, y = (char["x0"] + char["x1"]) / 2, (char["top"] + char["bottom"]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _tables(page: Page) -> Iterator[Word]:
    for found in page.find_tables():
        caption, table = make_table(_grid(found, page.page_number))
        if table is not None:
            x0, top, x1, bottom = found.bbox
            yield Word("", x0, x1, top, bottom, table, caption)


def _grid(found: FoundTable, page: int) -> Grid:
    texts = {
        box: _cell_text(text)
        for row, row_texts in zip(found.rows, found.extract(**_SPACES), strict=True)
        for box, text in zip(row.cells, row_texts, strict=True)
        if box is not None
    }
    xs, tops = sorted({box[0] for box in texts}), sorted({box[1] for box in texts})
    cells = tuple(
        Cell(
            row=tops.index(box[1]),
            column=xs.index(box[0]),
            rows=sum(box[1] <= top < box[3] - 1 for top in tops),
            columns=sum(box[0] <= x < box[2] - 1 for x in xs),
            text=text,
        )
        for box, text in texts.items()
    )
    return Grid(cells, page=page, edges=tuple(round(x, 1) for x in xs))


def _cell_text(text: str | None) -> str:
    """Return a cell's lines as one, words broken at a line's end put together."""
    return " ".join(re.sub(r"(?<=[^\W\d_])[-\xad]\n(?=[a-zà-ÿ])", "", clean(text or "")).split())


def _flow_parts(flow: list[WordLine], page: int, layout: Layout) -> Iterator[Part]:
    """Number the lines of one column by paragraphs."""
    layout.flow += 1
    texts = [line for line in flow if line[0].table is None]
    borders = _Borders.of(texts)
    before: WordLine | None = None
    for line in flow:
        if (table := line[0].table) is not None:
            yield from [Block(line[0].caption, "text", ((0, page),))] if line[0].caption else []
            yield table
            before = None
            continue
        layout.paragraph += before is None or borders.breaks(before, line)
        text = " ".join(word.text for word in line)
        full = line[-1].x1 >= borders.right - 0.15 * (borders.right - borders.left)
        yield Line(text, page, _top(line), _size(line), layout.flow, layout.paragraph, full)
        before = line


def _top(line: WordLine) -> float:
    return round(median(word.top for word in line), 1)


def _size(line: WordLine) -> float:
    return round(median(word.bottom - word.top for word in line), 1)


@dataclass(frozen=True)
class _Borders:
    """The borders of a column and the usual distance of its lines, in points."""

    left: float
    right: float
    leading: float

    @classmethod
    def of(cls, lines: list[WordLine]) -> _Borders:
        if not lines:
            return cls(0.0, 0.0, 0.0)
        steps = sorted(_top(second) - _top(first) for first, second in pairwise(lines))
        # a low quantile: where paragraphs have two lines, half of the steps lead to the next paragraph
        usual = steps[len(steps) // 4] if len(steps) >= 4 else 1.4 * median(_size(line) for line in lines)
        return cls(min(line[0].x0 for line in lines), max(line[-1].x1 for line in lines), usual)

    def breaks(self, before: WordLine, line: WordLine) -> bool:
        """Tell whether a paragraph ends between two lines."""
        text, text_before = (" ".join(word.text for word in one) for one in (line, before))
        size, size_before = _size(line), _size(before)
        ends = bool(ENDS_SENTENCE.search(text_before))
        short = before[-1].x1 < self.right - 0.18 * (self.right - self.left)
        indented = line[0].x0 > before[0].x0 + 0.8 * size and not LIST_ITEM.match(text_before)
        return (
            _top(line) - _top(before) > 1.35 * max(self.leading, size)
            or abs(size - size_before) > 0.12 * max(size, size_before)
            or bool(LIST_ITEM.match(text))
            or (ends and (short or indented))
        )
