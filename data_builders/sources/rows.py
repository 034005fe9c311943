"""Reading rows of JSON and JSON Lines files, plain or .gz, one at a time; what to do with a row that does not fit.

Knows no format: an importer is a `Format` (how a row is parsed) and its settings.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from data_builders.manifest import Tally
from data_builders.records import Passage, Question, Ranking
from data_builders.settings import Settings

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SourceRecord = Passage | Question | Ranking
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Like `map`: results in order, perhaps computed in several processes."""
BROKEN = object()
"""Stands for a line that is not JSON."""
Files = str | Annotated[tuple[str, ...], Field(min_length=1)]


class SourceBase(Settings):
    """What every source has."""

    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the contexts, relative to the other sources; null takes every question of this source once."""


class RowSettings(SourceBase):
    """What importers of rows have in common."""

    bad_rows: Literal["stop", "skip"] = "stop"
    """A row that does not fit the format: stop with its number and field, or leave it out and count it."""


class FileSettings(RowSettings):
    """What importers of files of rows have in common."""

    path: Files | Annotated[dict[Split, Files], Field(min_length=1)]
    """A file or a list of files (plain or .gz, `*` allowed), or those of each split: {train: ..., test: ...}."""
    corpus: Literal["by_split", "shared"] = "by_split"
    """With files of each split: passages are searched by the questions of their own split, or by all."""


@dataclass(frozen=True)
class Place:
    """Where a row stands. `source` is the data set's name, `number` counts the file's rows from 1."""

    source: str
    file: str
    number: int


class BadRow(Exception):  # noqa: N818 - it names the row, not a failure of ours
    """A row does not fit its format. Importers raise it; the reader adds file, row number and an example.

    Args:
        field: the field at fault, dotted: `paragraphs.0.qas`.
        problem: what is wrong with it, as "is missing" or "is 3, not a text".
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


@dataclass(frozen=True)
class Format:
    """A file format of rows.

    Attributes:
        kind: its name in a recipe.
        example: a right row, for the documentation and for error messages.
        parse: turns one row into passages, questions and rankings; raises `BadRow`. Split fields are left empty
            where the row does not name a split itself.
        items: where the rows are in a JSON document: `item` (a list), `data.item` (a list under "data").
    """

    kind: str
    example: dict[str, Any]
    parse: Callable[[dict[str, Any], Place], Iterator[SourceRecord]]
    items: str = "item"


def read_files(format_: Format, settings: FileSettings, name: str, tally: Tally) -> Iterator[SourceRecord]:
    """Stream the records of every file of source `name`; what comes from the files of one split carries that split.

    Raises:
        RagFtError: a file is missing or unreadable, or a row does not fit and `bad_rows` is `stop`.
    """
    for split, path in split_files(settings.path, setting(name, "path")):
        for record in parsed_file(format_, (name, path), settings.bad_rows, tally):
            own = split if settings.corpus == "by_split" or not isinstance(record, Passage) else ""
            yield replace(record, split=own) if own and not isinstance(record, Ranking) else record


def parsed_file(format_: Format, where: tuple[str, Path], bad_rows: str, tally: Tally) -> Iterator[SourceRecord]:
    """Parse a file of rows; `where` is (name of the data set, file). With `skip` a line that is no JSON is a bad row.

    Raises:
        RagFtError: the file is unreadable, or a row does not fit and `bad_rows` is `stop`.
    """
    rows = json_rows(where[1], format_.items, keep_broken=bad_rows == "skip")
    yield from parsed_rows(rows, format_, where, bad_rows, tally)


def parsed_rows(
    rows: Iterable[Any], format_: Format, where: tuple[str, Path], bad_rows: str, tally: Tally
) -> Iterator[SourceRecord]:
    """Parse rows in order; `where` is (name of the data set, file). A row counts as a whole: all of it or nothing."""
    name, path = where
    number = 0
    for number, row in enumerate(rows, start=1):
        try:
            if row is BROKEN:
                raise BadRow("not JSON", "as it stands")
            if not isinstance(row, dict):
                raise BadRow("the row", f"is {shown(row)}, not an object with fields")
            yield from list(format_.parse(row, Place(name, path.name, number)))
        except BadRow as error:
            if bad_rows == "stop":
                raise RagFtError(_refusal(path, number, error, format_)) from error
            field = re.sub(r"\.\d+(?=\.|$)", ".*", error.field)  # few reasons, however long the lists in a row
            tally.drop(f"rows that do not fit kind {format_.kind}: {field}", 1, f"{path.name} row {number}")
    if not number:
        tally.count("files without rows", 1, path.name)


def _refusal(path: Path, number: int, error: BadRow, format_: Format) -> str:
    right = json.dumps(format_.example, ensure_ascii=False)
    return (
        f"{path}, row {number}: {error.field} {error.problem}. A row of kind {format_.kind} is, for example: {right} "
        "Mend the row, set bad_rows: skip to leave such rows out, or see `rag-ft import-check FILE`."
    )


def setting(name: str, *fields: str) -> str:
    """Return the key of a source's setting, for messages; evaluation sets are called `decontaminate.NAME`."""
    head = "data" if name.startswith("decontaminate.") else "data.sources"
    return ".".join([head, name, *fields])


