"""Writes what the sources give, in one pass, checked record by record. Knows no source by name, cleans nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from data_builders.records import SCHEMAS, GoldEvidence, Passage, Question, Ranking, record_table
from data_builders.sources import Source
from data_builders.sources.rows import SourceRecord
from data_builders.steps import Bench, parquet_writer

FILES: dict[type, str] = {
    Passage: "passages.parquet",
    Question: "questions.parquet",
    Ranking: "rankings.parquet",
}
_BATCH = 5000
_FILE_KEYS = (
    "path", "passages", "questions", "answers", "corpus_path", "knowledge_source", "dataset", "tokenizer", "model",
)  # fmt: skip


def import_sources(sources: Mapping[str, Source], bench: Bench, *, need_questions: bool = True) -> None:
    """Write the passages, questions and rankings of all sources into the step's folder, in the order they come.

    With several sources every id is put behind its source's name, so that they cannot meet.

    Raises:
        RagFtError: a row does not fit, or the sources hold no question although `need_questions`.
    """
    tally = bench.tally
    with ExitStack() as stack:
        mapper = stack.enter_context(bench.executor.mapper())
        writers = {kind: _Writer(stack, bench.target / name, kind) for kind, name in FILES.items()}
        for name, source in sources.items():
            prefix = f"{name}:" if len(sources) > 1 else ""
            for record in source.records(tally, mapper):
                writers[type(record)].add(_named(record, name, prefix))
        for kind, file in FILES.items():
            tally.rows[file] = writers[kind].flush()
        if need_questions and not tally.rows[FILES[Question]]:
            raise RagFtError(
                f"data.sources ({', '.join(sources)}) hold no question that could be read. "
                "A teacher writes them with data.questions.kind=teacher; see what a file holds with "
                "`rag-ft import-check FILE`."
            )


def _named(record: SourceRecord, name: str, prefix: str) -> SourceRecord:
    if isinstance(record, Question):
        record = replace(record, source=name)
    if not prefix:
        return record
    if isinstance(record, Passage):
        return replace(record, id=prefix + record.id, document=record.document and prefix + record.document)
    if isinstance(record, Ranking):
        return replace(record, question=prefix + record.question, passages=_behind(prefix, record.passages))
    return replace(
        record,
        id=prefix + record.id,
        gold=_behind(prefix, record.gold),
        alternatives=_behind(prefix, record.alternatives),
        evidence=tuple(_cited(prefix, item) for item in record.evidence),
    )


def _behind(prefix: str, ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix + id_ for id_ in ids)


def _cited(prefix: str, item: GoldEvidence) -> GoldEvidence:
    return replace(item, passage_id=prefix + item.passage_id)


class _Writer:
    """Collects records of one kind and writes them by batches; the file appears when the stack is left."""

    def __init__(self, stack: ExitStack, path: Path, kind: type[Any]) -> None:
        self._kind, self._rows, self._batch = kind, 0, list[Any]()
        temporary = stack.enter_context(atomic_path(path))
        self._writer = stack.enter_context(parquet_writer(temporary, SCHEMAS[kind]))

    def add(self, record: SourceRecord) -> None:
        """Take one record."""
        self._batch.append(record)
        if len(self._batch) == _BATCH:
            self.flush()

    def flush(self) -> int:
        """Write what was collected; return the rows so far."""
        self._writer.write_table(record_table(self._kind, self._batch))
        self._rows += len(self._batch)
        self._batch = []
        return self._rows


def signatures(settings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return size and time of change of every file that settings name, so that a changed one is read again.

    `settings` are those of sources, retrievers or models as plain values; what they do not name by a key for files
    (a pattern of paths within a folder, a column, a split) is no file, even where one is called so.
    """
    names = {name for one in settings for key in _FILE_KEYS for name in _texts(one.get(key))}
    files = sorted({file for name in names for file in _files(name)})
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _files(name: str) -> Iterator[Path]:
    path = Path(name).expanduser()
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
    elif any(sign in name for sign in "*?["):
        anchor = Path(path.anchor or ".")
        yield from (file for file in anchor.glob(str(path.relative_to(path.anchor))) if file.is_file())
