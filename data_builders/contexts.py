"""From a pool to a context: how many passages, gold or not, which negatives, in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from data_builders.hits import Hit
from data_builders.mixing import mixed, quotas
from data_builders.negatives import (
    KINDS,
    HardNegatives,
    Kind,
    Negative,
    NegativesSettings,
    Preference,
    bears,
    hard_negatives,
    other_negatives,
    pick_low,
    pick_top,
    random_negatives,
)
from data_builders.passage_counts import (
    CountSettings,
    FixedCount,
    TokenCount,
    draw_count,
    estimated_tokens,
    largest_count,
    within_budget,
)
from data_builders.settings import Settings
from data_builders.text import AnswerMatcher

if TYPE_CHECKING:
    from data_builders.ranked import RankedQuestion, Split
    from data_builders.records import Question

Item = TypeVar("Item")


class GoldIndex(Settings):
    """One place for the gold passages."""

    index: Annotated[int, Field(ge=0)]
    """Passages before the first gold one, as in the sweeps of Lost in the Middle; in a smaller context gold is last."""

    def __str__(self) -> str:
        return f"{{index: {self.index}}}"


class ContextsSettings(Settings):
    """How contexts are composed from pools."""

    passages: CountSettings = FixedCount(kind="fixed", count=10)
    """How many passages a context shows. Train at the largest count you will use (arXiv 2410.05983, section 5.3)."""
    questions_per_context: Annotated[int, Field(ge=1)] = 1
    """More than 1 shares one context among questions whose gold passages are each other's hard negatives."""
    own_negatives: Annotated[int, Field(ge=0)] = 1
    """Hard negatives of its own pool that a question must find in a shared context to join it, as far as it has any.

    Raise it for harder contexts of fewer questions each; 0 lets questions in that have none.
    """
    gold_probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Share of answerable questions whose context shows all their gold passages (P of RAFT, arXiv 2403.10131)."""
    gold_partial: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the contexts without all gold passages, the share that shows some, for questions with several (multi-hop).

    Only gold passages without the answer are shown then, and the question counts as unanswerable: it teaches not to
    jump from half of the evidence. Otherwise all gold passages stand there, or none.
    """
    gold_absent: Literal["abstain", "answer", "drop"] = "abstain"
    """Label of a question whose context shows no gold: decline, the gold answer all the same, or leave it out."""
    gold_position: Literal["uniform", "first", "middle", "last"] | GoldIndex = "uniform"
    """Where gold passages stand; used with `order: shuffled`. `{index: 3}` puts three passages before them."""
    order: Literal["shuffled", "retrieved", "reordered"] = "shuffled"
    """Order shown: shuffled, by rank, or best at both ends (arXiv 2410.05983, algorithm 2)."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Training contexts composed of each question, each with new draws, where `contexts` sets no cap.

    More of them vary counts, negatives and positions; training.epochs shows the same contexts again.
    """
    contexts: dict[Literal["train", "validation"], Annotated[int, Field(ge=0)]] | None = None
    """Cap on composed contexts per split; null composes `epochs` passes over the questions."""

    @model_validator(mode="after")
    def _shared_contexts_have_no_gold_of_their_own(self) -> ContextsSettings:
        if self.questions_per_context == 1:
            return self
        for name, needed in (("gold_position", "uniform"), ("gold_partial", 0.0)):
            value = getattr(self, name)
            if value != needed:
                raise ValueError(
                    f"{name} {value} cannot hold with questions_per_context {self.questions_per_context}, where the "
                    f"gold of one question is a negative of the others: set {name} to {needed} or "
                    "questions_per_context to 1"
                )
        return self

    @model_validator(mode="after")
    def _gold_index_is_inside(self) -> ContextsSettings:
        most = largest_count(self.passages)
        if isinstance(self.gold_position, GoldIndex) and self.gold_position.index >= most:
            raise ValueError(
                f"gold_position {self.gold_position} lies outside contexts of at most {most} "
                f"passages: set index to {most - 1} or less"
            )
        return self

    @model_validator(mode="after")
    def _epochs_or_a_cap(self) -> ContextsSettings:
        if self.epochs > 1 and self.contexts and "train" in self.contexts:
            raise ValueError(
                f"epochs {self.epochs} and contexts {{train: {self.contexts['train']}}} both say how many contexts are "
                "composed: set epochs to 1 or remove the cap"
            )
        return self


