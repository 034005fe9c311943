"""The questions that are asked: those that can be used, with gold that is there. Decides no split, guesses no gold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.clean_passages import Aliases
from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.paths import DataPaths
from data_builders.records import Question, Ranking
from data_builders.sources.rows import SPLITS, Split
from data_builders.steps import Bench
from data_builders.tables import question_of, read_rankings, write_records
from data_builders.text import answer_tokens

LEFT_OUT = "-"
_STRICTEST = ("test", "validation", "train", "")  # which copy of a question stays
_BATCH = 2000


@dataclass(frozen=True)
class Asking:
    """Questions held in Arrow. `splits` says where each goes: "" not decided yet, `LEFT_OUT` nowhere."""

    table: pa.Table
    splits: list[str]

    @classmethod
    def read(cls, path: Path, tally: Tally) -> Asking:
        """Read what the sources gave; of a question that comes again under its id the test's copy is kept.

        Raises:
            RagFtError: two different questions have one id.
        """
        table = pq.read_table(path).combine_chunks()
        asking = cls(table, table["split"].to_pylist())
        ids, texts = table["id"].to_pylist(), table["question"].to_pylist()
        order = sorted(range(len(ids)), key=lambda row: (_STRICTEST.index(asking.splits[row]), row))
        first: dict[str, str] = {}
        for row in order:
            known = first.setdefault(ids[row], texts[row])
            if known != texts[row]:
                raise RagFtError(
                    f'two different questions have the id {ids[row]}: "{known}" and "{texts[row]}". Give every '
                    "question its own id in the source's data; where ids count the rows of several files, make each "
                    "file a source of its own, whose name then stands before its ids."
                )
        kept: set[str] = set()
        for row in order:
            if ids[row] in kept:
                asking.drop(row, "questions that came again", tally)
            kept.add(ids[row])
        return asking

    def rows(self, *splits: str) -> list[int]:
        """Return the rows of some splits, in order."""
        return [row for row, split in enumerate(self.splits) if split in splits]

    def questions(self, rows: Sequence[int]) -> Iterator[Question]:
        """Read rows as questions, a batch at a time."""
        for start in range(0, len(rows), _BATCH):
            batch = self.table.take(pa.array(rows[start : start + _BATCH], pa.int64()))
            yield from map(question_of, batch.to_pylist())

    def drop(self, row: int, reason: str, tally: Tally) -> None:
        """Leave a question out."""
        self.splits[row] = LEFT_OUT
        tally.drop(reason, 1, self.table["id"][row].as_py())


def drop_unusable(asking: Asking, gold: Literal["annotated", "answer_match"], tally: Tally) -> None:
    """Leave out questions that can neither be answered nor declined."""
    rows = asking.rows("", *SPLITS)
    for row, question in zip(rows, asking.questions(rows), strict=True):
        problem = _problem(question, gold)
        if problem:
            asking.drop(row, problem, tally)


def _problem(question: Question, gold: str) -> str | None:
    if not question.question.strip():
        return "questions without words"
    if not question.answers and not question.gold:
        return None  # annotated as unanswerable
    if not question.answers or not answer_tokens(question.answers[0]):
        return "questions without an answer in words"
    if not question.gold and gold == "annotated":
        return "questions without a gold passage (data.gold: answer_match looks for one)"
    return None


def write_questions(
    asking: Asking, paths: DataPaths, aliases: Aliases, sample: Mapping[Split, int], seed: int, bench: Bench
) -> None:
    """Write the questions of every split whose gold its corpus holds; `sample` caps them, drawn by the seed."""
    for split in SPLITS:
        corpus = Corpus.open(paths.searched(split))
        rows = asking.rows(split)
        for row, problem in zip(rows, _gold_problems(asking, rows, corpus, (split, aliases)), strict=True):
            if problem:
                asking.drop(row, problem, bench.tally)
        for row in _beyond(asking, asking.rows(split), sample.get(split), seed):
            asking.drop(row, f"questions of {split} beyond data.sample", bench.tally)
        file = paths.questions[split]
        kept = (_settled(question, split, aliases) for question in asking.questions(asking.rows(split)))
        bench.tally.rows[file.name] = write_records(file, Question, _measured(kept, bench.tally))
    if not asking.table.num_rows:
        raise RagFtError("data.sources hold no question, and data.questions is null. Set data.questions.kind=teacher.")
    if not asking.rows(*SPLITS):
        told = [f"{reason} ({n})" for reason, n in bench.tally.dropped.most_common() if "question" in reason]
        raise RagFtError(
            f"none of {asking.table.num_rows} questions is left to train or test on: {', '.join(told[:3])}. See what a "
            "file holds with `rag-ft import-check FILE`; the passages that questions name must come from a source too."
        )


def _beyond(asking: Asking, rows: list[int], most: int | None, seed: int) -> list[int]:
    """Return the rows that a sample of `most` leaves out, in order."""
    if most is None or len(rows) <= most:
        return []
    ids = asking.table["id"]
    return sorted(sorted(rows, key=lambda row: seeded(seed, "sample", ids[row].as_py()).random())[most:])


def _settled(question: Question, split: str, aliases: Aliases) -> Question:
    """Return the question as it is written: in its split, naming passages that stayed."""
    if not aliases:
        return replace(question, split=split)
    return replace(
        question,
        split=split,
        gold=stayed(question.gold, split, aliases),
        alternatives=stayed(question.alternatives, split, aliases),
        evidence=tuple(
            replace(item, passage_id=stayed([item.passage_id], split, aliases)[0]) for item in question.evidence
        ),
    )


def stayed(ids: Iterable[str], split: str, aliases: Aliases) -> tuple[str, ...]:
    """Name passages that a split searches by the ones that stayed in their place, each once."""
    return tuple(dict.fromkeys(aliases.get((split, id_)) or aliases.get(("", id_)) or id_ for id_ in ids))


def _gold_problems(
    asking: Asking, rows: Sequence[int], corpus: Corpus, names: tuple[str, Aliases]
) -> Iterator[str | None]:
    """Yield, per row, what is wrong with its gold in the corpus of its split."""
    for start in range(0, len(rows), _BATCH):
        batch = [_settled(one, *names) for one in asking.questions(rows[start : start + _BATCH])]
        golds = pa.array([id_ for question in batch for id_ in question.gold], pa.string())
        positions = corpus.positions(golds)
        borders = np.cumsum([0, *(len(question.gold) for question in batch)])
        for number, question in enumerate(batch):
            own = positions[borders[number] : borders[number + 1]]
            yield _gold_problem(question, dict(zip(question.gold, own.tolist(), strict=True)), corpus)


def _gold_problem(question: Question, positions: Mapping[str, int], corpus: Corpus) -> str | None:
    if any(position < 0 for position in positions.values()):
        return "questions whose gold passage is not in the corpus of their split"
    for item in question.evidence:
        position = positions.get(item.passage_id)
        if position is None or item.quote not in corpus[position].text:
            return "questions with a quote that is not in their gold passage"
    return None


def _measured(questions: Iterator[Question], tally: Tally) -> Iterator[Question]:
    for question in questions:
        tally.count(f"questions of {question.split}")
        if not question.answers:
            tally.count("questions annotated as unanswerable")
        tally.measure("gold passages per question", len(question.gold))
        yield question


def write_rankings(raw: Path, target: Path, asking: Asking, aliases: Aliases) -> int:
    """Write the sources' own rankings of the questions that stay, each once, naming passages that stayed."""
    ids = asking.table["id"].to_pylist()
    split = {id_: own for id_, own in zip(ids, asking.splits, strict=True) if own != LEFT_OUT}
    written: set[tuple[str, str]] = set()

    def rankings() -> Iterator[Ranking]:
        for ranking in read_rankings(raw):
            key = (ranking.question, ranking.retriever)
            if ranking.question in split and key not in written:
                written.add(key)
                yield _renamed(ranking, split[ranking.question], aliases)

    return write_records(target, Ranking, rankings())


def _renamed(ranking: Ranking, split: str, aliases: Aliases) -> Ranking:
    best: dict[str, float] = {}
    for id_, score in zip(ranking.passages, ranking.scores, strict=True):
        best.setdefault(stayed([id_], split, aliases)[0], score)
    return replace(ranking, passages=tuple(best), scores=tuple(best.values()))
