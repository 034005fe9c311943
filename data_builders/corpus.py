"""The passages of a split, memory-mapped: what retrievers index and everything after them reads by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_builders.files import content_hash, file_hash
from data_builders.mapped import map_table
from data_builders.records import PASSAGE_SCHEMA, Passage

BATCH_ROWS = 8192  # rows of one record batch of passages.arrow


class Corpus(Sequence[Passage]):
    """Passages by position. The texts stay in the file; reading a position copies that passage only.

    Args:
        table: columns as in `PASSAGE_SCHEMA`; may be memory-mapped.
        key: names the content, so that an index over it can be saved and found again.
    """

    def __init__(self, table: pa.Table, key: str = "") -> None:
        self.key = key
        self._batches = [b for b in table.select(PASSAGE_SCHEMA.names).to_batches() if b.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._ids: pa.Array | None = None

    @classmethod
    def open(cls, files: Sequence[Path]) -> Corpus:
        """Map the files that a split searches: the passages of every split and its own.

        Raises:
            RagFtError: a file is missing or cannot be read.
        """
        tables = [map_table(path) for path in files]
        filled = [path for path, table in zip(files, tables, strict=True) if table.num_rows]
        return cls(pa.concat_tables(tables), content_hash([file_hash(path) for path in filled]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, position: Any) -> Any:
        batch, row = self._place(position)
        values = (column[row].as_py() for column in batch.columns)
        return Passage(*values)

    def id(self, position: int) -> str:
        """Return a passage's id."""
        batch, row = self._place(position)
        return str(batch.column(0)[row].as_py())

    def text(self, position: int) -> str:
        """Return title and text as the guard and retrievers read them."""
        batch, row = self._place(position)
        return f"{batch.column(1)[row].as_py()}\n{batch.column(2)[row].as_py()}"

    def texts(self, start: int, stop: int) -> Iterator[str]:
        """Stream title and text of the passages from `start` up to `stop`."""
        for batch, low, high in self._parts(start, stop):
            piece = batch.slice(low, high - low)
            for title, text in zip(piece.column(1).to_pylist(), piece.column(2).to_pylist(), strict=True):
                yield f"{title}\n{text}"

    def sizes(self) -> np.ndarray[Any, Any]:
        """Return the bytes of every passage's title and text; reads no text."""
        columns = ([batch.column(name) for name in ("title", "text")] for batch in self._batches)
        parts = [pc.add(pc.binary_length(title), pc.binary_length(text)).to_numpy() for title, text in columns]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def take(self, positions: np.ndarray[Any, Any], names: Sequence[str]) -> list[pa.Array]:
        """Return columns of the passages at `positions`, in that order; a position may stand there twice."""
        order = np.argsort(positions, kind="stable")
        borders = np.searchsorted(positions[order], self._starts)
        pieces = [
            self._batches[number].select(list(names)).take(pa.array(positions[order[low:high]] - start))
            for number, (low, high, start) in enumerate(zip(borders, borders[1:], self._starts, strict=False))
            if high > low
        ]
        if not pieces:
            return [pa.array([], PASSAGE_SCHEMA.field(name).type) for name in names]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        table = pa.Table.from_batches(pieces).combine_chunks()
        return [table[name].chunk(0).take(pa.array(back)) for name in names]

    def positions(self, ids: pa.Array) -> np.ndarray[Any, Any]:
        """Return the position of each id as int32, -1 for ids that are not here."""
        if self._ids is None:
            columns = [batch.column(0) for batch in self._batches]
            self._ids = pa.concat_arrays(columns) if columns else pa.array([], pa.string())
        return pc.fill_null(pc.index_in(ids, value_set=self._ids), -1).to_numpy(zero_copy_only=False)

    def _place(self, position: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is outside a corpus of {len(self)} passages")
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._batches[number], int(position - self._starts[number])

    def _parts(self, start: int, stop: int) -> Iterator[tuple[pa.RecordBatch, int, int]]:
        for batch, first in zip(self._batches, self._starts, strict=False):
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield batch, int(low), int(high)
