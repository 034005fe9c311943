"""Several questions asked of one context, so that each passage is gold for one and a hard negative for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import numpy as np

from data_builders.context_rows import Plan, ask, coverage_order, note, row_id
from data_builders.contexts import Composition, arrange, choose_negatives, draw_count
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.negatives import HardNegatives, bears_answer, hard_negatives
from data_builders.pools import RankedQuestion, Split
from data_builders.records import ContextRow

_NEAR = 5  # a question is a near miss of a context that shows one of its top 5 wrong passages
_NEAR_ROWS = 16  # near misses looked at per passage: some passages are near misses of half the questions


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
    """What has been asked and shown so far; composing one context changes it."""

    split: Split
    plan: Plan
    tally: Tally
    asked: np.ndarray[Any, Any] = field(init=False)
    covered: np.ndarray[Any, Any] = field(init=False)
    with_gold: int = 0
    without_gold: int = 0
    by_gold: Inverted = field(init=False)
    by_near: Inverted = field(init=False)

    def __post_init__(self) -> None:
        split = self.split
        self.asked = np.zeros(len(split), np.int32)
        self.covered = np.zeros(len(split.corpus), bool)
        self.by_gold = Inverted((passage, row) for row in range(len(split)) for passage in split.gold_of(row))
        self.by_near = Inverted((passage, row) for row in range(len(split)) for passage in _near(split, row))

    def waiting(self, index: Inverted, passage: int, turn: int) -> list[int]:
        """Return the questions of a passage that were not yet asked in this turn."""
        rows = index.rows(passage)
        return rows[self.asked[rows] <= turn].tolist()


def _near(split: Split, row: int) -> list[int]:
    """Return the top wrong passages of a question; gold retrieval missed has its place at the end and is gold too."""
    gold = split.gold_of(row)
    return [passage for passage in split.pool_passages(row, _NEAR + len(gold)) if passage not in gold][:_NEAR]


def shared_rows(split: Split, plan: Plan, tally: Tally) -> Iterator[ContextRow]:
    """Compose shared contexts until every question was asked once, or without end when there is a cap.

    Seeds whose gold has not been shown come first, so that a capped set covers as many passages as it can.
    """
    state = _State(split, plan, tally)
    for turn in (range(1) if plan.cap is None else count()) if len(split) else ():
        order = coverage_order(split, plan.seed, turn)
        if plan.cap is None:
            # Several hops seed first: their gold rarely meets by chance, one hop finds a place in any later context.
            # Under a cap that would leave contexts around several hops only, so there the draw stays as it is.
            order = sorted(order, key=lambda row: -len(split.gold_of(row)))
        state.covered[:] = False
        for fresh in (True, False):
            for row in order:
                if state.asked[row] <= turn and not (fresh and state.covered[list(split.gold_of(row))].any()):
                    yield _compose(state, row, turn)


def _compose(state: _State, seed_row: int, turn: int) -> ContextRow:
    split, size = state.split, state.plan.contexts.questions_per_context
    question = split.ranked(seed_row)
    rng = seeded(state.plan.seed, "shared context", question.id, turn)
    room = _room(state, rng)
    shown = _passages(state, question, turn, rng, with_gold=room > 0)
    golden = _answerable(state, seed_row, shown, (turn, room), rng) if room else []
    hidden = [] if golden else [seed_row]
    wanted = _due(state, len(golden), rng) if golden else size - 1
    hidden += _unanswerable(state, shown, turn, wanted, rng, without=seed_row)
    rows = (*golden, *hidden)
    state.asked[list(rows)] += 1
    state.covered[list(shown)] = True
    state.with_gold += len(golden)
    state.without_gold += len(hidden)
    passages = tuple(split.corpus[position] for position in shown)
    return ContextRow(row_id(question.id, turn), passages, tuple(ask(split, row, shown) for row in rows))


def _room(state: _State, rng: Random) -> int:
    """Return how many questions with gold a context may have; 0 for one that shows no gold even of its seed."""
    settings = state.plan.contexts
    size = settings.questions_per_context
    if settings.gold_probability == 0 or _due(state, 0, rng) == size:  # near misses ran short: catch up
        return 0
    return max(1, size - int(size * (1 - settings.gold_probability) + rng.random()))


def _passages(state: _State, question: RankedQuestion, turn: int, rng: Random, with_gold: bool) -> tuple[int, ...]:
    """Show the seed's gold and its hard negatives, those first that are gold for a question still waiting."""
    settings, negatives = state.plan.contexts, state.plan.negatives
    gold = question.gold if with_gold else ()
    wanted = max(draw_count(settings.passages, rng), len(gold))
    found = hard_negatives(question.hits, question.gold, negatives)
    waiting = {p for p in found.kept if state.waiting(state.by_gold, p, turn)}
    useful = HardNegatives(tuple(sorted(found.kept, key=lambda p: p not in waiting)), found.guarded)
    frame = (state.split.corpus, settings, negatives)
    chosen = choose_negatives(question, useful, wanted - len(gold), frame, rng)
    shown = tuple(arrange(question, gold, chosen, settings, rng))
    hard = len(set(chosen) & set(found.kept))
    note(Composition(shown, with_gold, wanted, hard, found.guarded), question.id, state.tally)
    return shown