def split_files(path: Any, key: str) -> Iterator[tuple[str, Path]]:
    """Yield (split or empty, file) for every file that a `path` setting names, patterns in sorted order.

    Raises:
        RagFtError: a name or pattern matches no file; `key` is what the message calls the setting.
    """
    for split, names in path.items() if isinstance(path, dict) else [("", path)]:
        for name in [names] if isinstance(names, str) else names:
            yield from ((split, file) for file in _matching(name, key))


def _matching(name: str, key: str) -> list[Path]:
    expanded = Path(name).expanduser()
    if expanded.is_file():
        return [expanded]
    found: list[Path] = []
    if any(sign in name for sign in "*?["):
        anchor = Path(expanded.anchor) if expanded.is_absolute() else Path()
        found = sorted(file for file in anchor.glob(str(expanded.relative_to(anchor))) if file.is_file())
    if not found:
        raise RagFtError(f"{key}: there is no file {name} (seen from {Path.cwd()}). Give the path of your data.")
    return found


def json_rows(path: Path, items: str = "item", keep_broken: bool = False) -> Iterator[Any]:
    """Stream the rows of a file: JSON Lines, or one JSON document whose rows are at `items` (ijson's notation).

    With `keep_broken` a line that is not JSON is a row too, `BROKEN`; a document that is not JSON is an error always.

    Raises:
        RagFtError: the file cannot be read or is not JSON; the message names the line where there are lines.
    """
    with _opened(path) as stream:
        if _is_one_document(stream, items):
            yield from _items(path, stream, items)
        else:
            yield from _lines(path, stream, keep_broken)


def _items(path: Path, stream: IO[bytes], items: str) -> Iterator[Any]:
    import ijson

    row = missing = object()
    try:
        for row in ijson.items(stream, items, use_float=True):
            yield row
    except ijson.JSONError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RagFtError(f"{path} is not JSON from end to end: {reason}. Download or write it again.") from error
    if row is missing and items != "item":
        key = items.removesuffix(".item")
        raise RagFtError(f'{path} has no rows under "{key}": it is a file of another kind, or empty. Change `kind`.')


def _lines(path: Path, stream: IO[bytes], keep_broken: bool) -> Iterator[Any]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line.decode())  # json alone would guess UTF-16 and then read half the lines
        except (ValueError, RecursionError) as error:
            if keep_broken:
                yield BROKEN
                continue
            raise RagFtError(
                f"{path}, line {number} is not JSON: {error}. A file of rows has one JSON object a line; see which "
                "kind of source reads this file with `rag-ft import-check FILE`."
            ) from error


def text_lines(path: Path) -> Iterator[str]:
    """Stream the lines of a text file, plain or .gz, without their ends; bytes that are not UTF-8 become U+FFFD.

    Raises:
        RagFtError: the file cannot be read.
    """
    with _opened(path) as stream:
        yield from (line.decode("utf-8", "replace").rstrip("\r\n") for line in stream)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
            buffered = io.BufferedReader(stream) if zipped else stream
            if buffered.peek(3)[:3] == b"\xef\xbb\xbf":
                buffered.read(3)  # a byte order mark, as some editors on Windows write it
            yield buffered
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RagFtError(f"cannot read {path}: {reason}. Download or write it again.") from error


def _is_one_document(stream: Any, items: str) -> bool:
    """Tell a JSON document from JSON Lines by its beginning.

    It is a list, or an object with a list where `items` says, or an object that goes on below its first line.
    """
    text = stream.peek(1 << 16).lstrip()
    if text[:1] == b"[" or items == "item":
        return text[:1] == b"["
    key = re.escape(items.partition(".")[0].encode())
    first, newline, _ = text.partition(b"\n")
    return bool(re.search(rb'"%s"\s*:\s*\[' % key, text) or (newline and not first.rstrip().endswith(b"}")))


def hashed_id(letter: Literal["p", "q"], *texts: str) -> str:
    """Return the id of a passage (p: title and text) or question (q: it and its answers) whose row names none."""
    return f"{letter}-{content_hash(texts)}"


def shown(value: Any) -> str:
    """Return a value as an error message shows it: short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_of(row: dict[str, Any], field: str, default: str | None = None) -> str:
    """Return a field that must hold a text (numbers become texts); a missing one is `default`, or a `BadRow`."""
    value = row.get(field, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadRow(field, "is missing" if field not in row else f"is {shown(value)}, not a text")
    return _encodable(value, field)


def texts_of(row: dict[str, Any], field: str) -> tuple[str, ...]:
    """Return a field that must hold a list of texts; one text alone counts as a list of it."""
    value = row.get(field)
    if isinstance(value, str):
        return (_encodable(value, field),)
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float)) for item in value):
        raise BadRow(field, "is missing" if field not in row else f"is {shown(value)}, not a list of texts")
    return tuple(dict.fromkeys(_encodable(str(item), field) for item in value))


def _encodable(text: str, field: str) -> str:
    """Refuse half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(field, f"has half a character at {error.start}, which is no Unicode text") from error
    return text


def rows_of(row: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """Return a field that must hold a list of objects."""
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRow(field, "is missing" if field not in row else f"is {shown(value)}, not a list of objects")
    return value