@dataclass(frozen=True)
class Plan:
    """What composing a split's contexts depends on.

    Attributes:
        cap: contexts composed; None makes the passes that `contexts.epochs` asks for.
        weights: data set -> share of the contexts, or None for every question once; needed with several data sets.
        answer_guard: whether passages from outside a question's pool are kept out if they bear its answer.
        training: whether the rows are trained on; others get one pass and the end of a curriculum.
    """

    contexts: ContextsSettings
    negatives: NegativesSettings
    seed: int
    cap: int | None
    weights: Mapping[str, float | None] = field(default_factory=dict)
    answer_guard: bool = True
    training: bool = True


@dataclass(frozen=True)
class Case:
    """One question with all that composing needs of it, read once."""

    row: int
    question: Question
    ranked: RankedQuestion
    matcher: AnswerMatcher

    @classmethod
    def of(cls, split: Split, row: int) -> Case:
        """Read the question at a row of a split."""
        question = split.question(row)
        return cls(row, question, split.ranked(row), AnswerMatcher.of(question.answers, question.question))


@dataclass(frozen=True)
class Composition:
    """The passages of one context, as positions in the corpus, in the order shown.

    Attributes:
        passages: what is shown.
        gold: those of them that are gold: all gold passages of the question, or none, or some (`gold_partial`).
        wanted: how many passages were drawn; fewer are shown when there are too few negatives.
        negatives: those of them that are not gold, and what each was chosen as.
        guarded: hits inside the window that the guard keeps out.
        over_budget: whether gold alone takes more tokens than the context should.
    """

    passages: tuple[int, ...]
    gold: tuple[int, ...]
    wanted: int
    negatives: tuple[Negative, ...]
    guarded: tuple[Hit, ...]
    over_budget: bool = False


def compose(split: Split, case: Case, plan: Plan, rng: random.Random, progress: float = 1.0) -> Composition:
    """Compose the context of one question: a pure function of its arguments and the state of `rng`.

    With probability `gold_probability` every gold passage is shown, even when fewer places were drawn; otherwise none
    or some, and with the guard no shown passage bears the answer.
    """
    wanted = draw_count(plan.contexts.passages, rng, progress)
    with_gold = rng.random() < plan.contexts.gold_probability
    gold = case.ranked.gold if with_gold else _part_of_gold(split, case, plan, rng)
    return fill(split, case, (gold, wanted), plan, rng)


def fill(
    split: Split,
    case: Case,
    frame: tuple[tuple[int, ...], int],
    plan: Plan,
    rng: random.Random,
    prefer: Preference | None = None,
) -> Composition:
    """Put negatives beside a question's gold passages and bring all into the order shown.

    Args:
        split: where passages from outside the pool come from.
        case: the question.
        frame: the gold passages shown, and how many passages were drawn.
        plan: the settings.
        rng: the context's own generator.
        prefer: tells which hard and random negatives are taken before others.
    """
    settings, ranked, gold = plan.contexts, case.ranked, frame[0]
    wanted = max(frame[1], len(gold))
    found = hard_negatives(ranked.hits, ranked.gold, plan.negatives)
    chosen = choose_negatives(split, case, found, wanted - len(gold), plan, rng, prefer)
    over_budget = False
    if isinstance(settings.passages, TokenCount):
        over_budget = sum(estimated_tokens(split.corpus.text(one)) for one in gold) > settings.passages.budget
        fitting = _fitting(chosen, gold, settings.passages.budget, split.corpus.text)
        wanted = wanted if len(fitting) == len(chosen) else len(gold) + len(fitting)
        chosen = fitting
    shown = arrange(ranked, gold, [one.passage for one in chosen], settings, rng)
    return Composition(tuple(shown), gold, wanted, tuple(chosen), found.guarded, over_budget)


