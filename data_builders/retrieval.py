"""Indexing corpora and searching every question, one retriever at a time. Merges nothing, judges nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.executor import Executor
from data_builders.files import cache_folder, content_hash, write_json
from data_builders.manifest import Tally
from data_builders.mapped import MappedRows
from data_builders.retrievers import Found, Query, Retriever, open_retriever
from data_builders.retrievers.settings import RetrieverSettings
from data_builders.steps import Bench

FOUND_SCHEMA = pa.schema([("positions", pa.list_(pa.int32())), ("scores", pa.list_(pa.float32()))])
BLOCK = 1024  # questions of one shard; fixed, so that what a retriever is asked at once never varies
_COMPLETE = "complete.json"
_DISK_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip
_VERSION = 2  # raise it when an index written before must not be read any more


@dataclass(frozen=True)
class SplitFiles:
    """One split as retrieval sees it: its passages, its questions, what the sources ranked themselves."""

    split: str
    passages: tuple[Path, ...]
    questions: Path
    rankings: Path


def search_split(settings: RetrieverSettings, depth: int, asked: SplitFiles, bench: Bench, file: str) -> None:
    """Search every question of a split with one retriever and write what it found, in the order of the questions."""
    rows = len(MappedRows.open(asked.questions))
    corpus, retriever = Corpus.open(asked.passages), open_retriever(settings, asked.rankings)
    index = prepare_index(retriever, corpus, bench.report) if rows else Path()
    job = SearchJob(settings, depth, asked, index)
    if not retriever.parallel:
        bench = Bench(bench.target, bench.parts, Executor(processes=1), bench.tally, bench.report)
    bench.write(file, FOUND_SCHEMA, bench.tables(job, rows, BLOCK, f"questions of {asked.split}"))


def prepare_index(retriever: Retriever, corpus: Corpus, report: Callable[[str], None]) -> Path:
    """Return the folder of a retriever's index over a corpus, built unless it is in the cache.

    A build that was killed goes on; two at once wait for each other.

    Raises:
        RagFtError: the cache cannot be written or its disk is full, or the index cannot be built.
    """
    description = {"version": _VERSION, "corpus": corpus.key, "settings": retriever.index_settings()}
    folder = cache_folder() / "indexes" / content_hash(description)
    if (folder / _COMPLETE).is_file():
        return folder
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / _COMPLETE).is_file():
                retriever.build(corpus, folder, report)
                write_json(folder / _COMPLETE, {**description, "passages": len(corpus)})
    return folder


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what a disk says that an index cannot be written to into one sentence with the way out."""
    try:
        yield
    except (OSError, RagFtError) as error:
        failure = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(failure, OSError) or failure.errno not in _DISK_ERRNOS or not _within(failure):
            raise
        raise RagFtError(
            f"cannot write {folder}: {failure.strerror}. Indexes for retrieval are kept there: free some space, or set "
            "the environment variable RAG_FT_CACHE to a folder that can be written."
        ) from failure


def _within(failure: OSError) -> bool:
    """Tell whether a failure is about the cache: files elsewhere are only read, and say so themselves."""
    return not isinstance(failure.filename, str) or Path(failure.filename).is_relative_to(cache_folder())


@dataclass
class SearchJob:
    """Searches a range of a split's questions."""

    settings: RetrieverSettings
    depth: int
    asked: SplitFiles
    index: Path
    _opened: tuple[Retriever, MappedRows] | None = field(default=None, init=False)

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        """Return positions and scores, a row per question."""
        retriever, questions = self._open()
        rows = questions.rows(start, stop)
        found = retriever.search([Query(row["id"], row["question"]) for row in rows], self.depth)
        tally.count("questions without any passage found", sum(not len(one.positions) for one in found))
        return found_table(found)

    def _open(self) -> tuple[Retriever, MappedRows]:
        if self._opened is None:
            retriever = open_retriever(self.settings, self.asked.rankings)
            retriever.open(Corpus.open(self.asked.passages), self.index)
            self._opened = retriever, MappedRows.open(self.asked.questions)
        return self._opened


def found_table(found: Sequence[Found]) -> pa.Table:
    """Return results as a table of lists."""
    borders = pa.array(np.cumsum([0, *(len(one.positions) for one in found)]), pa.int32())
    columns: list[tuple[Any, Any]] = [
        ([one.positions for one in found], np.int32),
        ([one.scores for one in found], np.float32),
    ]
    flat = [np.concatenate([np.zeros(0, kind), *parts]).astype(kind) for parts, kind in columns]
    return pa.Table.from_arrays(
        [pa.ListArray.from_arrays(borders, pa.array(values)) for values in flat], schema=FOUND_SCHEMA
    )


def read_found(path: Path, start: int, stop: int) -> list[Found]:
    """Return what a retriever found for a range of questions, reading only the row groups that hold it."""
    file = pq.ParquetFile(path)
    borders = np.cumsum([0, *(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))])
    stop = min(stop, int(borders[-1]))
    first, last = int(np.searchsorted(borders, start, "right")) - 1, int(np.searchsorted(borders, stop))
    rows = file.read_row_groups(range(first, last)).slice(start - int(borders[first]), stop - start)
    columns = [rows[name].combine_chunks() for name in FOUND_SCHEMA.names]
    positions, scores = (column.values.to_numpy() for column in columns)
    return [Found(positions[low:high], scores[low:high]) for low, high in pairwise(columns[0].offsets.to_numpy())]
