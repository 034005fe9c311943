"""What a system would be right about, and what it would invent, if it answered only what it is surest of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rag_ft.evaluation.answers import Point, Scored
from rag_ft.evaluation.statistics import Floats

_SHOWN = 40  # points of a curve at most
OVER_REFUSAL = 0.1
"""How much of what can be answered a threshold of confidence may turn away."""


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


def thresholds(points: Mapping[Point, Mapping[str, Scored]]) -> list[dict[str, Any]]:
    """Return what every system would invent if it declined whatever it is less sure of than a threshold.

    The threshold is the highest that turns away at most a share OVER_REFUSAL of the questions whose evidence is shown
    (gold kept); the rate is of those whose evidence is missing (gold absent) at the same count. It is the false
    positive rate at a true positive rate of 0.9. Systems whose own abstentions turn away more, and engines that tell
    no confidence, have no row.
    """
    rows = []
    for point, by_id in points.items():
        absent = points.get(Point(point.system, "absent", "", point.passages))
        if (point.gold, point.variant) != ("kept", "") or absent is None:
            continue
        shown = [_sureness(answer) for answer in by_id.values() if answer.case.prediction.answerable]
        missing = [_sureness(answer) for answer in absent.values() if not answer.case.prediction.answerable]
        if shown and missing and (bound := _bound(shown)) is not None:
            invented = sum(sure >= bound for sure in missing) / len(missing)
            place = {"system": point.system, "passages": point.passages, "group": "all", "confidence": round(bound, 6)}
            refused = sum(sure < bound for sure in shown) / len(shown)
            rows.append({**place, "over_refusal": round(refused, 6), "hallucination_rate": round(invented, 6)})
    return rows


def _sureness(answer: Scored) -> float:
    """Return how sure an answer is; what was declined, failed or came without a confidence is never kept."""
    row = answer.case.prediction
    told = row.confidence is not None and row.failure is None and not answer.abstained
    return float(row.confidence) if told and row.confidence is not None else -np.inf


def _bound(shown: Sequence[float]) -> float | None:
    """Return the highest confidence below which lie at most OVER_REFUSAL of the answers; None where none does."""
    allowed = int(OVER_REFUSAL * len(shown) + 1e-9)
    bound = sorted(shown)[allowed]
    return None if bound == -np.inf else bound


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