def _part_of_gold(split: Split, case: Case, plan: Plan, rng: random.Random) -> tuple[int, ...]:
    gold = case.ranked.gold
    if len(gold) < 2 or not plan.contexts.gold_partial or rng.random() >= plan.contexts.gold_partial:
        return ()
    safe = [one for one in gold if not (plan.answer_guard and bears(split.corpus, one, case.matcher))]
    return tuple(rng.sample(safe, rng.randint(1, min(len(safe), len(gold) - 1)))) if safe else ()


def _fitting(
    chosen: Sequence[Negative], gold: Sequence[int], budget: int, text: Callable[[int], str]
) -> list[Negative]:
    """Return the negatives that fit the budget, their kinds in the shares they were chosen in."""
    kinds = [[one for one in chosen if one.kind == kind] for kind in KINDS]
    order = list(mixed((len(part), part) for part in kinds if part))
    return order[: len(within_budget(gold, [one.passage for one in order], budget, text))]


def choose_negatives(
    split: Split,
    case: Case,
    found: HardNegatives,
    wanted: int,
    plan: Plan,
    rng: random.Random,
    prefer: Preference | None = None,
) -> list[Negative]:
    """Choose up to `wanted` negatives, of each kind its share; what one kind lacks the next ones make up.

    Args:
        split: where passages from outside the pool come from.
        case: the question; none of its gold passages is chosen.
        found: its hard negatives.
        wanted: how many to choose.
        plan: shares and guard.
        rng: the context's own generator.
        prefer: tells which hard and random negatives are taken before others.
    """
    settings = plan.negatives
    places = quotas(wanted, {kind: settings.shares[kind] for kind in KINDS if settings.shares.get(kind)}, rng)
    low = pick_low(found.kept, places.get("low", 0), settings, rng)
    rest = _without(found.kept, low)
    chosen = pick_top(rest, places.get("top", 0), settings, rng, prefer) + low
    lacking = places.get("top", 0) + places.get("low", 0) - len(chosen)
    for kind in ("other", "random"):
        if kind in places:
            drawn = _outside(kind, split, case, places[kind] + lacking, chosen, plan, rng, prefer)
            lacking += places[kind] - len(drawn)
            chosen += drawn
    if lacking and "top" in places:
        chosen += pick_top(_without(rest, chosen), lacking, settings, rng, prefer)
    return chosen


def _without(hits: Sequence[Hit], chosen: Sequence[Negative]) -> list[Hit]:
    taken = {one.passage for one in chosen}
    return [hit for hit in hits if hit.passage not in taken]


def _outside(
    kind: Kind,
    split: Split,
    case: Case,
    wanted: int,
    chosen: Sequence[Negative],
    plan: Plan,
    rng: random.Random,
    prefer: Preference | None,
) -> list[Negative]:
    """Draw negatives from outside the question's pool."""
    allowed, used = allowed_beside(split, case, plan), {*(one.passage for one in chosen), *case.ranked.gold}
    if kind == "other":
        drawn = other_negatives(split, case.row, wanted, allowed, used, rng)
    else:
        drawn = random_negatives(len(split.corpus), wanted, allowed, used, rng, prefer)
    return [Negative(position, kind) for position in drawn]


def allowed_beside(split: Split, case: Case, plan: Plan) -> Callable[[int], bool]:
    """Return the guard over any passage that is not the question's gold: its pool was judged, the rest is read here."""
    verdicts = {hit.passage: hit.guard for hit in case.ranked.hits}
    alternatives = set(case.question.alternatives)

    def allowed(position: int) -> bool:
        verdict = verdicts.get(position)
        if verdict is not None:
            return not verdict
        if alternatives and split.corpus.id(position) in alternatives:
            return False
        return not (plan.answer_guard and bears(split.corpus, position, case.matcher))

    return allowed


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


def _shuffled(gold: Sequence[int], negatives: Sequence[int], where: str | GoldIndex, rng: random.Random) -> list[int]:
    around = rng.sample(negatives, len(negatives))
    golds = rng.sample(gold, len(gold))
    if where == "uniform":
        return rng.sample([*golds, *around], len(golds) + len(around))
    if isinstance(where, GoldIndex):
        before = where.index
    else:
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
