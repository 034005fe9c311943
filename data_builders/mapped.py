"""Rows of an Arrow file by position, read from the mapped file when asked for. Knows no record by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_builders.errors import RagFtError


class MappedRows:
    """The rows of a table, which may be memory-mapped; reading some copies those only."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._batches = [batch for batch in table.to_batches() if batch.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    @classmethod
    def open(cls, path: Path) -> MappedRows:
        """Map an Arrow file."""
        return cls(map_table(path))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, position: int) -> dict[str, Any]:
        """Return one row as plain values."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        rows: list[dict[str, Any]] = self._batches[number].slice(position - self._starts[number], 1).to_pylist()
        return rows[0]

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return some rows as plain values."""
        rows: list[dict[str, Any]] = self._table.slice(start, stop - start).to_pylist()
        return rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column, still in its file."""
        return self._table[name]


def map_table(path: Path) -> pa.Table:
    """Memory-map an Arrow file.

    Raises:
        RagFtError: the file is missing or cannot be read.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RagFtError(f"cannot read {path}: {reason}. Build it again with `rag-ft build RECIPE`.") from error
