"""Ranked passages by question: collected as flat columns, saved in one mapped file, looked up by question id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_builders.corpus import Corpus
from data_builders.files import atomic_path
from data_builders.mapped import map_table
from data_builders.retrievers import Found, Query
from data_builders.step_report import printable

FILE = "rankings.arrow"
_SAMPLES = 2
_ROW = np.dtype(
    [
        ("question", np.int32),
        ("retriever", np.int32),
        ("position", np.int32),
        ("rank", np.int32),
        ("score", np.float64),
    ]
)
_SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("positions", pa.large_list(pa.int32())),
        ("scores", pa.large_list(pa.float32())),
    ]
)


class Collected:
    """Ranked passages in any order, 24 bytes each. Those that are not in the corpus are counted and left out."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._questions: dict[str, int] = {}
        self._pieces: list[np.ndarray[Any, Any]] = []
        self._named = self._unknown = self._repeated = 0
        self._samples: list[str] = []

    def add(self, questions: Sequence[str], passages: Sequence[str], **columns: Any) -> None:
        """Take rows: question id, passage id, and the columns rank, score and (0 if absent) retriever."""
        ids = pa.array(passages, pa.string())
        rows = np.zeros(len(ids), _ROW)
        rows["question"] = [self._questions.setdefault(name, len(self._questions)) for name in questions]
        rows["position"] = self._corpus.positions(ids)
        for name, values in columns.items():
            rows[name] = values
        unknown = np.flatnonzero(rows["position"] < 0)
        self._named += len(rows)
        self._unknown += len(unknown)
        for row in unknown[: _SAMPLES - len(self._samples)]:
            self._samples.append(ids[int(row)].as_py())
        self._pieces.append(rows[rows["position"] >= 0])

    def by_question(self, by_score: bool) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield each question with its rows by retriever, best first: highest score, then rank, then position.

        A passage that a retriever names twice keeps its better place. Without `by_score` the rank decides alone.
        """
        rows = np.concatenate([np.zeros(0, _ROW), *self._pieces])
        self._pieces = []
        best = -rows["score"] if by_score else np.zeros(len(rows))
        rows = rows[np.lexsort((rows["position"], rows["rank"], best, rows["retriever"], rows["question"]))]
        kept = _first_mentions(rows)
        self._repeated, rows = len(rows) - len(kept), rows[kept]
        borders = np.searchsorted(rows["question"], np.arange(len(self._questions) + 1))
        for number, name in enumerate(self._questions):
            yield name, rows[borders[number] : borders[number + 1]]

    def summary(self, name: str) -> str:
        """Return what a person should know, once all rows were taken."""
        lines = [f"  {name}: {len(self._questions):,} questions, {self._named:,} passages ranked"]
        if self._repeated:
            lines.append(f"    {self._repeated:,} named twice for a question, the better place counts")
        if self._unknown:
            such = printable(", ".join(self._samples))
            lines.append(f"    {self._unknown:,} not in the passages this split searches are left out (such as {such})")
        if self._named and self._unknown == self._named:
            lines.append("    the run must name passages by the ids of data.sources; data/clean of the run holds them")
        return "\n".join(lines)


def _first_mentions(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return, ascending, the first row of each (question, retriever, position)."""
    names = ("question", "retriever", "position")
    order = np.lexsort((np.arange(len(rows)), *(rows[name] for name in reversed(names))))
    alike = np.ones(max(len(rows) - 1, 0), bool)
    for name in names:
        alike &= np.diff(rows[name][order]) == 0
    return np.sort(order[np.concatenate([np.ones(min(len(rows), 1), bool), ~alike])])


def save_rankings(folder: Path, rankings: Iterable[tuple[str, Found]]) -> None:
    """Write (question id, ranking) pairs into `folder`, atomically."""
    questions, lists = [], []
    for question, found in rankings:
        questions.append(question)
        lists.append(found)
    borders = pa.array(np.cumsum([0, *(len(found.positions) for found in lists)]), pa.int64())
    positions = np.concatenate([np.zeros(0, np.int32), *(found.positions for found in lists)], dtype=np.int32)
    scores = np.concatenate(
        [np.zeros(0, np.float32), *(found.scores for found in lists)], dtype=np.float32, casting="same_kind"
    )
    columns = [pa.array(questions, pa.string())]
    columns += [pa.LargeListArray.from_arrays(borders, pa.array(values)) for values in (positions, scores)]
    batch = pa.record_batch(columns, schema=_SCHEMA)
    with (
        atomic_path(folder / FILE) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        writer.write_batch(batch)


class SavedRankings:
    """Rankings that `save_rankings` wrote, mapped: memory does not grow with them."""

    def __init__(self, folder: Path) -> None:
        table = map_table(folder / FILE)
        self._questions, positions, scores = (table[name].combine_chunks() for name in _SCHEMA.names)  # one batch
        self._borders = positions.offsets.to_numpy()
        self._positions, self._scores = positions.values.to_numpy(), scores.values.to_numpy()

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return the first `depth` passages for each question id; nothing for an id that is not here."""
        ids = pa.array([query.id for query in queries], pa.string())
        rows = pc.fill_null(pc.index_in(ids, value_set=self._questions), -1).to_pylist()
        return [self._found(row, depth) for row in rows]

    def _found(self, row: int, depth: int) -> Found:
        low, high = (0, 0) if row < 0 else (int(self._borders[row]), int(self._borders[row + 1]))
        here = slice(low, min(high, low + depth))
        return Found(self._positions[here], self._scores[here])
