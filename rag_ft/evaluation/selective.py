"""Accuracy against coverage: what a system would be right about if it answered only what it is surest of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rag_ft.evaluation.answers import Point, Scored
from rag_ft.evaluation.statistics import Floats

_SHOWN = 40  # points of a curve at most


def curves(points: Mapping[Point, Mapping[str, Scored]]) -> list[dict[str, Any]]:
    """Return the curve of every cell of the main sweep and the references whose engine told how sure it was."""
    rows = []
    for point, by_id in points.items():
        answers = [by_id[id_] for id_ in sorted(by_id)]
        if not point.variant and (accuracy := accuracy_by_coverage(answers)) is not None:
            passages = max(answer.case.prediction.passages for answer in answers)
            place = {"system": point.system, "gold": point.gold, "passages": passages, "group": "all", "variant": ""}
            rows.append({**place, "points": _thinned(accuracy, len(answers)), "aurc": round(aurc(accuracy), 6)})
    return rows


def accuracy_by_coverage(answers: Sequence[Scored]) -> Floats | None:
    """Return the accuracy of the 1, 2, 3 ... surest answers (El-Yaniv and Wiener 2010, J. Mach. Learn. Res. 11).

    What was declined or failed is never covered. Equally sure answers come in together: each counts as their mean.
    None where no answer has a confidence.
    """
    told = [
        (answer.case.prediction.confidence, answer.accuracy)
        for answer in answers
        if answer.case.prediction.confidence is not None
        and answer.case.prediction.failure is None
        and not answer.abstained
    ]
    if not told:
        return None
    sure, right = (np.array(values, dtype=np.float64) for values in zip(*told, strict=True))
    _, which, alike = np.unique(-sure, return_inverse=True, return_counts=True)
    means = np.bincount(which, weights=right) / alike
    return np.cumsum(np.repeat(means, alike)) / np.arange(1, len(sure) + 1)


def aurc(accuracy: Floats) -> float:
    """Return the area under risk and coverage: mean share of wrong answers over all coverages reached (Geifman 2019).

    Geifman, Uziel and El-Yaniv (arXiv 1805.08206), equation for the empirical AURC. Lower is better.
    """
    return float(np.mean(1 - accuracy))


def _thinned(accuracy: Floats, questions: int) -> list[list[float]]:
    """Return [coverage, accuracy] pairs; coverage is of all questions, so it ends where the system declines."""
    step = max(1, -(-len(accuracy) // _SHOWN))
    kept = sorted({*range(step - 1, len(accuracy), step), len(accuracy) - 1})
    return [[round((place + 1) / questions, 4), round(float(accuracy[place]), 4)] for place in kept]
