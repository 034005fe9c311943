"""What Self-Route decided and what it saved (arXiv 2407.16833), against showing all passages to the same generator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rag_ft.evaluation.answers import Point, Scored
from rag_ft.evaluation.cells import Points, mean
from rag_ft.evaluation.robustness import alike
from rag_ft.evaluation.settings import SystemSettings


def showing_all(systems: Iterable[SystemSettings]) -> dict[str, str]:
    """Return by routed system the system of the same weights, endpoint and style that is shown all passages."""
    known = list(systems)
    found = {}
    for one in known:
        others = (other.name for other in known if other.strategy == "concatenate" and alike(one, other))
        if one.strategy == "self_route" and (name := next(others, None)) is not None:
            found[one.name] = name
    return found


def routing_rows(points: Points, everything: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row for every cell in which answers were routed, over those questions; a failed first try is none.

    Args:
        points: all cells.
        everything: by routed system the one that is shown all passages, where there is one.
    """
    rows = []
    for point, answers in points.items():
        by_id = {id_: answer for id_, answer in answers.items() if answer.case.prediction.route}
        if by_id:
            other = Point(everything.get(point.system, ""), point.gold, point.variant, point.passages)
            all_by_id = points.get(other, {})
            ids = sorted(by_id.keys() & all_by_id.keys() if all_by_id else by_id)
            rows.append(_row(point, [by_id[id_] for id_ in ids], [all_by_id[id_] for id_ in ids if all_by_id]))
    return rows


def _row(point: Point, routed: Sequence[Scored], everything: Sequence[Scored]) -> dict[str, Any]:
    few = [answer for answer in routed if answer.case.prediction.route == "few"]
    on = [answer for answer in routed if answer.case.prediction.route != "few"]
    place = {"system": point.system, "gold": point.gold, "passages": point.passages, "variant": point.variant}
    return {
        **place,
        "n": len(routed),
        "answerable_share": round(len(few) / len(routed), 6),
        "token_share": _token_share(routed, everything),
        "accuracy": mean(answer.accuracy for answer in routed),
        "few_accuracy": mean(_first_try(answer) for answer in routed),
        "all_accuracy": mean(answer.accuracy for answer in everything) if everything else None,
        "right_to_answer": _right_to_answer(routed, everything),
        "right_to_route": mean(answer.accuracy for answer in on) if on else None,
        "confusion": {
            "few_right": sum(answer.accuracy > 0 for answer in few),
            "few_wrong": sum(not answer.accuracy for answer in few),
            "all_right": sum(answer.accuracy > 0 for answer in on),
            "all_wrong": sum(not answer.accuracy for answer in on),
        },
    }


def _token_share(routed: Sequence[Scored], everything: Sequence[Scored]) -> float | None:
    """Prompt tokens of both tries over those of showing everything to everyone (section 4 of the paper)."""
    whole = sum(answer.case.prediction.prompt_tokens for answer in everything)
    return round(sum(answer.case.prediction.prompt_tokens for answer in routed) / whole, 6) if whole else None


def _first_try(answer: Scored) -> float:
    """Accuracy of the first try; what was routed on was declined, right only where no answer is accepted."""
    row = answer.case.prediction
    return answer.accuracy if row.route == "few" else float(not row.answers)


def _right_to_answer(routed: Sequence[Scored], everything: Sequence[Scored]) -> float | None:
    """Of what the first try answered, the share that all passages would have made no better."""
    pairs = [
        one.accuracy >= other.accuracy
        for one, other in zip(routed, everything, strict=False)
        if one.case.prediction.route == "few"
    ]
    return mean(pairs) if pairs else None
