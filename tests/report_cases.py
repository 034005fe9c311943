"""Predictions with a known outcome, scored by the real scorer, for the tests of report and card."""

from __future__ import annotations

from typing import Any

from data_builders.records import Pool, PoolPassage
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.scores import score_predictions

COUNTS = (1, 2, 5)
QUESTIONS = 40
# How many of the 40 questions are right; "base" falls with the count, "tuned" hardly.
RIGHT = {"base": (30, 20, 8), "base + reordering": (30, 22, 10), "tuned": (38, 37, 36)}


def question_id(number: int) -> str:
    return f"q{number:02d}"


def pools(count: int = QUESTIONS, text: str = "It lies in Orsk. The ferry leaves at noon.") -> dict[str, Pool]:
    found = {}
    for number in range(count):
        passages = tuple(
            PoolPassage(f"p{rank}", f"Title {rank}", text, rank == 5, rank == 5, "bm25", rank, 1 / rank)
            for rank in range(1, 6)
        )
        name = question_id(number)
        found[name] = Pool(name, f"Question {number}?", ("Orsk",), "test", _group(number), passages)
    return found


def _group(number: int) -> str:
    return "one_hop" if number % 4 else "two_hop"


def prediction(number: int, system: str, gold: str, passages: int, right: bool) -> Prediction:
    answerable = gold in ("kept", "gold_only") or (gold == "retrieved" and passages >= 5)
    declined = not right and number % 5 == 0
    answer = "Orsk" if right else None if declined else "Hald"
    shown = tuple(f"p{rank}" for rank in range(1, passages + 1))
    return Prediction(
        question_id=question_id(number),
        group=_group(number),
        system=system,
        gold=gold,  # type: ignore[arg-type]
        passages=passages,
        shown=shown,
        answerable=answerable,
        answers=("Orsk",),
        output=answer or "The passages do not say.",
        answer=answer,
        abstained=declined,
        prompt_tokens=50 + 90 * passages,
        output_tokens=3,
        seconds=0.25 * passages,
        failure=None,
    )


def predictions(
    right: dict[str, tuple[int, ...]] = RIGHT, golds: tuple[str, ...] = ("kept", "retrieved")
) -> list[Prediction]:
    rows = []
    for system, numbers in right.items():
        for gold in golds:
            for passages, many in zip(COUNTS, numbers, strict=True):
                rows += [prediction(n, system, gold, passages, n < many) for n in range(QUESTIONS)]
        rows += [prediction(n, system, "closed_book", 0, n < 1) for n in range(QUESTIONS)]
        rows += [prediction(n, system, "gold_only", 1, n < 39) for n in range(QUESTIONS)]
    return rows


def scored(
    right: dict[str, tuple[int, ...]] = RIGHT, *, partial: bool = False, golds: tuple[str, ...] = ("kept", "retrieved")
) -> dict[str, Any]:
    recall = [
        {"group": group, "passages": count, "recall": share}
        for group in ("all", "one_hop", "two_hop")
        for count, share in zip(COUNTS, (0.625, 0.75, 0.925), strict=True)
    ]
    return score_predictions(
        predictions(right, golds),
        confidence=0.95,
        resamples=200,
        seed=1,
        run_name="example",
        partial=partial,
        recall=recall,
    )
