"""Pools: what every retriever found for a question, merged, judged and written. Searches nothing, composes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.corpus import Corpus
from data_builders.executor import Executor
from data_builders.files import atomic_path
from data_builders.guard import CROSS_ENCODER, CrossEncoderGuard, Lookups, guard_reasons
from data_builders.guard_settings import GuardSettings
from data_builders.manifest import Tally
from data_builders.mapped import MappedRows, map_table
from data_builders.quality import Relevant, advise_on_recall, count_quality, quality_report
from data_builders.ranked import GUARDS, HITS_SCHEMA, MISSED, hits_schema, hits_writer
from data_builders.ranking import InterleaveSettings, Placed, RrfSettings, merge
from data_builders.records import POOL_SCHEMA, Question
from data_builders.retrieval import SplitFiles, read_found
from data_builders.retrievers import Found
from data_builders.steps import Bench
from data_builders.tables import question_of
from data_builders.text import AnswerMatcher

Gold = Literal["annotated", "answer_match"]
_BLOCK = 500  # questions of one part: their passages are in memory at once
_TEXT = 1 << 26  # bytes of text of one part; Arrow's texts end at 2 GiB, and a part is copied some five times
_REASONS = {
    "answer": "holds the answer",
    "near_duplicate": "nearly repeats gold",
    "cross_encoder": "scores like gold",
}
_MUTE = "gold passages that do not hold an answer"
_SHOWN = 60  # characters of a passage shown on either side of what the guard saw


@dataclass(frozen=True)
class Judging:
    """How pools are made of what was found.

    `gold` says where gold comes from for questions without annotated gold; `held_out` are positions of passages that
    may not become gold so, since a question of the test or of validation has them as gold.
    """

    ranking: InterleaveSettings | RrfSettings
    guard: GuardSettings
    gold: Gold
    held_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Entry:
    """A passage of one pool, judged."""

    placed: Placed
    is_gold: bool
    has_answer: bool
    guard: str


def write_pools(
    asked: SplitFiles, found: Mapping[str, Path], judging: Judging, bench: Bench, files: tuple[str, str]
) -> None:
    """Write the pools of a split: `files` are the table with texts and the numbers that composing contexts reads."""
    questions = MappedRows.open(asked.questions)
    rows = len(questions)
    names = [*found, "rrf", MISSED]
    if judging.guard.cross_encoder is not None:  # one model in memory, with all threads to itself
        bench = Bench(bench.target, bench.parts, Executor(processes=1), bench.tally, bench.report)
    corpus = Corpus.open(asked.passages)
    gold, others = (Named.of(corpus, questions.column(name)) for name in ("gold", "alternatives"))
    job = PoolJob(asked, dict(found), judging, tuple(names), gold, others)
    block = _block(_texts_shown(corpus, found.values(), gold))
    del corpus
    with atomic_path(bench.target / files[1]) as temporary, hits_writer(temporary, names) as hits:

        def texts() -> Iterator[pa.Table]:
            for table in bench.tables(job, rows, block, f"pools of {asked.split}"):
                hits.write_table(table.select(HITS_SCHEMA.names).combine_chunks().cast(hits_schema(names)))
                yield table.select(POOL_SCHEMA.names)

        bench.write(files[0], POOL_SCHEMA, texts())
    bench.tally.rows[files[1]] = bench.tally.rows[files[0]]
    quality = bench.tally.counts.pop("quality", None)
    if quality:
        report = quality_report(quality)
        bench.tally.counts[f"retrieval of {asked.split}"] = report
        advise_on_recall(report, asked.split, bench.tally)


def gold_in(hits: Path) -> frozenset[int]:
    """Return the positions of all gold passages of a split's pools."""
    return frozenset(map_table(hits)["gold"].combine_chunks().flatten().to_pylist())


def _texts_shown(corpus: Corpus, found: Iterable[Path], gold: Named) -> np.ndarray[Any, Any]:
    """Return, per question, at most how many bytes of text its pool holds: a passage found twice counts twice."""
    sizes = np.append(corpus.sizes(), 0)  # the last for -1: not in the corpus

    def sums(positions: np.ndarray[Any, Any], borders: np.ndarray[Any, Any]) -> Any:
        ends = np.cumsum(np.append(0, sizes[positions]), dtype=np.int64)
        return ends[borders[1:]] - ends[borders[:-1]]

    shown = sums(gold.positions, gold.borders)
    for path in found:
        batches = pq.ParquetFile(path).iter_batches(columns=["positions"])
        columns = (batch.column("positions") for batch in batches)
        parts = [sums(column.values.to_numpy(), column.offsets.to_numpy()) for column in columns]
        shown += np.concatenate(parts) if parts else 0
    return shown


