"""Files of rows: Parquet for whoever reads them next, Arrow where they are mapped. Checks no content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from data_builders.mapped import map_table
from data_builders.records import (
    SCHEMAS,
    ContextQuestion,
    ContextRow,
    Evidence,
    GoldEvidence,
    Label,
    Passage,
    Pool,
    PoolPassage,
    Question,
    Ranking,
    Record,
    Relevance,
    Retrieved,
    plain,
)


def write_records(path: Path, kind: type[Record], records: Iterable[Record], batch_size: int = 1000) -> int:
    """Stream `records` of one `kind` into a file, atomically; return how many were written.

    The suffix decides: `.arrow` can be mapped, else it is Parquet. Memory holds one batch. The bytes depend on the
    records only.
    """
    schema, written = SCHEMAS[kind], 0
    with atomic_path(path) as temporary, _writer(temporary, schema, path.suffix) as writer:
        batch: list[dict[str, Any]] = []
        for record in records:
            batch.append(plain(record))
            if len(batch) == batch_size:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                written, batch = written + len(batch), []
        if batch or not written:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return written + len(batch)


@contextmanager
def _writer(path: Path, schema: pa.Schema, suffix: str) -> Iterator[Any]:
    if suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            yield writer
    else:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield writer


def read_rows(path: Path, kind: type[Record]) -> Iterator[dict[str, Any]]:
    """Stream the rows of a file as dictionaries, after checking its columns against `kind`.

    Raises:
        RagFtError: the file is missing, is not of its suffix's format, or lacks a column.
    """
    with _reading(path):
        names, batches = _batches(path)
    missing = [name for name in SCHEMAS[kind].names if name not in names]
    if missing:
        raise RagFtError(
            f"{path} is not a table of {kind.__name__} rows: column {', '.join(missing)} is missing. "
            "Build it again with `rag-ft build RECIPE`."
        )
    while True:
        with _reading(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield from batch.to_pylist()


def _batches(path: Path) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    if path.suffix == ".arrow":
        table = map_table(path)
        return table.schema.names, iter(table.to_batches(max_chunksize=500))
    file = pq.ParquetFile(path)
    return file.schema_arrow.names, file.iter_batches(batch_size=500)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what Arrow raises on a file that is missing, cut short or scrambled into one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RagFtError(f"cannot read {path}: {reason}. Build it again with `rag-ft build RECIPE`.") from error


def read_questions(path: Path) -> Iterator[Question]:
    """Stream questions with their gold annotations from Parquet."""
    return map(question_of, read_rows(path, Question))


def question_of(row: dict[str, Any]) -> Question:
    """Make a question of its row as plain values."""
    lists = {name: tuple(row[name]) for name in ("answers", "gold", "alternatives")}
    return Question(**{**row, **lists, "evidence": tuple(GoldEvidence(**item) for item in row["evidence"])})


def read_rankings(path: Path) -> Iterator[Ranking]:
    """Stream the rankings that a source brought along from Parquet."""
    for row in read_rows(path, Ranking):
        yield Ranking(**{**row, "passages": tuple(row["passages"]), "scores": tuple(row["scores"])})


def read_pools(path: Path) -> Iterator[Pool]:
    """Stream pools from Parquet."""
    for row in read_rows(path, Pool):
        passages = tuple(
            PoolPassage(**{**item, "found": tuple(Retrieved(**place) for place in item["found"])})
            for item in row["passages"]
        )
        yield Pool(**{**row, "answers": tuple(row["answers"]), "passages": passages})


def read_context_rows(path: Path) -> Iterator[ContextRow]:
    """Stream context rows from Parquet."""
    return map(context_row_of, read_rows(path, ContextRow))


def context_row_of(row: dict[str, Any]) -> ContextRow:
    """Make a context row of its plain values."""
    passages = tuple(Passage(**item) for item in row["passages"])
    return ContextRow(row["id"], passages, tuple(_context_question(item) for item in row["questions"]))


def _context_question(item: dict[str, Any]) -> ContextQuestion:
    return ContextQuestion(
        **{
            **item,
            "answers": tuple(item["answers"]),
            "gold": tuple(item["gold"]),
            "has_answer": tuple(item["has_answer"]),
            "retrieved": tuple(Retrieved(**r) if r is not None else None for r in item["retrieved"]),
            "label": _label(item["label"]) if item["label"] is not None else None,
        }
    )


def _label(item: dict[str, Any]) -> Label:
    return Label(
        relevance=tuple(Relevance(**r) for r in item["relevance"]),
        evidence=tuple(Evidence(**e) for e in item["evidence"]),
        analysis=item["analysis"],
        answer=item["answer"],
    )
