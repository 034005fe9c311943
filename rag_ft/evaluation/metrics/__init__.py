"""Answer metrics: functions from a prediction and its accepted answers to a number from 0 to 1."""

from collections.abc import Callable, Sequence

from rag_ft.evaluation.metrics.abstention import Abstention, abstention
from rag_ft.evaluation.metrics.cover import cover_accuracy, cover_raw
from rag_ft.evaluation.metrics.squad import exact_match, f1, normalize

Metric = Callable[[str, Sequence[str]], float]

METRICS: dict[str, Metric] = {
    "accuracy": cover_accuracy,
    "exact_match": exact_match,
    "f1": f1,
    "cover_raw": cover_raw,
}
"""What is reported for every cell; `accuracy` is the headline."""

__all__ = [
    "METRICS",
    "Abstention",
    "Metric",
    "abstention",
    "cover_accuracy",
    "cover_raw",
    "exact_match",
    "f1",
    "normalize",
]
