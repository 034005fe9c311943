"""Labels every context row: from annotations, or by a model that is asked. What a label says is in labels/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.entailment import Entails, load_entailment
from data_builders.import_step import signatures
from data_builders.labels.balance import advise_on_balance, balanced, surplus
from data_builders.labels.gold import GoldAbsent, label_rows
from data_builders.labels.prompts import read_template
from data_builders.labels.settings import (
    GoldLabelsSettings,
    LabelsSettings,
    SelfSynthesisLabelsSettings,
    TeacherLabelsSettings,
    form_of,
)
from data_builders.manifest import Tally
from data_builders.ranked import Annotations
from data_builders.records import CONTEXT_SCHEMA, ContextRow, record_table
from data_builders.servers import Asker, Call
from data_builders.steps import Bench, parquet_writer
from data_builders.tables import context_row_of, read_context_rows

REJECTED = ("rejected.jsonl", "rejected.html")
"""What the step leaves beside its rows where labels were checked."""
_ROWS = 256
"""Rows of a table that is written."""
_CUT_OFF = 0.05
"""Share of outputs cut off above which the report says what to do."""
_LOST = 0.5
"""Share of labels turned away above which it says where to read them."""


class LocalWriter(Protocol):
    """The writer of self-synthesis. Engines and weights are the business of `rag_ft`, which hands one in."""

    def __call__(
        self, settings: SelfSynthesisLabelsSettings, store: Path, report: Callable[[str], None], total: int | None
    ) -> Asker:
        """Return what answers the calls.

        Args:
            settings: of the recipe.
            store: the file that keeps replies.
            report: takes lines about progress.
            total: how many labels are wanted.
        """
        ...

    def decides(self, settings: SelfSynthesisLabelsSettings) -> dict[str, Any]:
        """Return what besides the settings decides the bytes of a label, as plain values; loads nothing."""
        ...


@dataclass(frozen=True)
class LabelFiles:
    """What the step reads of each split, and where replies are kept: outside its own folder, which is rebuilt."""

    contexts: tuple[Path, ...]
    questions: tuple[Path, ...]
    replies: Path


def write_labels(contexts: Path, questions: Path, gold_absent: GoldAbsent, bench: Bench) -> None:
    """Write the rows of `contexts` with labels made of annotations, under the same file name."""
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


def label_identity(settings: LabelsSettings) -> dict[str, Any]:
    """Return what of the settings decides labels, for the manifest: not how fast they come, nor what they cost.

    A template is known by its words. The server's address is left out as well: the model's name says whose labels
    these are, and an address may hold a password.

    Raises:
        RagFtError: the template is not there, or cannot be filled in.
    """
    plain = settings.model_dump(mode="json")
    if isinstance(settings, TeacherLabelsSettings | SelfSynthesisLabelsSettings):
        del plain["template"]
        plain["template_sha256"] = read_template(settings.template, settings.style, form_of(settings)).sha256
        plain["form"] = form_of(settings)
        plain.pop("batch_size", None)
    if isinstance(settings, TeacherLabelsSettings):
        from data_builders.servers.job import identity_of

        plain["endpoint"] = identity_of(settings.endpoint)
    return plain


def labels_outside(settings: LabelsSettings, local: LocalWriter | None, folder: Path) -> dict[str, Any]:
    """Return what the labels depend on that is not below `data`: calls to make up for, models that write or judge."""
    from data_builders.servers.job import ask_again

    found = ask_again(folder)
    support = None if isinstance(settings, GoldLabelsSettings) else settings.gates.support
    if support and (judge := signatures([{"model": support.model}])):
        found = {**found, "judge": judge}
    if local is None or not isinstance(settings, SelfSynthesisLabelsSettings):
        return found
    files = signatures([{"path": settings.weights}])
    return {**found, "writer": {**local.decides(settings), "files": files}}


def asked_rows(files: LabelFiles, gold_absent: GoldAbsent) -> int:
    """Return how many labels a writer is asked for."""
    from data_builders.labels.written import is_asked

    rows = (row for file in files.contexts for row in read_context_rows(file))
    return sum(is_asked(asked, gold_absent) for row in rows for asked in row.questions)


def label_calls(files: LabelFiles, settings: Any, gold_absent: GoldAbsent) -> Iterator[Call]:
    """Yield the first call of every label, in order, to be priced."""
    from data_builders.labels.written import first_call, is_asked

    template = read_template(settings.template, settings.style, form_of(settings))
    for file in files.contexts:
        for row in read_context_rows(file):
            for asked in row.questions:
                if is_asked(asked, gold_absent):
                    yield first_call(row, asked, settings, template)


def price_labels(files: LabelFiles, settings: LabelsSettings, gold_absent: GoldAbsent) -> str:
    """Return in a line what the labels of a recipe cost, by the prompts as they are; ask nothing."""
    if isinstance(settings, TeacherLabelsSettings):
        from data_builders.servers.budget import price_of
        from data_builders.servers.job import not_kept

        calls = not_kept(label_calls(files, settings, gold_absent), settings.endpoint, files.replies)
        more = f"; up to {settings.attempts} calls for a label that cannot be read" if settings.attempts > 1 else ""
        return f"labels still to be asked for: {price_of(calls, settings.endpoint).told()}{more}"
    if isinstance(settings, SelfSynthesisLabelsSettings):
        return f"labels: {asked_rows(files, gold_absent):,} written here by {settings.weights}, nothing to pay"
    return "labels: made of annotations, nothing to pay"


def write_written_labels(
    files: LabelFiles, settings: Any, gold_absent: GoldAbsent, local: LocalWriter | None, seed: int, bench: Bench
) -> None:
    """Write the rows of every split with labels of a model, and what was rejected beside them.

    Every reply is kept in `files.replies`: the same command goes on where it was stopped, and a change of gates asks
    nothing again.

    Raises:
        RagFtError: the server cannot be asked at all, or the budget is spent.
        ValueError: self-synthesis without `local`.
    """
    from data_builders.labels.rejected_page import rejected_writer
    from data_builders.labels.written import Writing, write_rows

    asker = _asker(files, settings, gold_absent, local, bench)
    template, entails = read_template(settings.template, settings.style, form_of(settings)), _entails(settings)
    with rejected_writer(bench.target, lambda: sum(_by_evidence(bench.tally.counts, "kept"))) as turned_away:
        for contexts, questions in zip(files.contexts, files.questions, strict=True):
            annotated = Annotations.read(questions).question
            writing = Writing(settings, template, annotated, gold_absent, entails, turned_away)
            rows = write_rows(read_context_rows(contexts), writing, asker, bench.tally)
            _write_balanced(rows, contexts.name, settings, seed, bench)
    if cut := getattr(entails, "shortened", 0):
        bench.tally.count("premises cut to the tokens gates.support.model reads", cut)
    _sum_up(settings, bench.tally)


def _write_balanced(rows: Iterator[ContextRow], name: str, settings: Any, seed: int, bench: Bench) -> None:
    """Write labelled rows; where gates let through too many of one kind, some of them are left out."""
    if settings.balance is None or settings.rejected == "gold":
        return bench.write(name, CONTEXT_SCHEMA, _tables(rows))
    counts, draft = bench.tally.counts, bench.parts / name
    before = [_by_evidence(counts, what) for what in ("asked", "kept")]
    draft.parent.mkdir(parents=True, exist_ok=True)
    with parquet_writer(draft, CONTEXT_SCHEMA) as writer:
        for table in _tables(rows):
            writer.write_table(table.cast(CONTEXT_SCHEMA))
    asked, kept = (
        (now[0] - then[0], now[1] - then[1])
        for now, then in zip((_by_evidence(counts, what) for what in ("asked", "kept")), before, strict=True)
    )
    found = surplus(asked, kept, settings.balance)
    read = partial(read_context_rows, draft)
    bench.write(name, CONTEXT_SCHEMA, _tables(balanced(read, found, seed, bench.tally) if found else read()))
    draft.unlink()


def _asker(files: LabelFiles, settings: Any, gold_absent: GoldAbsent, local: LocalWriter | None, bench: Bench) -> Asker:
    from data_builders.servers.job import teacher_job

    total = asked_rows(files, gold_absent)
    if isinstance(settings, TeacherLabelsSettings):
        return teacher_job(settings.endpoint, files.replies, bench.report, total)
    if local is None:
        raise ValueError("self-synthesis needs a writer, and build_data was given none")
    return local(settings, files.replies, bench.report, total)


def _entails(settings: Any) -> Entails | None:
    support = settings.gates.support
    return load_entailment(support.model, "data.labels.gates.support.model") if support and support.model else None


def _tables(rows: Iterator[ContextRow]) -> Iterator[pa.Table]:
    while part := list(islice(rows, _ROWS)):
        yield record_table(ContextRow, part)


def _sum_up(settings: Any, tally: Tally) -> None:
    """Add what the calls cost, and what to change where the numbers look wrong."""
    counts = tally.counts
    endpoint = getattr(settings, "endpoint", None)
    if endpoint is not None:
        from data_builders.servers.job import count_money

        count_money(endpoint, tally)
    asked, kept = (_by_evidence(counts, name) for name in ("asked", "kept"))
    if (lost := sum(asked) - sum(kept)) > _LOST * sum(asked):
        tally.advice.append(f"{lost:,} of {sum(asked):,} labels were turned away: read rejected.html beside the rows.")
    if settings.rejected == "drop" and (settings.balance is None or not all(kept)):
        advise_on_balance(asked, kept, tally)
    if counts.get("answers cut off", 0) > _CUT_OFF * sum(asked):
        key = "labels.endpoint.max_tokens" if endpoint is not None else "labels.max_new_tokens"
        tally.advice.append(f"{counts['answers cut off']:,} answers were cut off at the most tokens: raise data.{key}.")


def _by_evidence(counts: dict[str, Any], what: str) -> tuple[int, int]:
    with_, without = (counts.get(f"labels {what} of contexts {word} evidence", 0) for word in ("with", "without"))
    return with_, without
