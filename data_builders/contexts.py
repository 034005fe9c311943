"""From a pool to a context: how many passages, gold or not, which negatives, in which order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings


class FixedCount(Settings):
    """Always the same number of passages."""

    kind: Literal["fixed"]
    """Always `count` passages."""
    count: Annotated[int, Field(ge=1)]
    """Passages per context, gold included."""


class RangeCount(Settings):
    """A number of passages drawn uniformly."""

    kind: Literal["range"]
    """Uniform over `low..high`."""
    low: Annotated[int, Field(ge=1)]
    """Fewest passages."""
    high: Annotated[int, Field(ge=1)]
    """Most passages."""


class WeightedCount(Settings):
    """A number of passages drawn from weighted choices."""

    kind: Literal["choices"]
    """Drawn from `weights`."""
    weights: dict[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)]]
    """Passage count -> weight."""


CountSettings = Annotated[FixedCount | RangeCount | WeightedCount, Field(discriminator="kind")]


class ContextsSettings(Settings):
    """How contexts are composed from pools."""

    passages: CountSettings = FixedCount(kind="fixed", count=10)
    """How many passages a context shows. Train at the largest count you will use (arXiv 2410.05983, section 5.3)."""
    questions_per_context: Annotated[int, Field(ge=1)] = 1
    """More than 1 shares one context among questions whose gold passages are each other's hard negatives."""
    gold_probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of questions whose context shows the gold passages (P of RAFT, arXiv 2403.10131)."""
    gold_absent: Literal["abstain", "answer", "drop"] = "abstain"
    """Label of a question whose context shows no gold: decline, the gold answer all the same, or leave the question out."""
    gold_position: Literal["uniform", "first", "middle", "last"] = "uniform"
    """Where gold passages stand; used with `order: shuffled`."""
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of negatives that are hard; the rest are random passages."""
    order: Literal["shuffled", "retrieved", "reordered"] = "shuffled"
    """Order shown: shuffled, by rank, or best at both ends (arXiv 2410.05983, algorithm 2)."""
    contexts: dict[Literal["train", "validation"], Annotated[int, Field(ge=0)]] | None = None
    """Cap on composed contexts per split; null composes one pass over the questions."""
