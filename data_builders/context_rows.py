"""From the pools of a split to its context rows: which questions, how often, with what provenance. Labels nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from data_builders.contexts import Composition, ContextsSettings, compose
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.negatives import NegativesSettings, bears_answer
from data_builders.pools import Split
from data_builders.records import ContextQuestion, ContextRow, Retrieved


@dataclass(frozen=True)
class Plan:
    """What composing a split's contexts depends on. `cap` limits the contexts; None makes one pass."""

    contexts: ContextsSettings
    negatives: NegativesSettings
    seed: int
    cap: int | None


def single_rows(split: Split, plan: Plan, tally: Tally) -> Iterator[ContextRow]:
    """Compose one context per question: one pass over the questions, or passes without end when there is a cap."""
    turns = range(1) if plan.cap is None else count()
    for turn in turns if len(split) else ():
        for row in coverage_order(split, plan.seed, turn):
            question = split.ranked(row)
            rng = seeded(plan.seed, "context", question.id, turn)
            composition = compose(question, split.corpus, plan.contexts, plan.negatives, rng)
            note(composition, question.id, tally)
            passages = tuple(split.corpus[position] for position in composition.passages)
            yield ContextRow(row_id(question.id, turn), passages, (ask(split, row, composition.passages),))


def row_id(question: str, turn: int) -> str:
    """Name a context after its (seed) question; later passes get a number."""
    return question if not turn else f"{question}#{turn + 1}"


def coverage_order(split: Split, seed: int, turn: int) -> list[int]:
    """Order questions so that every prefix covers as many gold passages as it can; ties are drawn by `seed`."""
    drawn = sorted(range(len(split)), key=lambda row: seeded(seed, "coverage", split.ids[row], turn).random())
    seen: dict[tuple[int, ...], int] = {}
    keyed = []
    for row in drawn:
        gold = split.gold_of(row)
        keyed.append((seen.get(gold, 0), row))
        seen[gold] = seen.get(gold, 0) + 1
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def ask(split: Split, row: int, shown: Sequence[int]) -> ContextQuestion:
    """Ask one question of a context: where its gold stands, who bears its answer, what retrieval said. No label yet."""
    ranked, question = split.ranked(row), split.question(row)
    found = {hit.passage: Retrieved(hit.retriever, hit.rank, hit.score) for hit in ranked.hits}
    answerable = set(ranked.gold) <= set(shown)
    gold = tuple(index for index, position in enumerate(shown) if position in ranked.gold)
    bearing = tuple(
        index
        for index, position in enumerate(shown)
        if position not in ranked.gold and bears_answer(split.corpus.text(position), question.answers)
    )
    return ContextQuestion(
        id=question.id,
        question=question.question,
        answers=question.answers,
        answerable=answerable,
        gold=gold,
        has_answer=bearing,
        retrieved=tuple(found.get(position) for position in shown),
        label=None,
        label_source="",
        source=question.source,
        group=question.group,
    )


def note(composition: Composition, question: str, tally: Tally) -> None:
    """Tally what one composition took out or lacked."""
    if composition.guarded:
        tally.drop("hard negatives that contain the answer (guard)", len(composition.guarded), question)
    if len(composition.passages) < composition.wanted:
        tally.count("contexts with fewer passages than drawn", 1, question)
    tally.count("hard negatives shown", composition.hard)
    tally.count("gold and random passages shown", len(composition.passages) - composition.hard)


def measure(row: ContextRow, tally: Tally) -> None:
    """Tally the shape of one context row: sizes, shares, where gold stands."""
    tally.measure("passages per context", len(row.passages))
    tally.measure("questions per context", len(row.questions))
    tally.measure("words per context", sum(len(passage.text.split()) for passage in row.passages))
    for question in row.questions:
        tally.count("answerable questions" if question.answerable else "questions without gold")
        if not question.answerable and question.has_answer:
            tally.count("questions without gold whose answer is shown", 1, question.id)
        for index in question.gold:
            tally.measure("gold position", index)
