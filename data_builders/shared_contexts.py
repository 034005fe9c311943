"""Several questions asked of one context, so that each passage is gold for one and a hard negative for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_builders.context_rows import (
    Turn,
    ask,
    compose_row,
    coverage_order,
    endless_pace,
    note,
    note_asked,
    once_each,
    passes,
    plan_rows,
    row_id,
    rows_by_source,
)
from data_builders.contexts import Case, Plan, allowed_beside, fill
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.negatives import NegativesSettings, hard_negatives
from data_builders.passage_counts import draw_count
from data_builders.records import ContextRow

if TYPE_CHECKING:
    from data_builders.ranked import Split

_NEAR = 5  # a question is a near miss of a context that shows one of its top 5 wrong passages
_NEAR_ROWS = 16  # near misses looked at per passage: some passages are near misses of half the questions


class SharedTurn(NamedTuple):
    """One to write: its seed question and that one's pass, its passages (positions), its questions (rows)."""

    row: int
    turn: int
    passages: tuple[int, ...]
    questions: tuple[int, ...]


def planned_contexts(split: Split, plan: Plan, tally: Tally) -> Iterator[Turn | SharedTurn]:
    """Plan a split's contexts, in the order they are written: numbers only, so that composing may be spread out."""
    if plan.contexts.questions_per_context == 1:
        return iter(plan_rows(split, plan, tally))
    return plan_shared(split, plan, tally)


def context_row(split: Split, planned: Turn | SharedTurn, plan: Plan, tally: Tally) -> ContextRow:
    """Write one planned context: a pure function of split, plan and `planned`; the tally learns of it."""
    if isinstance(planned, SharedTurn):
        return share_row(split, planned, plan, tally)
    return compose_row(split, planned, plan, tally)


def share_row(split: Split, planned: SharedTurn, plan: Plan, tally: Tally) -> ContextRow:
    """Write one shared context; the tally learns how hard it is for each question."""
    cases = [Case.of(split, row) for row in planned.questions]
    for case in cases:
        _measure_hardness(case, planned.passages, plan.negatives, tally)
    passages = tuple(split.corpus[position] for position in planned.passages)
    asked = tuple(ask(split, case, planned.passages) for case in cases)
    return ContextRow(row_id(split.ids[planned.row], planned.turn), passages, asked)


def _measure_hardness(case: Case, shown: Sequence[int], settings: NegativesSettings, tally: Tally) -> None:
    """Compare a question's own hard negatives among those shown with the best ones a context of its own would show."""
    golds = case.ranked.gold
    kept = hard_negatives(case.ranked.hits, golds, settings).kept
    beside = set(shown).difference(golds)
    share = settings.shares.get("top", 0.0) / sum(settings.shares.values())
    own = {
        "shared": [hit for hit in kept if hit.passage in beside],
        "separate": list(kept[: round(share * len(beside))]),
    }
    for name, hits in own.items():
        tally.measure(f"own hard negatives per question, {name}", len(hits))
        for hit in hits:
            tally.measure(f"rank of own hard negatives, {name}", hit.rank)


# planning, one context after the other


