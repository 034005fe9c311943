"""Predictions with a known outcome, scored by the real scorer, for the tests of report, comparison and card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_builders.files import write_json
from data_builders.records import Pool, PoolPassage
from rag_ft.evaluation.answers import write_answers
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.cells import Sampling
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.scores import score_cases
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.evaluation.statistics import Bootstrap
from rag_ft.prompting.parse import Parsed

COUNTS = (1, 2, 5)
QUESTIONS = 40
# How many of the 40 questions are right; "base" falls with the count, "tuned" hardly.
RIGHT = {"base": (30, 20, 8), "base + reordering": (30, 22, 10), "tuned": (38, 37, 36)}
# The same at 5 passages under further conditions: (gold, variant) to how many are right.
FURTHER: dict[tuple[str, str], dict[str, int]] = {
    ("kept", "position=0"): {"base": 26, "base + reordering": 26, "tuned": 37},
    ("kept", "position=0.5"): {"base": 4, "base + reordering": 8, "tuned": 34},
    ("kept", "position=1"): {"base": 20, "base + reordering": 22, "tuned": 36},
    ("kept", "noise=0.2"): {"base": 24, "base + reordering": 25, "tuned": 38},
    ("kept", "noise=0.4"): {"base": 18, "base + reordering": 20, "tuned": 37},
    ("kept", "noise=0.8"): {"base": 8, "base + reordering": 10, "tuned": 35},
    ("kept", "negatives=random"): {"base": 30, "base + reordering": 31, "tuned": 38},
    ("kept", "negatives=hard"): {"base": 12, "base + reordering": 13, "tuned": 32},
    ("kept", "negatives=weak"): {"base": 22, "base + reordering": 22, "tuned": 37},
    ("kept", "order=shuffled"): {"base": 10, "base + reordering": 11, "tuned": 36},
    ("kept", "order=shuffled draw=1"): {"base": 12, "base + reordering": 12, "tuned": 35},
    ("kept", "order=shuffled draw=2"): {"base": 6, "base + reordering": 9, "tuned": 36},
    ("retrieved", "retriever=bm25"): {"base": 9, "base + reordering": 11, "tuned": 34},
    ("retrieved", "retriever=dense"): {"base": 6, "base + reordering": 7, "tuned": 28},
    ("absent", ""): {"base": 0, "base + reordering": 0, "tuned": 0},
    ("counterfactual", ""): {"base": 2, "base + reordering": 2, "tuned": 1},
}
ROUTED = {1: (30, 4), 2: (30, 5), 5: (30, 6)}  # passages: questions answered from few, and of the others right
CITATIONS = ("citation_precision", "citation_recall", "quote_verbatim", "relevance_f1")


def question_id(number: int) -> str:
    return f"q{number:02d}"


def pools(count: int = QUESTIONS, text: str = "It lies in Orsk. The ferry leaves at noon.") -> dict[str, Pool]:
    found = {}
    for number in range(count):
        name = question_id(number)
        found[name] = Pool(name, f"Question {number}?", ("Orsk",), "test", _group(number), _passages(text))
    return found


def _passages(text: str) -> tuple[PoolPassage, ...]:
    return tuple(
        PoolPassage(f"p{rank}", f"Title {rank}", text, rank == 5, rank == 5, "bm25", rank, 1 / rank)
        for rank in range(1, 6)
    )


def _group(number: int) -> str:
    return "one_hop" if number % 4 else "two_hop"


def prediction(number: int, system: str, gold: str, passages: int, right: bool, variant: str = "") -> Prediction:
    answerable = gold in ("kept", "gold_only") or (gold == "retrieved" and passages >= 5)
    declined = not right and number % 5 == 0
    answer = "Orsk" if right else None if declined else "Hald"
    shown = tuple(f"p{rank}" for rank in range(1, passages + 1))
    shown = shown[::-1] if variant == "noise=0.8" else shown  # other contexts than with less noise
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
        variant=variant,
    )


def predictions(
    right: Mapping[str, tuple[int, ...]] = RIGHT, golds: tuple[str, ...] = ("kept", "retrieved")
) -> list[Prediction]:
    rows = []
    for system, numbers in right.items():
        for gold in golds:
            for passages, many in zip(COUNTS, numbers, strict=True):
                rows += [prediction(n, system, gold, passages, n < many) for n in range(QUESTIONS)]
        rows += [prediction(n, system, "closed_book", 0, n < 1) for n in range(QUESTIONS)]
        rows += [prediction(n, system, "gold_only", 1, n < 39) for n in range(QUESTIONS)]
    return rows


def further_predictions() -> list[Prediction]:
    """All of `predictions`, the conditions of FURTHER, a system that routes, and how sure each answer was."""
    rows = predictions()
    for (gold, variant), by_system in FURTHER.items():
        for system, many in by_system.items():
            rows += [prediction(n, system, gold, 5, n < many, variant) for n in range(QUESTIONS)]
    rows = [replace(row, planted="Hald") if row.gold == "counterfactual" else row for row in rows]
    rows += [_routed(n, passages) for passages in COUNTS for n in range(QUESTIONS)]
    return [replace(row, confidence=-0.01 * int(row.question_id[1:]) - 0.1) for row in rows]


def _routed(number: int, passages: int) -> Prediction:
    answered, rest = ROUTED[passages]
    few = number < answered
    right = number < 27 or answered <= number < answered + rest
    row = prediction(number, "tuned, routed", "kept", passages, right)
    tokens = 50 + 90 + (0 if few else 50 + 90 * passages)
    return replace(row, route="few" if few else "all", calls=1 if few else 2, prompt_tokens=tokens)


def cases(rows: Iterable[Prediction]) -> list[Case]:
    shown = {passage.id: passage for passage in _passages("It lies in Orsk.")}
    return [
        Case(row, Parsed(row.answer, row.abstained, True), tuple(shown[name] for name in row.shown), "answer")
        for row in rows
    ]


def recall() -> list[dict[str, Any]]:
    return [
        {"group": group, "passages": count, "recall": share}
        for group in ("all", "one_hop", "two_hop")
        for count, share in zip(COUNTS, (0.625, 0.75, 0.925), strict=True)
    ]


def _scored(
    rows: Iterable[Prediction], run_name: str, partial: bool, systems: tuple[SystemSettings, ...] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return score_cases(
        cases(rows),
        Sampling(Bootstrap(0.95, 200, 1)),
        run_name=run_name,
        partial=partial,
        recall=recall(),
        systems=systems,
    )


def scored(
    right: Mapping[str, tuple[int, ...]] = RIGHT,
    *,
    partial: bool = False,
    golds: tuple[str, ...] = ("kept", "retrieved"),
) -> dict[str, Any]:
    return _scored(predictions(right, golds), "example", partial)[0]


def scored_further(*, partial: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores with every section of the page, and the rows of answers.jsonl.

    Citations and what misled are put in by hand: that they are measured rightly is tested with the metrics.
    """
    systems = (
        SystemSettings(name="base", weights="base"),
        SystemSettings(name="base + reordering", weights="base", strategy="reorder"),
        SystemSettings(name="tuned", weights="tuned"),
        SystemSettings(name="tuned, routed", weights="tuned", strategy="self_route"),
    )
    scores, answers = _scored(further_predictions(), "example", partial, systems)
    for cell in scores["cells"]:
        known = cell["system"] == "tuned" and cell["gold"] in ("kept", "retrieved")
        misled = cell["gold"] == "counterfactual"
        cell["misled"] = {"mean": 0.75, "low": 0.6, "high": 0.9, "n": 40} if misled else None
        for place, name in enumerate(CITATIONS):
            mean = 0.9 - 0.1 * place
            cell[name] = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 40} if known else None
    return scores, answers


def old_scores() -> dict[str, Any]:
    """Scores as versions before the grid wrote them: no variants, no tests of pairs, no robustness."""
    scores = scored()
    for name in ("robustness", "curves", "routing", "detectable", "interval"):
        del scores[name]
    for part in ("cells", "differences", "drops", "retention"):
        for row in scores[part]:
            for name in ("variant", "wins", "losses", "ties", "p", "p_holm", "cost", "calls"):
                row.pop(name, None)
    return scores


def write_run(
    folder: Path,
    right: Mapping[str, tuple[int, ...]] = RIGHT,
    *,
    name: str = "one",
    partial: bool = False,
    retrievers: tuple[str, ...] = (),
) -> Path:
    """Write what `evaluate` leaves in a run folder and `compare` reads; `retrievers` rank five passages each, too."""
    rows = predictions(right)
    for retriever in retrievers:
        variant = f"retriever={retriever}"
        rows += [prediction(n, system, "retrieved", 5, n < 9, variant) for system in right for n in range(QUESTIONS)]
    scores, answers = _scored(rows, name, partial)
    write_json(folder / "evaluation" / "scores.json", {**scores, "prompt_hash": "0" * 16})
    write_answers(folder / "evaluation" / "answers.jsonl", answers)
    return folder
