"""Labels every context row, part by part. What a label says is in labels/."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.labels.gold import GoldAbsent, label_rows
from data_builders.manifest import Tally
from data_builders.ranked import Annotations
from data_builders.records import CONTEXT_SCHEMA, ContextRow, record_table
from data_builders.steps import Bench
from data_builders.tables import context_row_of


def write_labels(contexts: Path, questions: Path, gold_absent: GoldAbsent, bench: Bench) -> None:
    """Write the rows of `contexts` with labels, under the same file name."""
    groups = pq.ParquetFile(contexts).num_row_groups
    job = LabelJob(contexts, questions, gold_absent)
    tables = bench.tables(job, groups, 1, f"parts of {contexts.stem} labelled")
    bench.write(contexts.name, CONTEXT_SCHEMA, tables)


@dataclass
class LabelJob:
    """Labels a range of row groups."""

    contexts: Path
    questions: Path
    gold_absent: GoldAbsent
    _opened: tuple[pq.ParquetFile, Annotations] | None = field(default=None, init=False)

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        """Return the labelled rows of row groups `start` up to `stop`."""
        if self._opened is None:
            self._opened = pq.ParquetFile(self.contexts), Annotations.read(self.questions)
        file, annotated = self._opened
        rows = map(context_row_of, file.read_row_groups(range(start, stop)).to_pylist())
        return record_table(ContextRow, label_rows(rows, annotated.question, self.gold_absent, tally))