class Inverted:
    """Passage -> the rows of questions that name it, as two flat arrays."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        table = np.array(list(pairs), dtype=np.int32).reshape(-1, 2)
        table = table[np.argsort(table[:, 0], kind="stable")]
        self._passages, self._rows = table[:, 0].copy(), table[:, 1].copy()

    def rows(self, passage: int) -> np.ndarray[Any, Any]:
        """Return the questions of one passage, in order of the questions file."""
        low, high = np.searchsorted(self._passages, [passage, passage + 1])
        return self._rows[low:high]


@dataclass
class _State:
    """What has been asked and shown so far; planning one context changes it.

    `asked` counts per question and `done` per data set; `turn` is the pass a data set is in (-1: no more), `covered`
    the passages that pass has shown. `with_gold`, `without_gold` and `blank` count questions; blank ones have no gold.
    """

    split: Split
    plan: Plan
    tally: Tally
    sources: list[list[int]]
    asked: np.ndarray[Any, Any] = field(init=False)
    source: np.ndarray[Any, Any] = field(init=False)
    turn: np.ndarray[Any, Any] = field(init=False)
    done: np.ndarray[Any, Any] = field(init=False)
    covered: np.ndarray[Any, Any] = field(init=False)
    share_blank: float = field(init=False)
    by_gold: Inverted = field(init=False)
    by_near: Inverted = field(init=False)
    by_blank: Inverted = field(init=False)
    with_gold: int = 0
    without_gold: int = 0
    blank: int = 0

    def __post_init__(self) -> None:
        split = self.split
        self.asked, self.source = np.zeros(len(split), np.int32), np.zeros(len(split), np.int32)
        self.turn, self.done = np.zeros(len(self.sources), np.int32), np.zeros(len(self.sources), np.int64)
        self.covered = np.zeros((len(self.sources), len(split.corpus)), bool)
        for number, rows in enumerate(self.sources):
            self.source[rows] = number
        rows = [row for part in self.sources for row in part]
        golden, blank = ([row for row in sorted(rows) if bool(split.gold_of(row)) is has] for has in (True, False))
        self.share_blank = len(blank) / max(1, len(rows))
        self.by_gold = Inverted((passage, row) for row in golden for passage in split.gold_of(row))
        self.by_near = Inverted((passage, row) for row in golden for passage in _near(split, row))
        self.by_blank = Inverted((passage, row) for row in blank for passage in _near(split, row))

    def waiting(self, index: Inverted, passage: int) -> list[int]:
        """Return the questions of a passage that were not yet asked in this pass over their data set."""
        rows = index.rows(passage)
        return rows[self.asked[rows] <= self.turn[self.source[rows]]].tolist()

    def ask(self, golden: list[int], hidden: list[int], blank: list[int]) -> tuple[int, ...]:
        """Count the questions of one context as asked; return all their rows."""
        rows = (*golden, *hidden, *blank)
        self.asked[list(rows)] += 1
        np.add.at(self.done, self.source[list(rows)], 1)
        self.with_gold += len(golden)
        self.without_gold += len(hidden)
        self.blank += len(blank)
        return rows


def _near(split: Split, row: int) -> list[int]:
    """Return the top wrong passages of a question; gold retrieval missed has its place at the end and is gold too."""
    gold = split.gold_of(row)
    return [passage for passage in split.pool_passages(row, _NEAR + len(gold)) if passage not in gold][:_NEAR]


def plan_shared(split: Split, plan: Plan, tally: Tally) -> Iterator[SharedTurn]:
    """Plan shared contexts until every question was asked as often as the plan says, or up to its cap.

    Seeds whose gold has not been shown come first, so that a capped set covers as many passages as it can. Of several
    data sets the one that lags most behind its share of the questions gives the next seed.
    """
    sources = rows_by_source(split, plan, tally)
    state = _State(split, plan, tally, list(sources.values()))
    once = once_each({name: len(rows) for name, rows in sources.items()}, plan.weights)
    pace = np.array([*(once if plan.cap is None else endless_pace(once, plan.weights)).values()], float)
    due = np.array([*once.values()], float) * passes(plan) if plan.cap is None else np.full(len(once), np.inf)
    seeds = [_seeds(state, number) for number in range(len(sources))]
    for number in count():
        done = state.done
        state.turn[done >= due] = -1
        if not (done < due).any() or number == plan.cap:
            return note_asked(split, sources, dict(enumerate(state.asked.tolist())), plan, tally)
        lag = np.where(done < due, (done + 0.5) / np.maximum(pace, 1e-9), np.inf)
        progress = number / max(1, plan.cap - 1) if plan.cap is not None else float(done.sum() / due.sum())
        yield _plan_one(state, *next(seeds[int(lag.argmin())]), progress if plan.training else 1.0)


def _seeds(state: _State, source: int) -> Iterator[tuple[int, int]]:
    split, covered = state.split, state.covered[source]
    for turn in count():
        state.turn[source] = turn
        order = coverage_order(split, state.plan.seed, turn, state.sources[source])
        if state.plan.cap is None:
            # Several hops seed first: their gold rarely meets by chance, one hop finds a place in any later context.
            # Under a cap that would leave contexts around several hops only, so there the draw stays as it is.
            order = sorted(order, key=lambda row: -len(split.gold_of(row)))
        covered[:] = False
        for fresh in (True, False):
            for row in order:
                if state.asked[row] <= turn and not (fresh and covered[list(split.gold_of(row))].any()):
                    yield row, turn


def _plan_one(state: _State, seed_row: int, turn: int, progress: float) -> SharedTurn:
    size, case = state.plan.contexts.questions_per_context, Case.of(state.split, seed_row)
    rng, golds = seeded(state.plan.seed, "shared context", case.question.id, turn), case.ranked.gold
    room = _room(state, rng)
    shown = _passages(state, case, rng, progress, with_gold=room > 0)
    golden = _answerable(state, [seed_row] if golds else [], shown, room, rng) if room else []
    hidden = [seed_row] if golds and not golden else []
    blank = [] if golds else [seed_row]
    wanted = _due(state, len(golden), rng) if room else size - 1
    wanted = min(wanted, size - len(golden) - len(blank))
    hidden += _unanswerable(state, state.by_near, shown, wanted, rng, seed_row)
    if state.share_blank:
        wanted = min(_due_blank(state, len(golden) + len(hidden), rng), size - len(golden) - len(hidden)) - len(blank)
        blank += _unanswerable(state, state.by_blank, shown, wanted, rng, seed_row)
    state.covered[:, list(shown)] = True
    return SharedTurn(seed_row, turn, shown, state.ask(golden, hidden, blank))


def _room(state: _State, rng: Random) -> int:
    """Return how many questions with gold a context may have; 0 for one that shows no gold even of its seed."""
    settings = state.plan.contexts
    size, share = settings.questions_per_context, settings.gold_probability * (1 - state.share_blank)
    if settings.gold_probability == 0 or _due(state, 0, rng) == size:  # near misses ran short: catch up
        return 0
    return max(1, size - int(size * (1 - share) + rng.random()))


def _passages(state: _State, case: Case, rng: Random, progress: float, with_gold: bool) -> tuple[int, ...]:
    """Show the seed's gold and its hard negatives, those first that are gold for a question still waiting."""
    wanted = draw_count(state.plan.contexts.passages, rng, progress)
    frame = (case.ranked.gold if with_gold else (), wanted)
    composition = fill(state.split, case, frame, state.plan, rng, lambda p: bool(state.waiting(state.by_gold, p)))
    note(composition, case, state.tally)
    return composition.passages


