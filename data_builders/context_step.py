"""Composes the contexts of the training splits: planned in one go, written in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from data_builders.context_rows import Turn, measure
from data_builders.contexts import Plan
from data_builders.corpus import Corpus
from data_builders.data_settings import DataSettings
from data_builders.manifest import Tally
from data_builders.passage_counts import largest_count
from data_builders.paths import TRAINING_SPLITS, DataPaths
from data_builders.ranked import Split
from data_builders.records import CONTEXT_SCHEMA, ContextRow, record_table
from data_builders.shared_contexts import SharedTurn, context_row, planned_contexts
from data_builders.steps import Bench

_BLOCK = 1000  # contexts of one part, fewer where they are long
_BYTES = 1 << 26  # text that a part should not exceed


def write_contexts(settings: DataSettings, seed: int, paths: DataPaths, bench: Bench) -> None:
    """Write the context rows of train and validation, without labels."""
    caps = settings.contexts.contexts or {}
    weights = {name: one.weight for name, one in settings.sources.items()}
    for split in TRAINING_SPLITS:
        plan = Plan(
            settings.contexts,
            settings.negatives,
            seed,
            caps.get(split),
            weights=weights,
            answer_guard=settings.guard.answers,
            training=split == "train",
        )
        files = (paths.searched(split), paths.questions[split], paths.hits[split])
        opened = Split.open(*files)
        planned = list(planned_contexts(opened, plan, bench.tally))
        job = ContextJob(files, plan, planned)
        tables = bench.tables(job, len(planned), _block(opened.corpus, plan), f"contexts of {split}")
        bench.write(f"{split}.parquet", CONTEXT_SCHEMA, tables)
    bench.tally.counts["gold positions"] = bench.tally.histogram("gold position")


def _block(corpus: Corpus, plan: Plan) -> int:
    """Return how many contexts make a part: what is in memory at once, whatever the length of passages."""
    longest = float(corpus.sizes().mean()) * largest_count(plan.contexts.passages) if len(corpus) else 1.0
    return max(1, min(_BLOCK, int(_BYTES / max(1.0, longest))))


@dataclass
class ContextJob:
    """Writes a range of planned contexts."""

    files: tuple[Sequence[Path], Path, Path]
    plan: Plan
    planned: list[Turn | SharedTurn]
    _split: Split | None = field(default=None, init=False)

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        """Return the rows of the contexts planned from `start` up to `stop`."""
        if self._split is None:
            self._split = Split.open(*self.files)
        rows = [context_row(self._split, planned, self.plan, tally) for planned in self.planned[start:stop]]
        for row in rows:
            measure(row, tally)
        return record_table(ContextRow, rows)


def advise(settings: DataSettings, tally: Tally) -> None:
    """Say what to change where contexts came out otherwise than asked for."""
    if tally.counts.get("contexts with fewer passages than drawn"):
        tally.advice.append(
            "Contexts came out small: lower data.contexts.passages, give data.negatives.shares some random, "
            "or raise data.depth and data.negatives.rank_high."
        )
    asked = tally.quantiles().get("questions per context", {}).get("mean", 0)
    if 0 < asked < settings.contexts.questions_per_context / 2:
        tally.advice.append(
            f"Contexts serve {asked:g} questions on average, not {settings.contexts.questions_per_context}: "
            "raise data.contexts.passages or set a cap in data.contexts.contexts."
        )
