"""Which passages stand in a context as negatives: what counts as one, and the choice. Puts none in order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from data_builders.hits import Hit
from data_builders.mixing import quotas
from data_builders.remembered import Remembered
from data_builders.settings import Settings
from data_builders.text import AnswerMatcher, joined

if TYPE_CHECKING:
    from data_builders.corpus import Corpus
    from data_builders.ranked import Split

Preference = Callable[[int], bool]
Kind = Literal["top", "low", "other", "random"]
KINDS: tuple[Kind, ...] = ("top", "low", "other", "random")  # what one kind lacks, the next ones make up


class NegativesSettings(Settings):
    """Which passages stand in a context beside its gold."""

    rank_low: Annotated[int, Field(ge=1)] = 1
    """First rank of the window of hard negatives. Raise it where the first ranks are often unannotated gold."""
    rank_high: Annotated[int, Field(ge=1)] = 50
    """Last rank of the window. Lower it to keep to the hardest."""
    shares: dict[Kind, Annotated[float, Field(ge=0)]] = {"top": 0.8, "random": 0.2}
    """Mix of negatives, relative: `top` of the window, `low` ranks of it, tops of `other` questions, `random` passages.

    A kind that is not named has no share and is never shown. What one kind lacks is made up by those after it in this
    order, then by `top`; where none of them has any left the context is smaller, and counted. RetRobust
    (arXiv 2310.01558) trains on top, low and other in equal parts.
    """
    low_from: Annotated[int, Field(ge=1)] = 9
    """First rank of the window's low part, which `low` draws from."""
    top_pick: Literal["best", "sample"] = "best"
    """The best-ranked, or drawn with weight 1/place in the window, so that further epochs meet other hard negatives."""
    retriever_shares: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    """Retriever name -> share of the `top` negatives, relative; null takes the merged ranking as it is.

    A passage that several retrievers found counts for the one that is served when it is taken. The window then holds
    for each retriever's own ranks, and retrievers that are not named serve none.
    """

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> NegativesSettings:
        if self.rank_low > self.rank_high:
            raise ValueError(
                f"rank_low {self.rank_low} is above rank_high {self.rank_high}, so no rank is left: "
                f"set rank_high to {self.rank_low} or more"
            )
        return self

    @model_validator(mode="after")
    def _some_kind_has_a_share(self) -> NegativesSettings:
        if not sum(self.shares.values()):
            raise ValueError("shares gives no kind a share, so no negative could be chosen: write for example {top: 1}")
        return self

    @model_validator(mode="after")
    def _low_part_is_in_the_window(self) -> NegativesSettings:
        if self.shares.get("low") and self.low_from > self.rank_high:
            raise ValueError(
                f"low_from {self.low_from} is above rank_high {self.rank_high}, so the window has no low part: "
                f"set low_from to {self.rank_high} or less"
            )
        return self


@dataclass(frozen=True)
class HardNegatives:
    """The hits of a pool that may be shown as negatives, best first, and those the guard took out."""

    kept: tuple[Hit, ...]
    guarded: tuple[Hit, ...]


def hard_negatives(hits: Iterable[Hit], gold: Collection[int], settings: NegativesSettings) -> HardNegatives:
    """Take the hits inside the rank window that are not gold; those with a guard are set apart."""
    names = settings.retriever_shares
    window = [hit for hit in hits if hit.passage not in gold and hit.guard != "gold" and _inside(hit, settings, names)]
    return HardNegatives(tuple(hit for hit in window if not hit.guard), tuple(hit for hit in window if hit.guard))


def _inside(hit: Hit, settings: NegativesSettings, names: Iterable[str] | None) -> bool:
    if names is None:
        return _in_window(hit.rank, settings)
    return any(_in_window(rank, settings) for name in names if (rank := hit.rank_of(name)) is not None)


def _in_window(rank: int, settings: NegativesSettings) -> bool:
    return settings.rank_low <= rank <= settings.rank_high


class Negative(NamedTuple):
    """A chosen negative, what kind it was chosen as, and for a `top` one the retriever it counts for."""

    passage: int
    kind: Kind
    retriever: str = ""