def _answerable(state: _State, seed_row: int, shown: Sequence[int], limits: tuple[int, int], rng: Random) -> list[int]:
    """Choose up to `limits[1]` waiting questions whose gold is all shown, spread evenly over the passages."""
    turn, room = limits
    buckets: dict[tuple[int, ...], list[int]] = {}
    for row in sorted({row for passage in shown for row in state.waiting(state.by_gold, passage, turn)} - {seed_row}):
        gold = state.split.gold_of(row)
        if set(gold) <= set(shown):
            buckets.setdefault(gold, []).append(row)
    for rows in buckets.values():
        rng.shuffle(rows)
    tie = {gold: rng.random() for gold in buckets}
    chosen, load = [seed_row], Counter(state.split.gold_of(seed_row))
    while buckets and len(chosen) < room:
        # Several hops go first among equals: the chance that all their gold meets again is small.
        gold = min(buckets, key=lambda gold: (max(load[passage] for passage in gold), -len(gold), tie[gold]))
        row = buckets[gold].pop()
        if not buckets[gold]:
            del buckets[gold]
        if _guarded(state, row, shown):
            state.tally.count("questions the guard kept out of a shared context", 1, state.split.ids[row])
        else:
            chosen.append(row)
            load.update(gold)
    return chosen


def _unanswerable(state: _State, shown: Sequence[int], turn: int, wanted: int, rng: Random, without: int) -> list[int]:
    """Choose up to `wanted` waiting near misses: their top wrong passages are shown, no gold and no answer is."""
    if wanted <= 0:
        return []
    near: Counter[int] = Counter()
    for passage in shown:
        rows = state.waiting(state.by_near, passage, turn)
        near.update(rng.sample(rows, min(len(rows), _NEAR_ROWS)))
    near.pop(without, None)
    waiting = sorted(near)
    rng.shuffle(waiting)
    chosen: list[int] = []
    for row in sorted(waiting, key=lambda row: -near[row]):
        if len(chosen) == wanted:
            break
        if not set(state.split.gold_of(row)) & set(shown) and not _guarded(state, row, shown):
            chosen.append(row)
    return chosen


def _due(state: _State, golden: int, rng: Random) -> int:
    """Return how many questions without gold are due now, so that their share over all contexts is as set."""
    settings = state.plan.contexts
    ratio = (1 - settings.gold_probability) / settings.gold_probability
    due = int(ratio * (state.with_gold + golden) - state.without_gold + rng.random())
    return min(due, settings.questions_per_context - golden)


def _guarded(state: _State, row: int, shown: Sequence[int]) -> bool:
    """Tell whether the guard forbids asking a question here: a shown passage that is not its gold has its answer."""
    if not state.plan.negatives.answer_guard:
        return False
    gold, answers = state.split.gold_of(row), state.split.answers(row)
    return any(bears_answer(state.split.corpus.text(p), answers) for p in shown if p not in gold)
