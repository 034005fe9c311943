"""What is scored: an answer with what it was read out of it and what it was shown. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass

from data_builders.records import PoolPassage
from rag_ft.evaluation.predictions import Prediction
from rag_ft.prompting.parse import Parsed


@dataclass(frozen=True)
class Case:
    """An answer to be scored.

    Attributes:
        prediction: as it is stored.
        parsed: its output taken apart, in the style it was asked for.
        shown: the passages in the order shown; citations [n] count them from 1.
        style: the style it was asked for.
    """

    prediction: Prediction
    parsed: Parsed
    shown: tuple[PoolPassage, ...]
    style: str
