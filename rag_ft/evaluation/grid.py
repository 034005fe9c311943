"""The points of a sweep: which passages each system is shown for each question. Generates nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.files import seeded
from data_builders.records import Passage, Pool, PoolPassage
from rag_ft.evaluation.conditions import GoldMode
from rag_ft.evaluation.predictions import PredictionKey
from rag_ft.evaluation.settings import EvaluationSettings, SystemSettings
from rag_ft.strategies import ORDERS


@dataclass(frozen=True)
class Point:
    """One prompt of the grid: a question, a system and the passages it is shown, in order.

    `passages` is the sweep's count; `shown` may be shorter where a pool is.
    """

    pool: Pool
    system: str
    gold: GoldMode
    passages: int
    shown: tuple[PoolPassage, ...]

    @property
    def key(self) -> PredictionKey:
        """What makes the point unique in the predictions store."""
        return (self.pool.id, self.system, self.gold, self.passages, "")

    @property
    def answerable(self) -> bool:
        """Whether every gold passage of the question is shown."""
        shown = {passage.id for passage in self.shown}
        gold = [passage.id for passage in self.pool.passages if passage.is_gold]
        return bool(gold) and shown.issuperset(gold)

    def texts(self) -> list[Passage]:
        """The passages as the renderer takes them."""
        return [Passage(passage.id, passage.title, passage.text) for passage in self.shown]


def sweep_context(pool: Pool, count: int, gold: GoldMode) -> list[PoolPassage]:
    """Return the `count` passages of a sweep point, best first.

    `retrieved` is the top of the ranking as it is. `kept` holds every gold passage that fits: those the top lacks
    take its last places. So a sweep's contexts are prefixes of one another but for those last places.
    """
    ranked = [passage for passage in pool.passages if passage.rank > 0]
    if gold == "retrieved":
        return ranked[:count]
    needed = [passage for passage in pool.passages if passage.is_gold][:count]
    needed_ids = {passage.id for passage in needed}
    others = [passage for passage in ranked if passage.id not in needed_ids][: count - len(needed)]
    chosen = {passage.id for passage in (*others, *needed)}
    top = [passage for passage in ranked[:count] if passage.id in chosen]
    top_ids = {passage.id for passage in top}
    return top + [passage for passage in needed if passage.id not in top_ids]


def points(pool: Pool, systems: Iterable[SystemSettings], settings: EvaluationSettings) -> Iterator[Point]:
    """Yield every point of one question for the given systems, references included."""
    referenced: set[str] = set()
    for system in systems:
        for gold in settings.gold:
            for count in settings.passages:
                context = sweep_context(pool, count, gold)
                yield Point(pool, system.name, gold, count, tuple(ORDERS[system.strategy](context)))
        if system.weights not in referenced:  # order does not matter to a reference, so one system of a kind has it
            referenced.add(system.weights)
            yield from _references(pool, system.name, settings)


def _references(pool: Pool, system: str, settings: EvaluationSettings) -> Iterator[Point]:
    if "closed_book" in settings.references:
        yield Point(pool, system, "closed_book", 0, ())
    gold = tuple(passage for passage in pool.passages if passage.is_gold)
    if "gold_only" in settings.references and gold:
        yield Point(pool, system, "gold_only", len(gold), gold)


def chosen_pools(pools: Iterable[Pool], count: int | None, seed: int) -> list[Pool]:
    """Return `count` pools drawn by seed and question id (all when None), in the order of the file."""
    everything = list(pools)
    if count is None or count >= len(everything):
        return everything
    drawn = sorted(everything, key=lambda pool: seeded(seed, "evaluation", pool.id).random())[:count]
    ids = {pool.id for pool in drawn}
    return [pool for pool in everything if pool.id in ids]


def recall_rows(pools: Sequence[Pool], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the share of questions whose gold passages are all in the top k, by group and for all."""
    groups: dict[str, list[Pool]] = {"all": list(pools)}
    for pool in pools:
        if pool.group:
            groups.setdefault(pool.group, []).append(pool)
    return [
        {"group": group, "passages": count, "recall": sum(_recalled(pool, count) for pool in members) / len(members)}
        for group, members in groups.items()
        for count in counts
        if members
    ]


def _recalled(pool: Pool, count: int) -> bool:
    top = {passage.id for passage in sweep_context(pool, count, "retrieved")}
    gold = {passage.id for passage in pool.passages if passage.is_gold}
    return bool(gold) and gold <= top
