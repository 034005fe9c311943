"""How many passages a context shows: settings and the draw. Chooses no passage."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_builders.settings import Settings

# Letters that are written without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han, Hangul.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
_TOKENS_PER_WORD = 1.3


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


class TokenCount(Settings):
    """As many passages as fit a token budget."""

    kind: Literal["tokens"]
    """Fills `budget`."""
    budget: Annotated[int, Field(ge=1)]
    """Tokens of all passages, estimated without a tokenizer: 1.3 a word, 1 a letter of Chinese, Korean and the like.

    Negatives are added until the next one does not fit; gold passages stay even where they alone take more. Leave room
    for question and target below `training.max_length`.
    """
    most: Annotated[int, Field(ge=1)] = 40
    """Most passages, however short they are."""


class CurriculumCount(Settings):
    """A number of passages that grows while training goes on; rows are trained in the order they are written."""

    kind: Literal["curriculum"]
    """From `start` to `end`, each count in between for an equal share of the training contexts."""
    start: Annotated[int, Field(ge=1)]
    """Passages of the first contexts."""
    end: Annotated[int, Field(ge=1)]
    """Passages of the last contexts, and of all validation contexts."""
    low: Annotated[int, Field(ge=1)] | None = None
    """Draw from `low` up to the count of the moment, so that short contexts stay in mind; null takes that count."""

    @model_validator(mode="after")
    def _low_is_below_both(self) -> CurriculumCount:
        least = min(self.start, self.end)
        if self.low is not None and self.low > least:
            raise ValueError(
                f"low {self.low} is above the curriculum's smallest count {least}: set low to {least} or less"
            )
        return self


CountSettings = Annotated[
    FixedCount | RangeCount | WeightedCount | TokenCount | CurriculumCount, Field(discriminator="kind")
]
AnyCount = FixedCount | RangeCount | WeightedCount | TokenCount | CurriculumCount


def draw_count(settings: AnyCount, rng: random.Random, progress: float = 1.0) -> int:
    """Draw how many passages a context shows; for a token budget, how many it shows at most.

    Args:
        settings: how counts are drawn.
        rng: the context's own generator.
        progress: how far training is when it meets this context, 0 to 1; only a curriculum looks at it.
    """
    if isinstance(settings, FixedCount):
        return settings.count
    if isinstance(settings, RangeCount):
        return rng.randint(settings.low, settings.high)
    if isinstance(settings, TokenCount):
        return settings.most
    if isinstance(settings, CurriculumCount):
        now = _count_now(settings, progress)
        return now if settings.low is None else rng.randint(settings.low, now)
    counts = sorted(settings.weights)
    return rng.choices(counts, [settings.weights[count] for count in counts])[0]


def _count_now(settings: CurriculumCount, progress: float) -> int:
    steps = abs(settings.end - settings.start)
    step = min(int(progress * (steps + 1)), steps)
    return settings.start + (step if settings.end >= settings.start else -step)


def largest_count(settings: AnyCount) -> int:
    """Return the most passages that a context may be drawn to show."""
    if isinstance(settings, FixedCount):
        return settings.count
    if isinstance(settings, RangeCount):
        return settings.high
    if isinstance(settings, TokenCount):
        return settings.most
    return max(settings.start, settings.end) if isinstance(settings, CurriculumCount) else max(settings.weights)


def estimated_tokens(text: str) -> int:
    """Estimate a text's tokens without a tokenizer: 1.3 a word, and 1 a letter of scripts without spaces or of Hangul.

    Tokenizers of 100,000 entries and more need about that; small or English-only ones need more for other languages.
    """
    spaced, letters = _UNSPACED.subn(" ", text)
    return letters + math.ceil(_TOKENS_PER_WORD * len(spaced.split()))


def within_budget(
    gold: Sequence[int], negatives: Sequence[int], budget: int, text: Callable[[int], str]
) -> tuple[int, ...]:
    """Return the first of `negatives` that fit `budget` tokens beside `gold`, up to the first that does not."""
    left = budget - sum(estimated_tokens(text(passage)) for passage in gold)
    fitting = []
    for passage in negatives:
        left -= estimated_tokens(text(passage))
        if left < 0:
            break
        fitting.append(passage)
    return tuple(fitting)
