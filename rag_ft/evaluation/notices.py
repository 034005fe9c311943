"""What an evaluation says beside its numbers: what is left out, what so many questions can show, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.conditions import REFERENCES, conditions
from rag_ft.evaluation.grid import Omission, Point, takes
from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.evaluation.statistics import detectable_difference

_FEW_DOCUMENTS = 20


def about_orders(settings: EvaluationSettings) -> list[str]:
    """Say which systems a condition means nothing to."""
    wanted = conditions(settings)
    deaf = [one.name for one in settings.systems if not all(takes(one, condition) for condition in wanted)]
    if not deaf:
        return []
    return [f"evaluate: {', '.join(deaf)}: no positions and orders, since their strategy arranges passages itself"]


def about_omitted(omitted: Sequence[Omission], questions: int) -> list[str]:
    """Count the points that some questions cannot give, by reason."""
    lines = []
    for reason in dict.fromkeys(one.reason for one in omitted):
        same = [one for one in omitted if one.reason == reason]
        where = list(dict.fromkeys(f"{one.condition.gold} {one.condition.variant}".strip() for one in same))
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        asked = len({one.pool.id for one in same})
        lines.append(f"evaluate: {asked} of {questions} questions are left out of {shown}: {reason}")
    return lines


def about_short(wanted: Iterable[Iterable[Point]]) -> list[str]:
    """Say where pools hold less than a count asks for."""
    swept = [point for group in wanted for point in group if point.gold not in REFERENCES]
    short = [point for point in swept if len(point.shown) < point.passages]
    if not short:
        return []
    asked = len({point.pool.id for point in short})
    return [
        f"evaluate: {len(short)} of {len(swept)} contexts, of {asked} questions, hold fewer passages than their count: "
        "their pools have no more that fit"
    ]


def about_failures(cases: Sequence[Case]) -> list[str]:
    """Count the answers of each system that failed, with a reason of one of them."""
    failed: dict[str, list[str]] = {}
    for row in (case.prediction for case in cases):
        if row.failure is not None:
            failed.setdefault(row.system, []).append(row.failure)
    return [
        f"evaluate {system}: {len(reasons)} answers failed and count as wrong, for example: {reasons[0]}. "
        "`rag-ft evaluate RECIPE --again` asks them anew"
        for system, reasons in failed.items()
    ]


def about_documents(documents: Mapping[str, str], settings: EvaluationSettings) -> list[str]:
    """Say where questions about the same documents make the intervals too narrow, or documents are too few."""
    count, together = len(set(documents.values())), settings.resample == "document"
    if together and count < _FEW_DOCUMENTS:
        return [f"evaluate: {count} documents are few to draw from; intervals over fewer than 20 come out too narrow"]
    if not together and len(documents) >= 2 * count > 0:
        return [
            f"evaluate: {len(documents)} questions are about {count} documents, so intervals drawn question by "
            "question may be too narrow: evaluation.resample=document draws the questions of a document together"
        ]
    return []


def about_power(asked: int, confidence: float, *, limited: bool) -> str:
    """Say which difference so many questions can show."""
    smallest = 100 * detectable_difference(asked, 0.8, confidence)
    stamp = "PARTIAL, " if limited else ""
    return (
        f"evaluate: {stamp}{asked} questions show a difference of {smallest:.1f} points between two systems with a "
        "power of 80 %; smaller ones may stay hidden"
    )
