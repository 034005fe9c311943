"""What an evaluation says beside its numbers: what is left out, what so many questions can show, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_builders.records import PoolPassage
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.conditions import REFERENCES, axes_of, conditions
from rag_ft.evaluation.contexts import bears_answer, noise_of
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


def about_noise(wanted: Iterable[Iterable[Point]]) -> list[str]:
    """Say where more noise is shown than was asked for, since too few passages hold an answer."""
    moved = [point for group in wanted for point in group if "noise" in axes_of(point.variant)]
    more = [point for point in moved if _without_answer(point) > noise_of(point.passages, _noise(point))]
    if not more:
        return []
    shares = ", ".join(f"{share:g}" for share in sorted({_noise(point) for point in more}))
    shown = sum(map(_without_answer, more)) / sum(len(point.shown) for point in more)
    return [
        f"evaluate: {_questions(more)} of {_questions(moved)} questions have too few passages with an answer for "
        f"noise {shares}: noise takes their places, {100 * shown:.0f} % of what they are shown there. More passages "
        "with an answer may stand in deeper pools (data.depth)"
    ]


def about_weak(wanted: Iterable[Iterable[Point]]) -> list[str]:
    """Say where the worst ranked passages are the best ranked ones too, since a pool holds no others."""
    points = [point for group in wanted for point in group]
    weak = [point for point in points if axes_of(point.variant).get("negatives") == "weak"]
    same = [point for point in weak if _fillers(point.shown) == _fillers(point.pool.passages)]
    if not same:
        return []
    counts = ", ".join(map(str, sorted({point.passages for point in same})))
    return [
        f"evaluate: {_questions(same)} of {_questions(weak)} questions are shown the same {counts} passages by "
        "negatives=weak as by negatives=hard, in another order, since their pools hold no others: raise data.depth or "
        "lower the count"
    ]


def _noise(point: Point) -> float:
    return float(axes_of(point.variant)["noise"])


def _without_answer(point: Point) -> int:
    return sum(not (passage.is_gold or passage.has_answer) for passage in point.shown)


def _fillers(passages: Iterable[PoolPassage]) -> set[str]:
    return {passage.id for passage in passages if not bears_answer(passage)}


def _questions(points: Iterable[Point]) -> int:
    return len({point.pool.id for point in points})


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


def about_falls(scores: Mapping[str, Any]) -> list[str]:
    """Say over which counts and questions accuracy is said to fall, where that is not all, and where over none."""
    asked = [row for row in scores["cells"] if (row["gold"], row["group"], row["variant"]) == ("kept", "all", "")]
    counts = sorted({row["passages"] for row in asked})
    drops = [row for row in scores["drops"] if (row["gold"], row["group"], row["variant"]) == ("kept", "all", "")]
    if len(counts) > 1 and not drops:
        return [
            f"evaluate: no drop, retention and area with gold kept: most questions have their evidence at "
            f"{counts[-1]} passages only. Ask at a larger count, too (evaluation.passages)"
        ]
    told = {(row["smallest_passages"], row["n"]) for row in drops}
    everyone = max((row["n"] for row in asked), default=0)
    return [
        f"evaluate: drop, retention and area are over {n} of {everyone} questions, from {least} passages on: those "
        "that have their evidence at each of these counts"
        for least, n in sorted(told)
        if least > counts[0] or n < everyone
    ]


def about_unjudged(cases: Sequence[Case]) -> list[str]:
    """Count the answers of which the judge said nothing that can be read."""
    silent = sum(case.measured["judged"] is None for case in cases)
    if not silent:
        return []
    return [
        f"evaluate: the judge gave no verdict on {silent} answers, which are left out of `judged`. The same command "
        "asks about them again"
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


def about_power(asked: int, settings: EvaluationSettings, *, limited: bool) -> str:
    """Say which difference so many questions can show."""
    smallest = 100 * detectable_difference(asked, 0.8, settings.confidence)
    stamp = "PARTIAL, " if limited else ""
    related = settings.resample == "document"
    few = ", and where several are about one document only larger ones are found" if related else ""
    return (
        f"evaluate: {stamp}{asked} questions show a difference of {smallest:.1f} points between two systems with a "
        f"power of 80 %; smaller ones may stay hidden{few}"
    )