def pick_top(
    kept: Sequence[Hit],
    wanted: int,
    settings: NegativesSettings,
    rng: random.Random,
    prefer: Preference | None = None,
) -> list[Negative]:
    """Pick up to `wanted` hard negatives, best first or sampled; those that `prefer` names go before all others."""
    shares = settings.retriever_shares
    if shares is None:
        order = _in_order(kept, settings, rng, prefer)
        return [Negative(hit.passage, "top", hit.retriever) for hit in order[:wanted]]
    places = quotas(wanted, shares, rng)
    queues = {name: deque(_in_order(_found_by(kept, name, settings), settings, rng, prefer)) for name in shares}
    chosen: dict[int, str] = {}
    while len(chosen) < wanted and any(queues.values()):
        name = max((name for name in queues if queues[name]), key=lambda name: places[name])  # the one most short
        hit = queues[name].popleft()
        if hit.passage not in chosen:
            chosen[hit.passage] = name
            places[name] -= 1
    return [Negative(passage, "top", name) for passage, name in chosen.items()]


def _found_by(kept: Iterable[Hit], name: str, settings: NegativesSettings) -> list[Hit]:
    own = [(rank, place, hit) for place, hit in enumerate(kept) if (rank := hit.rank_of(name)) is not None]
    return [hit for rank, _, hit in sorted(own, key=lambda entry: entry[:2]) if _in_window(rank, settings)]


def _in_order(
    hits: Sequence[Hit], settings: NegativesSettings, rng: random.Random, prefer: Preference | None
) -> list[Hit]:
    order = list(hits)
    if settings.top_pick == "sample":  # Efraimidis and Spirakis 2006: the keys u^(1/weight) of a weighted draw
        keys = {hit.passage: rng.random() ** place for place, hit in enumerate(order, start=1)}
        order.sort(key=lambda hit: -keys[hit.passage])
    return sorted(order, key=lambda hit: not prefer(hit.passage)) if prefer else order


def pick_low(kept: Sequence[Hit], wanted: int, settings: NegativesSettings, rng: random.Random) -> list[Negative]:
    """Draw up to `wanted` hits of the window's low part."""
    low = [hit.passage for hit in kept if hit.rank >= settings.low_from]
    return [Negative(passage, "low") for passage in rng.sample(low, min(wanted, len(low)))]


def random_negatives(
    size: int,
    wanted: int,
    allowed: Callable[[int], bool],
    used: Collection[int],
    rng: random.Random,
    prefer: Preference | None = None,
) -> list[int]:
    """Draw up to `wanted` distinct positions below `size` that are `allowed` and not `used`.

    Draws are bounded, so a tiny corpus yields fewer instead of looping; a small one is tried to its end. Of what was
    drawn, that which `prefer` names comes first.
    """
    chosen: list[int] = []
    drawn = rng.sample(range(size), min(size, _tries(wanted)))
    for position in sorted(drawn, key=lambda one: not prefer(one)) if prefer else drawn:
        if len(chosen) == wanted:
            break
        if position not in used and allowed(position):
            chosen.append(position)
    return chosen


def other_negatives(
    split: Split, row: int, wanted: int, allowed: Callable[[int], bool], used: Collection[int], rng: random.Random
) -> list[int]:
    """Draw questions other than `row` and take the passage retrieved first for each, up to `wanted` of them."""
    chosen: list[int] = []
    for other in rng.sample(range(len(split)), min(len(split), _tries(wanted))) if wanted else ():
        if len(chosen) == wanted:
            break
        top = split.pool_passages(other, 1) if other != row else ()
        chosen += [passage for passage in top if passage not in {*used, *chosen} and allowed(passage)]
    return chosen


def _tries(wanted: int) -> int:
    return 20 * wanted + 50


def bears(corpus: Corpus, position: int, matcher: AnswerMatcher) -> bool:
    """Tell whether the passage at a position bears an answer, as the guard of the pools step would."""
    return matcher.bears(_joined((corpus, position)))


def _form(place: tuple[Corpus, int]) -> str:
    corpus, position = place
    return joined(corpus.text(position))


_joined = Remembered(_form, 1 << 25)  # bytes, as many as the guard of the pools step keeps
