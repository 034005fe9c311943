"""Text of scanned pages through tesseract. Where tesseract or a language is missing, pages are counted, not failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from data_builders.documents.parts import Layout, Line, Report, clean

if TYPE_CHECKING:
    from pdfplumber.page import Page


_MOST_PIXELS = 40_000_000  # a poster at 300 dpi would fill the memory; it is read at a lower resolution
SKIPPED = "PDF pages without text that were not read by OCR"


@dataclass(frozen=True)
class Ocr:
    """How to read scanned pages; `dpi` is the resolution they are drawn at."""

    mode: Literal["auto", "off"]
    languages: str
    dpi: int


def read_image(page: Page, ocr: Ocr, report: Report, layout: Layout) -> list[Line] | None:
    """Return the lines tesseract sees on a page, or None (and say why in the report) where it cannot be asked."""
    import pytesseract

    problem = ocr_problem(ocr, pytesseract.pytesseract.tesseract_cmd)
    if problem:
        report.ocr_problem = problem
        report.dropped[SKIPPED] += 1
        return None
    inches = float(page.width) * float(page.height) / 72**2
    dpi = min(ocr.dpi, int((_MOST_PIXELS / max(inches, 0.01)) ** 0.5))
    image = page.to_image(resolution=dpi).original
    try:
        seen = pytesseract.image_to_data(image, lang=ocr.languages, output_type=pytesseract.Output.DICT)
    except pytesseract.TesseractError as error:
        report.ocr_problem = f"tesseract failed: {' '.join(str(error.message).split())[:200]}"
        report.dropped[SKIPPED] += 1
        return None
    report.counts["PDF pages read by OCR"] += 1
    return list(_lines(seen, page.page_number, 72 / dpi, layout))


@lru_cache
def ocr_problem(ocr: Ocr, command: str) -> str:
    """Return why tesseract, called by the name `command`, cannot be used, or nothing if it can."""
    if ocr.mode == "off":
        return "ocr is off"
    import pytesseract

    try:
        present = set(pytesseract.get_languages())
    except (pytesseract.TesseractNotFoundError, OSError):
        return "tesseract is not installed"
    missing = [language for language in ocr.languages.split("+") if language not in present]
    return f"tesseract has no language {', '.join(missing)}" if missing else ""


def _lines(seen: dict[str, list[Any]], page: int, scale: float, layout: Layout) -> Iterator[Line]:
    """Gather words to lines; tesseract numbers blocks, paragraphs and lines in reading order."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for index, text in enumerate(seen["text"]):
        if clean(str(text)).strip():
            place = (seen["block_num"][index], seen["par_num"][index], seen["line_num"][index])
            groups.setdefault(place, []).append(index)
    rights: dict[int, int] = {}
    for (block, _, _), words in groups.items():
        rights[block] = max(rights.get(block, 0), max(seen["left"][i] + seen["width"][i] for i in words))
    before: tuple[int, int] | None = None
    for (block, paragraph, _), words in groups.items():
        layout.flow += before is None or before[0] != block
        layout.paragraph += before != (block, paragraph)
        before = (block, paragraph)
        right = max(seen["left"][i] + seen["width"][i] for i in words)
        yield Line(
            text=" ".join(clean(str(seen["text"][i])).strip() for i in words),
            page=page,
            top=round(min(seen["top"][i] for i in words) * scale, 1),
            size=0.0,  # heights of scanned words vary too much to tell headings by
            flow=layout.flow,
            paragraph=layout.paragraph,
            full=right >= 0.85 * rights[block],
        )
