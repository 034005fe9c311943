"""A folder of documents as a source, with questions about them. Parsing is in data_builders/documents."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import Question
from data_builders.sources.documents_settings import DocumentsSettings
from data_builders.sources.jsonl import answers_of, optional_text, split_of, within
from data_builders.sources.rows import (
    BadRow,
    Format,
    Place,
    SourceRecord,
    hashed_id,
    parsed_file,
    rows_of,
    setting,
    shown,
    split_files,
    text_of,
)

if TYPE_CHECKING:
    from data_builders.documents.evidence import Asked, Wanted
    from data_builders.documents.parts import Document, Report


Mapper = Callable[[Callable[[tuple[Path, str]], "Document"], Iterable[tuple[Path, str]]], Iterable["Document"]]
"""Applies a function to files and gives the results in their order: `map`, or the `imap` of a pool of processes."""


class Documents:
    """The source itself. Every passage is searched by the questions of every split."""

    def __init__(self, settings: DocumentsSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._name = name

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream the passages of every file in the order of their paths, then the questions with their gold.

        The files are read one at a time and kept, as text, in a temporary file until it is known which lines most of
        them share. Questions are held in memory.

        Raises:
            RagFtError: the folder or its files are not there, a question does not fit, or the tokenizer cannot be
                loaded.
        """
        from data_builders.documents.evidence import Locator
        from data_builders.documents.tokens import token_counter

        files = list_files(self._settings, self._name, tally)
        asked = list(self._asked(tally))
        token_counter(self._settings.tokenizer)  # a name that is wrong should be told before an hour of reading
        folder = Path(self._settings.path).expanduser().resolve().name
        locator = Locator(asked, [name for _, name in files], folder)
        with _spooling() as spool:
            repeated = self._read(files, spool, tally, mapper)
            yield from self._passages(spool, len(files), repeated, locator, tally)
        yield from locator.questions(tally)

    def _read(self, files: list[tuple[Path, str]], spool: IO[bytes], tally: Tally, mapper: Mapper) -> frozenset[bytes]:
        """Read every file into the spool; return the lines that most share."""
        from data_builders.documents.boilerplate import LineCounts

        lines = LineCounts()
        ocr_problems: Counter[str] = Counter()
        for document in mapper(partial(_read_one, settings=self._settings), files):
            if self._settings.boilerplate and document.parts:
                lines.add(document)
            tell(document.report, document.name, tally)
            if document.report.ocr_problem:
                ocr_problems[document.report.ocr_problem] += 1
            pickle.dump(document, spool)
        tally.count("files", len(files))
        self._advise(ocr_problems, tally)
        return lines.repeated()

    def _passages(
        self, spool: IO[bytes], count: int, repeated: frozenset[bytes], locator: Any, tally: Tally
    ) -> Iterator[SourceRecord]:
        from data_builders.documents.read import chunk_document

        spool.seek(0)
        for _ in range(count):
            document: Document = pickle.load(spool)  # written above by this process, deleted when it ends
            chunks, report = chunk_document(document, self._settings, repeated)
            tell(report, document.name, tally)
            locator.see(chunks)
            yield from (chunk.passage for chunk in chunks)

    def _asked(self, tally: Tally) -> Iterator[Asked]:
        settings = self._settings
        if settings.questions is None:
            return
        for _, path in split_files(settings.questions, setting(self._name, "questions")):
            rows = parsed_file(QUESTIONS, (self._name, path), settings.bad_rows, tally)
            yield from cast("Iterator[Asked]", rows)

    def _advise(self, problems: Counter[str], tally: Tally) -> None:
        from data_builders.documents.ocr import SKIPPED

        if not problems:
            return
        tally.advice.append(
            f"{setting(self._name)}: {tally.dropped[SKIPPED]} PDF pages without text, in {problems.total()} files, "
            f"were not read: {'; '.join(sorted(problems))}. Install tesseract with the languages "
            f"{self._settings.ocr_languages} (Debian: apt install tesseract-ocr tesseract-ocr-LANGUAGE) "
            "and set ocr: auto, or leave them out."
        )


