"""Which ranked passages count as hard negatives, and the guard against false ones. Composes no context."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import Field, model_validator

from data_builders.settings import Settings
from data_builders.text import answer_tokens


class NegativesSettings(Settings):
    """Which retrieved passages may stand in a context as hard negatives."""

    rank_low: Annotated[int, Field(ge=1)] = 1
    """First rank of the window hard negatives come from."""
    rank_high: Annotated[int, Field(ge=1)] = 50
    """Last rank of the window."""
    answer_guard: bool = True
    """Leave out passages that contain an alias of the answer (normalised, token-bounded): unannotated gold."""

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> NegativesSettings:
        if self.rank_low > self.rank_high:
            raise ValueError(
                f"rank_low {self.rank_low} is above rank_high {self.rank_high}, so no rank is left: "
                f"set rank_high to {self.rank_low} or more"
            )
        return self


@dataclass(frozen=True)
class Hit:
    """A passage a retriever found for one question. `passage` is its position in the corpus, `rank` counts from 1."""

    passage: int
    retriever: str
    rank: int
    score: float
    has_answer: bool


@dataclass(frozen=True)
class HardNegatives:
    """The passages of a pool that may be shown as negatives, best first, and those the guard took out."""

    kept: tuple[int, ...]
    guarded: tuple[int, ...]


def hard_negatives(hits: Iterable[Hit], gold: Collection[int], settings: NegativesSettings) -> HardNegatives:
    """Take the ranked passages inside the rank window that are not gold; the guard removes answer-bearing ones."""
    window = [hit for hit in hits if settings.rank_low <= hit.rank <= settings.rank_high and hit.passage not in gold]
    guarded = [hit.passage for hit in window if settings.answer_guard and hit.has_answer]
    kept = [hit.passage for hit in window if not (settings.answer_guard and hit.has_answer)]
    return HardNegatives(tuple(kept), tuple(guarded))


def random_negatives(
    size: int, wanted: int, allowed: Callable[[int], bool], used: Collection[int], rng: random.Random
) -> list[int]:
    """Draw up to `wanted` distinct positions below `size` that are `allowed` and not `used`.

    Draws are bounded, so a tiny corpus yields fewer instead of looping; a small one is tried to its end.
    """
    tries = 20 * wanted + 50
    order: Sequence[int] = rng.sample(range(size), size) if size <= tries else rng.sample(range(size), tries)
    chosen: list[int] = []
    for position in order:
        if len(chosen) == wanted:
            break
        if position not in used and allowed(position):
            chosen.append(position)
    return chosen


def bears_answer(text: str, answers: Iterable[str]) -> bool:
    """Tell what `text.contains_answer` tells, faster where the same texts meet many questions."""
    joined = _joined(text)
    return any(part != "  " and part in joined for part in map(_joined, answers))


@lru_cache(maxsize=1 << 16)
def _joined(text: str) -> str:
    return f" {' '.join(answer_tokens(text))} "