def _block(shown: np.ndarray[Any, Any]) -> int:
    """Return how many questions a part takes, halved until none holds more text than it may beside its largest pool."""
    size = _BLOCK
    while len(shown):
        starts = np.arange(0, len(shown), size)
        if (np.add.reduceat(shown, starts) - np.maximum.reduceat(shown, starts)).max() <= _TEXT:
            break
        size //= 2
    return size


@dataclass
class PoolJob:
    """Makes the pools of a range of questions."""

    asked: SplitFiles
    found: dict[str, Path]
    judging: Judging
    retrievers: tuple[str, ...]
    gold: Named
    alternatives: Named
    _opened: _Opened | None = field(default=None, init=False)

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        """Return rows of both schemas, pools and hits, side by side; questions without gold are left out."""
        opened = self._open()
        corpus = opened.corpus
        asked = [question_of(row) for row in opened.questions.rows(start, stop)]
        found = {name: read_found(path, start, stop) for name, path in self.found.items()}
        rows: list[int] = []
        pools: list[list[Entry]] = []
        for number, question in enumerate(asked):
            own = {name: parts[number] for name, parts in found.items()}
            annotated = self.gold.of_row(start + number), self.alternatives.of_row(start + number)
            entries = self._pool(question, own, annotated, tally)
            if entries is not None:
                rows.append(start + number)
                pools.append(entries)
        return _table(corpus, [asked[row - start] for row in rows], rows, pools, self.retrievers)

    def _open(self) -> _Opened:
        if self._opened is None:
            corpus = Corpus.open(self.asked.passages)
            rescoring = self.judging.guard.cross_encoder
            model = CrossEncoderGuard(rescoring) if rescoring is not None else None
            self._opened = _Opened(corpus, MappedRows.open(self.asked.questions), Lookups.of(corpus), model)
        return self._opened

    def _pool(
        self, question: Question, found: dict[str, Found], annotated: tuple[list[int], list[int]], tally: Tally
    ) -> list[Entry] | None:
        placed = merge(found, self.judging.ranking)
        gold, others = annotated
        lookups, matcher = self._open().lookups, AnswerMatcher.of(question.answers, question.question)
        bearing = [matcher.bears(lookups.joined(one.passage)) for one in placed]
        if not gold and question.answers:
            gold = [one.passage for one, bears in zip(placed, bearing, strict=True) if bears][:1]
            if self.judging.gold == "annotated" or not gold:
                tally.drop("questions without gold that retrieval found no answer for", 1, question.id)
                return None
            if gold[0] in self.judging.held_out:
                tally.drop("questions whose gold, found by its answer, is that of a held-out question", 1, question.id)
                return None
            tally.count("questions whose gold is the best passage that bears the answer", 1)
        known = {one.passage for one in placed}
        missed = [Placed(position, MISSED, 0, 0.0, ()) for position in gold if position not in known]
        if missed:
            tally.count("gold passages that retrieval missed", len(missed), question.id)
        placed += missed
        bearing += [matcher.bears(lookups.joined(one.passage)) for one in missed]
        guards = self._guards(question, matcher, [one.passage for one in placed], annotated=(gold, others))
        rows = zip(placed, bearing, guards, strict=True)
        entries = [Entry(one, one.passage in gold, bears, guard) for one, bears, guard in rows]
        self._show(question, entries, tally)
        for kind, amount in matcher.kinds.items():
            tally.count(f"answers that are {kind} evidence for the guard", amount) if kind != "strong" else None
        if question.answers:
            bearers = {entry.placed.passage for entry in entries if entry.has_answer}
            merged = [entry.placed.passage for entry in entries if entry.placed.rank]  # 0: nobody found it
            count_quality(found, merged, Relevant({*gold}, {*gold, *others}, bearers), tally)
            mute = 0 if matcher.is_empty else sum(entry.is_gold and not entry.has_answer for entry in entries)
            tally.count(_MUTE, mute, question.id) if mute else None
        tally.measure("passages per pool", len(entries))
        return entries

    def _guards(
        self, question: Question, matcher: AnswerMatcher, passages: list[int], annotated: tuple[list[int], list[int]]
    ) -> list[str]:
        """Return why each passage may not be a negative. Alternatives to gold are as good as gold."""
        gold, others = annotated
        opened = self._open()
        guards = guard_reasons(matcher, [*gold, *others], passages, opened.lookups, self.judging.guard)
        if opened.model is None:
            return guards
        free = [place for place, guard in enumerate(guards) if not guard]
        golds, texts = ([opened.corpus.text(p) for p in some] for some in (gold, (passages[place] for place in free)))
        for place, like_gold in zip(free, opened.model.flagged(question.question, golds, texts), strict=True):
            guards[place] = CROSS_ENCODER if like_gold else ""
        return guards

    def _show(self, question: Question, entries: Sequence[Entry], tally: Tally) -> None:
        corpus = self._open().corpus
        for entry in entries:
            if entry.guard not in ("", "gold"):
                name = f"kept from the negatives: {_REASONS[entry.guard]}"
                tally.count(name, 1, question.id)
                tally.excerpt(name, _excerpt(question, corpus, entry.placed.passage))


