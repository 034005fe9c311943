"""The points of a grid: which passages each system is shown for each question. Generates nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from data_builders.files import seeded
from data_builders.records import Passage, Pool, PoolPassage
from data_builders.servers.settings import EndpointSettings
from rag_ft.evaluation.conditions import REFERENCES, Condition, GoldMode, conditions
from rag_ft.evaluation.contexts import Composed, Surroundings, compose
from rag_ft.evaluation.contexts import sweep_context as sweep_context
from rag_ft.evaluation.predictions import PredictionKey
from rag_ft.evaluation.settings import EvaluationSettings, SystemSettings
from rag_ft.strategies import ORDERS


@dataclass(frozen=True)
class Point:
    """One prompt of the grid: a question, a system and the passages it is shown, in order.

    `passages` is the sweep's count; `shown` may be shorter where a pool is. For a strategy that chooses among passages
    itself, `shown` is what it may choose from, best first. `variant` and `planted` are as in `Prediction`.
    """

    pool: Pool
    system: str
    gold: GoldMode
    passages: int
    shown: tuple[PoolPassage, ...]
    variant: str = ""
    planted: str = ""

    @property
    def key(self) -> PredictionKey:
        """What makes the point unique in the predictions store."""
        return (self.pool.id, self.system, self.gold, self.passages, self.variant)

    @property
    def answerable(self) -> bool:
        """Whether the evidence is shown, as it is: a passage that was altered answers nothing."""
        return evident(self.pool, {passage.id for passage in self.shown})

    def texts(self) -> list[Passage]:
        """The passages as the renderer takes them."""
        return [Passage(passage.id, passage.title, passage.text) for passage in self.shown]


def evident(pool: Pool, shown: Collection[str]) -> bool:
    """Tell whether every gold passage is among those shown, or, where one is enough, an alternative to it."""
    gold = {passage.id for passage in pool.passages if passage.is_gold}
    others = {passage.id for passage in pool.passages if passage.is_alternative} if len(gold) == 1 else set[str]()
    return bool(gold) and (gold.issubset(shown) or not others.isdisjoint(shown))


@dataclass(frozen=True)
class Omission:
    """A point that a question cannot give, and why."""

    pool: Pool
    condition: Condition
    reason: str


Asked: TypeAlias = tuple[str, EndpointSettings | None, str | None]
"""What answers a reference, whatever the strategy: weights, server, style."""


def points(
    pool: Pool,
    systems: Iterable[SystemSettings],
    settings: EvaluationSettings,
    around: Surroundings | None = None,
    omitted: list[Omission] | None = None,
) -> Iterator[Point]:
    """Yield every point of one question for the given systems, references included.

    Args:
        pool: the question and its passages.
        systems: who is asked.
        settings: the grid.
        around: what composing needs beside the pool.
        omitted: takes the points that this question cannot give.
    """
    composed = {condition: compose(pool, condition, around) for condition in conditions(settings)}
    if omitted is not None:
        omitted += [Omission(pool, one, found) for one, found in composed.items() if isinstance(found, str)]
    made = {condition: found for condition, found in composed.items() if isinstance(found, Composed)}
    referenced: set[Asked] = set()
    for system in systems:
        yield from _swept(pool, system, made)
        if answered_by(system) not in referenced:  # the strategy does not matter to a reference: one system has it
            referenced.add(answered_by(system))
            yield from _references(pool, system.name, made)


def answered_by(system: SystemSettings) -> Asked:
    """Return what answers a system's references: those of equal systems are asked once, for the first of them."""
    return system.weights, system.endpoint, system.style


def fixes_order(condition: Condition) -> bool:
    """Tell whether a condition says itself in which order passages stand."""
    return condition.position is not None or condition.order != "retrieved"


def takes(system: SystemSettings, condition: Condition) -> bool:
    """Tell whether a condition means anything to a system: a strategy that arranges passages takes no order."""
    return not fixes_order(condition) or system.strategy == "concatenate"


def _swept(pool: Pool, system: SystemSettings, made: dict[Condition, Composed]) -> Iterator[Point]:
    arrange = ORDERS.get(system.strategy, list)
    for one, found in made.items():
        if one.gold not in REFERENCES and takes(system, one):
            shown = tuple(arrange(found.passages))
            yield Point(pool, system.name, one.gold, one.passages, shown, one.variant, found.planted)


def _references(pool: Pool, system: str, made: dict[Condition, Composed]) -> Iterator[Point]:
    for one, found in made.items():
        if one.gold in REFERENCES:
            yield Point(pool, system, one.gold, len(found.passages), found.passages)


def chosen_pools(pools: Iterable[Pool], count: int | None, seed: int) -> list[Pool]:
    """Return `count` pools drawn by seed and question id (all when None), in the order of the file."""
    everything = list(pools)
    if count is None or count >= len(everything):
        return everything
    drawn = sorted(everything, key=lambda pool: seeded(seed, "evaluation", pool.id).random())[:count]
    ids = {pool.id for pool in drawn}
    return [pool for pool in everything if pool.id in ids]


def grouped_by_source(pools: Sequence[Pool]) -> list[Pool]:
    """Return pools of several data sets with a group each: the data set's name where a question names none itself."""
    if len({pool.source for pool in pools}) == 1:
        return list(pools)
    return [replace(pool, group=pool.group or pool.source) for pool in pools]


def grouped_by_hops(pools: Sequence[Pool]) -> list[Pool]:
    """Return pools with a group each, where the data name none: questions that need several passages, and others.

    RGB's information integration is what is scored on the former.
    """
    if any(pool.group for pool in pools):
        return list(pools)
    gold = (sum(passage.is_gold for passage in pool.passages) for pool in pools)
    names = ["several_gold" if count > 1 else "one_gold" for count in gold]
    if len(set(names)) == 1:
        return list(pools)
    return [replace(pool, group=name) for pool, name in zip(pools, names, strict=True)]


def recall_rows(pools: Sequence[Pool], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the share of questions whose evidence (see `evident`) is in the top k, by group and for all.

    Questions that name no gold passage are left out, as in the quality report of the pools.
    """
    named = [pool for pool in pools if any(passage.is_gold for passage in pool.passages)]
    groups: dict[str, list[Pool]] = {"all": named}
    for pool in named:
        if pool.group:
            groups.setdefault(pool.group, []).append(pool)
    return [
        {"group": group, "passages": count, "recall": sum(_recalled(pool, count) for pool in members) / len(members)}
        for group, members in groups.items()
        for count in counts
        if members
    ]


def _recalled(pool: Pool, count: int) -> bool:
    return evident(pool, {passage.id for passage in sweep_context(pool, count, "retrieved")})