def _answerable(state: _State, seed_rows: list[int], shown: Sequence[int], room: int, rng: Random) -> list[int]:
    """Choose up to `room` waiting questions whose gold is all shown, spread evenly over the passages."""
    buckets: dict[tuple[int, ...], list[int]] = {}
    for row in sorted(
        {row for passage in shown for row in state.waiting(state.by_gold, passage)}.difference(seed_rows)
    ):
        gold = state.split.gold_of(row)
        if set(gold) <= set(shown):
            buckets.setdefault(gold, []).append(row)
    for rows in buckets.values():
        rng.shuffle(rows)
    tie = {gold: rng.random() for gold in buckets}
    chosen, load = list(seed_rows), Counter(passage for row in seed_rows for passage in state.split.gold_of(row))
    while buckets and len(chosen) < room:
        # Several hops go first among equals: the chance that all their gold meets again is small.
        gold = min(buckets, key=lambda gold: (max(load[passage] for passage in gold), -len(gold), tie[gold]))
        row = buckets[gold].pop()
        if not buckets[gold]:
            del buckets[gold]
        refused = _refusal(state, row, shown)
        if refused:
            state.tally.count(refused, 1, state.split.ids[row])
        else:
            chosen.append(row)
            load.update(gold)
    return chosen


def _unanswerable(
    state: _State, index: Inverted, shown: Sequence[int], wanted: int, rng: Random, without: int
) -> list[int]:
    """Choose up to `wanted` waiting near misses: their top wrong passages are shown, no gold and no answer is."""
    if wanted <= 0:
        return []
    near: Counter[int] = Counter()
    for passage in shown:
        rows = state.waiting(index, passage)
        near.update(rng.sample(rows, min(len(rows), _NEAR_ROWS)))
    near.pop(without, None)
    waiting = sorted(near)
    rng.shuffle(waiting)
    chosen: list[int] = []
    for row in sorted(waiting, key=lambda row: -near[row]):
        if len(chosen) == wanted:
            break
        if not set(state.split.gold_of(row)) & set(shown) and not _refusal(state, row, shown):
            chosen.append(row)
    return chosen


def _due(state: _State, golden: int, rng: Random) -> int:
    """Return how many questions without gold are due now, so that their share over all contexts is as set."""
    settings = state.plan.contexts
    ratio = (1 - settings.gold_probability) / settings.gold_probability
    due = int(ratio * (state.with_gold + golden) - state.without_gold + rng.random())
    return min(due, settings.questions_per_context - golden)


def _due_blank(state: _State, others: int, rng: Random) -> int:
    """Return how many questions annotated as unanswerable are due now, so that they come at the pace of the others."""
    if state.share_blank == 1:
        return state.plan.contexts.questions_per_context
    ratio = state.share_blank / (1 - state.share_blank)
    return int(ratio * (state.with_gold + state.without_gold + others) - state.blank + rng.random())


def _refusal(state: _State, row: int, shown: Sequence[int]) -> str:
    """Say why a question cannot be asked here, or nothing: too few hard negatives of its own, or the guard."""
    case = Case.of(state.split, row)
    golds = case.ranked.gold
    beside = [passage for passage in shown if passage not in golds]
    own = {hit.passage for hit in hard_negatives(case.ranked.hits, golds, state.plan.negatives).kept}
    if len(own.intersection(beside)) < min(state.plan.contexts.own_negatives, len(own), len(beside)):
        return "questions kept out of a shared context for want of hard negatives of their own"
    allowed = allowed_beside(state.split, case, state.plan)
    return "" if all(map(allowed, beside)) else "questions the guard kept out of a shared context"