@dataclass(frozen=True)
class Named:
    """Where the passages are that questions name, looked up once for all of them: a look-up reads a whole corpus."""

    borders: np.ndarray[Any, Any]
    positions: np.ndarray[Any, Any]

    @classmethod
    def of(cls, corpus: Corpus, ids: pa.ChunkedArray) -> Named:
        """Look up a column of lists of ids."""
        lengths = pc.list_value_length(ids).to_numpy(zero_copy_only=False)
        return cls(
            np.cumsum([0, *lengths]),
            corpus.positions(pa.concat_arrays([pa.array([], pa.string()), *(part.flatten() for part in ids.chunks)])),
        )

    def of_row(self, row: int) -> list[int]:
        """Return where the passages of one question are, those that are there at all."""
        return [p for p in self.positions[self.borders[row] : self.borders[row + 1]].tolist() if p >= 0]


@dataclass(frozen=True)
class _Opened:
    """What a process opens once."""

    corpus: Corpus
    questions: MappedRows
    lookups: Lookups
    model: CrossEncoderGuard | None


def _excerpt(question: Question, corpus: Corpus, position: int) -> str:
    """Return what a person needs to judge the guard: the question, its answer and the passage around it."""
    passage = corpus[position]
    places = [(passage.text.casefold().find(answer.casefold()), answer) for answer in question.answers]
    at, answer = next((place for place in places if place[0] >= 0), (0, ""))
    low, high = max(0, at - _SHOWN), at + len(answer) + _SHOWN
    text = " ".join(passage.text[low:high].split())
    around = f"{'...' if low else ''}{text}{'...' if high < len(passage.text) else ''}"
    return f"{question.question} [{answer or ' / '.join(question.answers)}] {passage.id} {passage.title}: {around}"


def _table(
    corpus: Corpus,
    questions: Sequence[Question],
    rows: Sequence[int],
    pools: Sequence[Sequence[Entry]],
    retrievers: Sequence[str],
) -> pa.Table:
    flat = [entry for pool in pools for entry in pool]
    places = [place for entry in flat for place in entry.placed.found]
    borders = pa.array(np.cumsum([0, *map(len, pools)]), pa.int32())
    found_borders = pa.array(np.cumsum([0, *(len(entry.placed.found) for entry in flat)]), pa.int32())
    code = {name: number for number, name in enumerate(retrievers)}
    passage = np.array([entry.placed.passage for entry in flat], np.int64)
    retriever = [entry.placed.retriever for entry in flat]
    rank = pa.array([entry.placed.rank for entry in flat], pa.int32())
    score = pa.array([entry.placed.score for entry in flat], pa.float32())
    bears, guards = [entry.has_answer for entry in flat], [entry.guard for entry in flat]
    found_rank = pa.array([place[1] for place in places], pa.int32())
    found = _struct(
        retriever=pa.array([place[0] for place in places], pa.string()),
        rank=found_rank,
        score=pa.array([place[2] for place in places], pa.float32()),
    )
    ids, titles, texts = corpus.take(passage, ("id", "title", "text"))
    entries = _struct(
        id=ids,
        title=titles,
        text=texts,
        is_gold=pa.array([entry.is_gold for entry in flat], pa.bool_()),
        has_answer=pa.array(bears, pa.bool_()),
        retriever=pa.array(retriever, pa.string()),
        rank=rank,
        score=score,
        guard=pa.array(guards, pa.string()),
        found=pa.ListArray.from_arrays(found_borders, found),
    )
    codes = _struct(retriever=pa.array([code[place[0]] for place in places], pa.int8()), rank=found_rank)
    hits = _struct(
        passage=pa.array(passage, pa.int32()),
        retriever=pa.array([code[name] for name in retriever], pa.int8()),
        rank=rank,
        score=score,
        has_answer=pa.array(np.array(bears, np.int8)),
        guard=pa.array([GUARDS.index(name) for name in guards], pa.int8()),
        found=pa.ListArray.from_arrays(found_borders, codes),
    )
    heads = {name: [getattr(question, name) for question in questions] for name in POOL_SCHEMA.names[:-1]}
    gold = [[entry.placed.passage for entry in pool if entry.is_gold] for pool in pools]
    return pa.table(
        {
            **{name: pa.array(values, POOL_SCHEMA.field(name).type) for name, values in heads.items()},
            "passages": pa.ListArray.from_arrays(borders, entries),
            "row": pa.array(rows, pa.int32()),
            "gold": pa.array(gold, pa.list_(pa.int32())),
            "hits": pa.ListArray.from_arrays(borders, hits),
        }
    )


def _struct(**columns: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
