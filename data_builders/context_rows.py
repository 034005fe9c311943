"""From the pools of a split to its context rows: which questions, how often, with what provenance. Labels nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice, repeat
from typing import TYPE_CHECKING, NamedTuple

from data_builders.contexts import Case, Composition, Plan, compose
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.mixing import mixed
from data_builders.negatives import bears
from data_builders.records import ContextQuestion, ContextRow, Retrieved

if TYPE_CHECKING:
    from data_builders.ranked import Split

_KINDS = {"top": "top-ranked", "low": "low-ranked", "other": "other questions' top", "random": "random"}
_GUARDS = {
    "answer": "that contain the answer",
    "near_duplicate": "that nearly repeat a gold passage",
    "cross_encoder": "that score too near to gold",
}


class Turn(NamedTuple):
    """One context to compose: whose, how often that question had its turn before, how far training is then (0 to 1)."""

    row: int
    turn: int
    progress: float


def plan_rows(split: Split, plan: Plan, tally: Tally) -> list[Turn]:
    """Return which questions get a context, in the order they are written and trained; composing may be spread out."""
    sources = rows_by_source(split, plan, tally)
    turns = list(_turns(split, plan, sources))
    note_asked(split, sources, Counter(row for row, _ in turns), plan, tally)
    last = max(1, len(turns) - 1)
    return [Turn(row, turn, place / last if plan.training else 1.0) for place, (row, turn) in enumerate(turns)]


def compose_row(split: Split, planned: Turn, plan: Plan, tally: Tally) -> ContextRow:
    """Compose one planned context: a pure function of split, plan and `planned`; the tally learns of it."""
    case = Case.of(split, planned.row)
    rng = seeded(plan.seed, "context", case.question.id, planned.turn)
    composition = compose(split, case, plan, rng, planned.progress)
    note(composition, case, tally)
    passages = tuple(split.corpus[position] for position in composition.passages)
    return ContextRow(row_id(case.question.id, planned.turn), passages, (ask(split, case, composition.passages),))


def row_id(question: str, turn: int) -> str:
    """Name a context after its (seed) question; later passes get a number.

    A question whose own id ends like that gets one in its first pass too, so that no two rows have one name.
    """
    return f"{question}#{turn + 1}" if turn or _NUMBERED.search(question) else question


_NUMBERED = re.compile(r"#\d+\Z")


# which questions, how often


def _turns(split: Split, plan: Plan, sources: Mapping[str, Sequence[int]]) -> Iterator[tuple[int, int]]:
    once = once_each({name: len(rows) for name, rows in sources.items()}, plan.weights)
    pace = once if plan.cap is None else endless_pace(once, plan.weights)
    endless = mixed((pace[name], _passes(split, plan.seed, rows)) for name, rows in sources.items() if pace[name])
    return islice(endless, passes(plan) * sum(once.values()) if plan.cap is None else plan.cap)


def passes(plan: Plan) -> int:
    """Return how many passes a plan without a cap makes."""
    return plan.contexts.epochs if plan.training else 1


def rows_by_source(split: Split, plan: Plan, tally: Tally) -> dict[str, list[int]]:
    """Return the questions of each data set, by name; those with answers but without gold are left out and counted."""
    rows = []
    for row in range(len(split)):
        if not split.gold_of(row) and split.answers(row):
            tally.drop("questions with answers but without a gold passage", 1, split.ids[row])
        else:
            rows.append(row)
    if len(plan.weights) < 2:
        return {"": rows} if rows else {}
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(split.sources[row], []).append(row)
    return dict(sorted(found.items()))


def note_asked(
    split: Split, sources: Mapping[str, Sequence[int]], times: Mapping[int, int], plan: Plan, tally: Tally
) -> None:
    """Tally how often each data set is asked, and the questions to which a cap or the weights leave no turn.

    Args:
        split: where questions have their names.
        sources: the rows of each data set, as `rows_by_source` gives them.
        times: row -> how many contexts ask it.
        plan: says whether the contexts are trained on.
        tally: learns of it.
    """
    for name, rows in sources.items():
        asked = [times.get(row, 0) for row in rows]
        left = [row for row, often in zip(rows, asked, strict=True) if not often]
        if left:
            of = f" of {name}" if name else ""
            tally.drop(f"questions{of} that get no context (weights, cap)", len(left), split.ids[left[0]])
        if name:
            table = tally.counts.setdefault(f"asked in {'training' if plan.training else 'validation'}", {})
            told = {"questions": len(rows), "asked": len(rows) - len(left)}
            table[name] = {**told, "times asked": sum(asked), "most often": max(asked)}


def once_each(sizes: dict[str, int], weights: Mapping[str, float | None]) -> dict[str, int]:
    """Return how many questions of each data set one pass takes: no question twice, data sets with a weight in shares.

    A data set without a weight is taken whole.
    """
    shares = {name: weight for name in sizes if (weight := weights.get(name)) is not None}
    pairs = mixed((weight, zip(repeat(name), range(sizes[name] + 1), strict=False)) for name, weight in shares.items())
    taken = dict.fromkeys(shares, 0)
    for name, number in pairs:
        if number == sizes[name]:  # the next question would be its second time
            break
        taken[name] += 1
    return {**sizes, **taken}


def endless_pace(once: Mapping[str, int], weights: Mapping[str, float | None]) -> dict[str, float]:
    """Return how fast data sets advance where questions may come again: by weight, or by size where there is none."""
    shares = {name: weight for name in once if (weight := weights.get(name)) is not None}
    scale = max(1, sum(once[name] for name in shares)) / sum(shares.values()) if shares else 1.0
    return {name: shares[name] * scale if name in shares else float(size) for name, size in once.items()}


def _passes(split: Split, seed: int, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((row, turn) for turn in count() for row in coverage_order(split, seed, turn, rows))


def coverage_order(split: Split, seed: int, turn: int, rows: Iterable[int]) -> list[int]:
    """Order questions so that every prefix covers as many gold passages as it can; ties are drawn by `seed`.

    Questions without gold (annotated as unanswerable) are spread evenly.
    """
    drawn = sorted(rows, key=lambda row: seeded(seed, "coverage", split.ids[row], turn).random())
    seen: dict[tuple[int, ...], int] = {}
    keyed, without = [], []
    for row in drawn:
        gold = split.gold_of(row)
        if gold:
            keyed.append((seen.get(gold, 0), row))
            seen[gold] = seen.get(gold, 0) + 1
        else:
            without.append(row)
    covering = [row for _, row in sorted(keyed, key=lambda pair: pair[0])]
    return list(mixed((len(part), part) for part in (covering, without) if part))


# what a row says of its question


def ask(split: Split, case: Case, shown: Sequence[int]) -> ContextQuestion:
    """Ask one question of a context: where its gold stands, who bears its answer, what retrieval said. No label yet."""
    question, golds = case.question, case.ranked.gold
    hits = {hit.passage: hit for hit in case.ranked.hits}
    found = [hits.get(position) for position in shown]
    bearing = (
        index
        for index, (position, hit) in enumerate(zip(shown, found, strict=True))
        if position not in golds and (hit.has_answer if hit else bears(split.corpus, position, case.matcher))
    )
    return ContextQuestion(
        id=question.id,
        question=question.question,
        answers=question.answers,
        answerable=bool(golds) and set(golds) <= set(shown),
        gold=tuple(index for index, position in enumerate(shown) if position in golds),
        has_answer=tuple(bearing),
        retrieved=tuple(Retrieved(hit.retriever, hit.rank, hit.score) if hit else None for hit in found),
        label=None,
        label_source="",
        source=question.source,
        group=question.group,
    )


def note(composition: Composition, case: Case, tally: Tally) -> None:
    """Tally what one composition shows, took out or lacked."""
    question = case.question.id
    for hit in composition.guarded:
        tally.drop(f"hard negatives {_GUARDS.get(hit.guard, hit.guard)} (guard)", 1, question)
    if len(composition.passages) < composition.wanted:
        tally.count("contexts with fewer passages than drawn", 1, question)
    if 0 < len(composition.gold) < len(case.ranked.gold):
        tally.count("contexts with a part of the gold", 1, question)
    if composition.over_budget:
        tally.count("contexts whose gold alone is above the token budget", 1, question)
    tally.count("gold passages shown", len(composition.gold))
    for negative in composition.negatives:
        tally.count(f"{_KINDS[negative.kind]} negatives shown")
        if negative.retriever:
            tally.count(f"top-ranked negatives of {negative.retriever}")


def measure(row: ContextRow, tally: Tally) -> None:
    """Tally the shape of one context row: sizes, shares, where gold stands."""
    tally.measure("passages per context", len(row.passages))
    tally.measure("questions per context", len(row.questions))
    tally.measure("words per context", sum(len(passage.text.split()) for passage in row.passages))
    for question in row.questions:
        tally.count("answerable questions" if question.answerable else _why_not(question))
        if not question.answerable and question.has_answer:
            tally.count("questions without gold whose answer is shown", 1, question.id)
        for index in question.gold:
            tally.measure("gold position", index)


def _why_not(question: ContextQuestion) -> str:
    return "questions without gold" if question.answers else "questions annotated as unanswerable"
