"""One file to a document, and a document to chunks: pure functions, so that processes can run them.

Which files there are, and what many files share, is the business of data_builders/sources/documents.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from data_builders.documents.assemble import assembled, title_of
from data_builders.documents.boilerplate import without_repeated_lines, without_running_heads
from data_builders.documents.chunks import Chunk, chunk_blocks
from data_builders.documents.parts import AtPage, Document, Part, Report, UnreadableError

if TYPE_CHECKING:
    from data_builders.sources.documents_settings import DocumentsSettings

SUFFIXES = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf")
"""Kinds of files that are read."""


def read_document(path: Path, name: str, settings: DocumentsSettings, at_page: AtPage | None = None) -> Document:
    """Read one file; what cannot be read comes back as a document without parts, its report saying why.

    Args:
        path: the file; its suffix says its kind.
        name: its path from the folder, with slashes; the beginning of its passages' ids.
        settings: how scanned pages are read and whether running heads go.
        at_page: is told of every page of a PDF before it is read, and may refuse the file.
    """
    report = Report()
    try:
        title, parts = _read(path, settings, report, at_page)
        if not parts:
            report.dropped["files without any text"] += 1
    except UnreadableError as error:
        title, parts = "", ()
        report.dropped[str(error)] += 1
    except OSError:
        title, parts = "", ()
        report.dropped["files that cannot be opened"] += 1
    except RecursionError:
        title, parts = "", ()
        report.dropped["files nested too deep"] += 1
    if settings.boilerplate:
        parts, report.counts["running heads and page numbers removed"] = without_running_heads(parts)
    return Document(name, title, parts, report)


def chunk_document(
    document: Document, settings: DocumentsSettings, repeated: frozenset[bytes]
) -> tuple[list[Chunk], Report]:
    """Return the chunks of a document without the `repeated` lines of many files, and what was left out.

    Raises:
        RagFtError: the tokenizer of the settings cannot be loaded.
    """
    parts, gone = without_repeated_lines(document.parts, repeated)
    blocks = assembled(parts)
    title = document.title or title_of(parts) or PurePosixPath(document.name).stem
    report = Report(Counter({"lines shared by most files removed": gone}))
    titled = Document(document.name, title, (), report)
    return list(chunk_blocks(titled, blocks, settings, report)), report


def _read(
    path: Path, settings: DocumentsSettings, report: Report, at_page: AtPage | None
) -> tuple[str, tuple[Part, ...]]:
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        from data_builders.documents.ocr import Ocr
        from data_builders.documents.pdf import read_pdf

        return read_pdf(path, Ocr(settings.ocr, settings.ocr_languages, settings.ocr_dpi), report, at_page)
    data = path.read_bytes()
    if suffix in (".html", ".htm"):
        from data_builders.documents.html import html_parts

        return html_parts(data, report)
    from data_builders.documents.plain import decode, markdown_parts, text_parts

    return (text_parts if suffix == ".txt" else markdown_parts)(decode(data, report))