@contextmanager
def _spooling() -> Iterator[IO[bytes]]:
    """Open a file that nobody else sees; a disk without room for it is told in one sentence."""
    try:
        with tempfile.TemporaryFile() as spool:
            yield spool
    except OSError as error:
        raise RagFtError(
            f"cannot keep the text of the documents in {tempfile.gettempdir()}: {error.strerror}. "
            "Free some space there or name another folder in the environment: TMPDIR=PATH."
        ) from error


def _read_one(file: tuple[Path, str], settings: DocumentsSettings) -> Document:
    from data_builders.documents.read import read_document

    return read_document(*file, settings)


def list_files(settings: DocumentsSettings, name: str, tally: Tally) -> list[tuple[Path, str]]:
    """Return (file, path from the folder with slashes) of all files to read, sorted; others are counted.

    Names that begin with a dot are passed over, as are links to folders.

    Raises:
        RagFtError: there is no such folder, or nothing in it can be read.
    """
    from data_builders.documents.read import SUFFIXES

    root, key = Path(settings.path).expanduser(), setting(name)
    if not root.is_dir():
        raise RagFtError(f"{key}.path: there is no folder {settings.path} (seen from {Path.cwd()}). Give your folder.")
    found: list[tuple[Path, str]] = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        relative = os.fsencode("/".join(parts)).decode("utf-8", "replace")
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if not any(fnmatchcase(relative, pattern) for pattern in settings.include):
            tally.count("files outside `include`")
        elif path.suffix.lower() in SUFFIXES:
            found.append((path, relative))
        else:
            tally.count(f"files of other kinds: {path.suffix.lower() or 'no suffix'}", 1, relative)
    if not found:
        raise RagFtError(
            f"{key}: no file in {settings.path} ends with {', '.join(SUFFIXES)} and fits include: "
            f"{', '.join(settings.include)}. Change {key}.path or {key}.include."
        )
    return sorted(found, key=lambda file: (file[1], str(file[0])))


def tell(report: Report, name: str, tally: Tally) -> None:
    """Add what happened to one document to the tally, under its name."""
    for reason, amount in report.dropped.items():
        tally.drop(reason, amount, name)
    for what, amount in report.counts.items():
        if amount:
            tally.count(what, amount, name)


def parse_question(row: dict[str, Any], place: Place) -> Iterator[Asked]:
    """Yield the question of a row and the evidence it names."""
    from data_builders.documents.evidence import Asked

    text, answers = text_of(row, "question"), answers_of(row)
    if not text.strip():
        raise BadRow("question", "is empty")
    if answers is None:
        raise BadRow("answers", "is missing")
    question = Question(
        id=optional_text(row, "id") or hashed_id("q", text, *answers),
        question=text,
        answers=answers,
        gold=(),
        analysis=optional_text(row, "analysis"),
        source=place.source,
        group=optional_text(row, "group"),
        split=split_of(row),
    )
    yield Asked(question, tuple(_wanted_items(row, answers)))


def _wanted_items(row: dict[str, Any], answers: tuple[str, ...]) -> Iterator[Wanted]:
    if row.get("evidence") is not None:
        for number, item in enumerate(rows_of(row, "evidence")):
            with within(f"evidence.{number}"):
                yield _wanted(item, answers)
    elif any(row.get(field) is not None for field in ("document", "quote")) and answers:
        yield _wanted(row, answers)


def _wanted(item: dict[str, Any], answers: tuple[str, ...]) -> Wanted:
    from data_builders.documents.evidence import Wanted

    document, quote, page = optional_text(item, "document"), optional_text(item, "quote"), item.get("page")
    if not document and not quote.strip():
        raise BadRow("document", "is missing, and so is quote: name at least one")
    if not quote.strip() and not answers:
        raise BadRow("quote", "is missing, and there is no answer to look for instead")
    if page is not None and (isinstance(page, bool) or not isinstance(page, int) or page < 1):
        raise BadRow("page", f"is {shown(page)}, not a whole number from 1")
    return Wanted(document, page or 0, quote, optional_text(item, "reason"))


QUESTIONS = Format(
    kind="documents (questions)",
    example={
        "id": "q1",
        "question": "How long is the warranty of the pump?",
        "answers": ["24 months", "two years"],
        "document": "manuals/pump.pdf",
        "page": 7,
        "quote": "The warranty of the pump is 24 months.",
        "split": "train",
    },
    parse=cast(Any, parse_question),  # its questions have no gold yet, so they are no records
)
