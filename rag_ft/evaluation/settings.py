"""What a recipe may say about evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings
from rag_ft.prompting.settings import Style

_LONGEST_OUTPUT: dict[Style, int] = {"answer": 48, "reasoning": 256, "self_reasoning": 1024}


class SystemSettings(Settings):
    """What is evaluated: weights and a strategy."""

    name: str
    """How the report calls it."""
    weights: Literal["base", "tuned"]
    """The recipe's starting weights, or those with the trained adapter."""
    strategy: Literal["concatenate", "reorder"] = "concatenate"
    """How ranked passages are shown: by rank, or best at both ends."""


class EvaluationSettings(Settings):
    """Accuracy as passages are added, against baselines, paired, with confidence intervals."""

    questions: Annotated[int, Field(ge=1)] | None = None
    """Questions of the test split; null takes all."""
    passages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 5, 10)
    """Passage counts of the sweep."""
    gold: Annotated[tuple[Literal["kept", "retrieved"], ...], Field(min_length=1)] = ("kept", "retrieved")
    """`retrieved`: the top passages as they are. `kept`: the same, but missing gold takes the last places."""
    systems: Annotated[tuple[SystemSettings, ...], Field(min_length=1)] = (
        SystemSettings(name="base", weights="base"),
        SystemSettings(name="base + reordering", weights="base", strategy="reorder"),
        SystemSettings(name="tuned", weights="tuned"),
    )
    """What is compared."""
    references: tuple[Literal["closed_book", "gold_only"], ...] = ("closed_book", "gold_only")
    """Single points: no passage, and the gold passages alone."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest output in tokens; null takes 48 for style answer, 256 for reasoning, 1024 for self_reasoning."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Questions per forward pass; each brings its whole sweep."""
    prefix_sharing: bool = True
    """Encode what the prompts of a sweep share only once; off generates each prompt separately."""
    allow_prompt_mismatch: bool = False
    """Evaluate an adapter under another prompt than it was trained with."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of the intervals."""
    resamples: Annotated[int, Field(ge=100)] = 5000
    """Bootstrap resamples."""

    def longest_output(self, style: Style) -> int:
        """Return the most tokens a system may write in a style."""
        return self.max_new_tokens or _LONGEST_OUTPUT[style]
