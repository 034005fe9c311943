"""Cover accuracy: is an accepted answer in the text? At token borders, and as a raw substring for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from data_builders.text import contains_answer
from rag_ft.evaluation.metrics.squad import normalize


def cover_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if an accepted answer stands in the prediction as whole tokens, else 0.0."""
    return float(contains_answer(prediction, answers))


def cover_raw(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if a normalised answer is a substring of the normalised prediction, else 0.0.

    The usual "accuracy" or "sub-EM" of papers. It takes "4" for found in "1945" and "us" in "museum". An answer that
    normalises to nothing is in no text here; elsewhere it is in every text.
    """
    text = normalize(prediction)
    return float(any(gold in text for gold in map(normalize, answers) if gold))
