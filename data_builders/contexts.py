"""From a pool to a context: how many passages, gold or not, which negatives, in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from data_builders.negatives import HardNegatives, NegativesSettings, bears_answer, hard_negatives, random_negatives
from data_builders.settings import Settings

if TYPE_CHECKING:
    from data_builders.pools import Corpus, RankedQuestion

Item = TypeVar("Item")


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

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> RangeCount:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: set high to {self.low} or more")
        return self


class WeightedCount(Settings):
    """A number of passages drawn from weighted choices."""

    kind: Literal["choices"]
    """Drawn from `weights`."""
    weights: Annotated[dict[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)]], Field(min_length=1)]
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
    """Label of a question whose context shows no gold: decline, the gold answer all the same, or leave it out."""
    gold_position: Literal["uniform", "first", "middle", "last"] = "uniform"
    """Where gold passages stand; used with `order: shuffled`."""
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of negatives that are hard; the rest are random passages."""
    order: Literal["shuffled", "retrieved", "reordered"] = "shuffled"
    """Order shown: shuffled, by rank, or best at both ends (arXiv 2410.05983, algorithm 2)."""
    contexts: dict[Literal["train", "validation"], Annotated[int, Field(ge=0)]] | None = None
    """Cap on composed contexts per split; null composes one pass over the questions."""

    @model_validator(mode="after")
    def _shared_contexts_have_no_one_gold_position(self) -> ContextsSettings:
        if self.questions_per_context > 1 and self.gold_position != "uniform":
            raise ValueError(
                f"gold_position {self.gold_position} cannot hold with questions_per_context "
                f"{self.questions_per_context}, where the gold of one question is a negative of the others: "
                "set gold_position to uniform or questions_per_context to 1"
            )
        return self


@dataclass(frozen=True)
class Composition:
    """The passages of one context, as positions in the corpus, in the order shown.

    Attributes:
        passages: what is shown.
        with_gold: whether all gold passages of the question are shown; otherwise none is.
        wanted: how many passages were drawn; fewer are shown when the corpus has too few negatives.
        hard: how many of the shown negatives are hard.
        guarded: retrieved passages the guard took out.
    """

    passages: tuple[int, ...]
    with_gold: bool
    wanted: int
    hard: int
    guarded: tuple[int, ...]


def compose(
    question: RankedQuestion,
    corpus: Corpus,
    settings: ContextsSettings,
    negatives: NegativesSettings,
    rng: random.Random,
) -> Composition:
    """Compose the context of one question: a pure function of its arguments and the state of `rng`.

    With probability `gold_probability` every gold passage is shown, even when fewer places were drawn; otherwise none
    is, and with the guard no shown passage contains an alias of the answer.
    """
    wanted = draw_count(settings.passages, rng)
    with_gold = rng.random() < settings.gold_probability
    gold = question.gold if with_gold else ()
    wanted = max(wanted, len(gold))
    found = hard_negatives(question.hits, question.gold, negatives)
    chosen = choose_negatives(question, found, wanted - len(gold), (corpus, settings, negatives), rng)
    shown = arrange(question, gold, chosen, settings, rng)
    hard = len(set(chosen) & set(found.kept))
    return Composition(tuple(shown), with_gold, wanted, hard, found.guarded)


def draw_count(settings: FixedCount | RangeCount | WeightedCount, rng: random.Random) -> int:
    """Draw how many passages a context shows."""
    if isinstance(settings, FixedCount):
        return settings.count
    if isinstance(settings, RangeCount):
        return rng.randint(settings.low, settings.high)
    counts = sorted(settings.weights)
    return rng.choices(counts, [settings.weights[count] for count in counts])[0]


def choose_negatives(
    question: RankedQuestion,
    found: HardNegatives,
    wanted: int,
    frame: tuple[Corpus, ContextsSettings, NegativesSettings],
    rng: random.Random,
) -> list[int]:
    """Choose `wanted` negatives: the best-ranked hard ones up to `hard_share`, the rest at random.

    Too few hard ones are made up for by random ones, unless `hard_share` is 1; then the context is smaller.
    """
    corpus, settings, negatives = frame
    share = int(wanted * settings.hard_share + rng.random())  # a fraction of a passage becomes a chance of one
    hard = list(found.kept[:share])
    if settings.hard_share == 1:
        return hard
    used = {*hard, *question.gold}
    allowed = _allowed(question, corpus, negatives)
    return hard + random_negatives(len(corpus), wanted - len(hard), allowed, used, rng)


def _allowed(question: RankedQuestion, corpus: Corpus, negatives: NegativesSettings) -> Callable[[int], bool]:
    if not negatives.answer_guard:
        return lambda position: True
    return lambda position: not bears_answer(corpus.text(position), question.answers)


def arrange(
    question: RankedQuestion,
    gold: Sequence[int],
    negatives: Sequence[int],
    settings: ContextsSettings,
    rng: random.Random,
) -> list[int]:
    """Put gold passages and negatives into the order shown, as `order` and `gold_position` say."""
    if settings.order == "shuffled":
        return _shuffled(gold, negatives, settings.gold_position, rng)
    ranked = by_rank(question, [*gold, *negatives])
    return reordered(ranked) if settings.order == "reordered" else ranked


def _shuffled(gold: Sequence[int], negatives: Sequence[int], where: str, rng: random.Random) -> list[int]:
    around = rng.sample(negatives, len(negatives))
    golds = rng.sample(gold, len(gold))
    if where == "uniform":
        return rng.sample([*golds, *around], len(golds) + len(around))
    before = {"first": 0, "middle": (len(around) + 1) // 2, "last": len(around)}[where]
    return [*around[:before], *golds, *around[before:]]


def by_rank(question: RankedQuestion, passages: Sequence[int]) -> list[int]:
    """Sort passages as retrieval ranked them for the question; those it did not find stay last, in the order given."""
    place = {hit.passage: number for number, hit in enumerate(question.hits)}
    return sorted(passages, key=lambda passage: place.get(passage, len(place)))


def reordered(items: Sequence[Item]) -> list[Item]:
    """Put the best-ranked items at both ends (arXiv 2410.05983, algorithm 2).

    Rank i goes to slot (i+1)/2 when odd and to slot k+1-i/2 when even: d1 d3 d4 d2 for k=4, d1 d3 d5 d4 d2 for k=5.
    """
    return [*items[0::2], *reversed(items[1::2])]
