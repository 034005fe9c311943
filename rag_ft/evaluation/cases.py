"""What is scored: an answer with what it was read out of it and what it was shown. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_builders.records import PoolPassage
from rag_ft.evaluation.predictions import Prediction
from rag_ft.prompting.parse import Parsed


@dataclass(frozen=True)
class Case:
    """An answer to be scored.

    Attributes:
        prediction: as it is stored.
        parsed: its output taken apart, in the style it was asked for.
        shown: the passages of the prompt that was answered, in their order; citations [n] count them from 1.
        style: the style it was asked for; `answer` wherever no passage was shown.
        apart: each passage had a prompt of its own, in which it was [1]: numbers name none of those shown.
        measured: metrics that a model had to be asked for, by name; without a metric that was not, or does not apply.
    """

    prediction: Prediction
    parsed: Parsed
    shown: tuple[PoolPassage, ...]
    style: str
    measured: Mapping[str, float | None] = field(default_factory=dict)
    apart: bool = False

    @property
    def names_passages(self) -> bool:
        """Whether numbers in the output name passages: a reasoned style over passages that stood in one prompt."""
        return self.style != "answer" and bool(self.shown) and not self.apart

    @property
    def may_decline(self) -> bool:
        """Whether declining it says anything: it was asked, and not without passages, where no prompt offers to."""
        return self.prediction.failure is None and self.prediction.gold != "closed_book"
