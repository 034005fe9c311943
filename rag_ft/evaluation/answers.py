"""Scored answers: every metric of every case, and the file of one row per answer. Aggregates nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.files import atomic_path
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.conditions import REFERENCES
from rag_ft.evaluation.metrics import METRICS
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.prompting.parse import Parsed

HEADLINE = "accuracy"
Price = tuple[float, float]
"""What a million prompt tokens and a million written tokens cost."""


@dataclass(frozen=True)
class Point:
    """A cell of the grid: a system under a condition. A reference is one point, however many passages it shows."""

    system: str
    gold: str
    variant: str
    passages: int


@dataclass(frozen=True)
class Scored:
    """A case with its metrics; None where a metric does not apply.

    Attributes:
        values: by the names of METRICS.
        cost: of the answer; None where its system has no price.
    """

    case: Case
    values: Mapping[str, float | None]
    cost: float | None

    @property
    def accuracy(self) -> float:
        """The headline metric, which applies to every answer."""
        return self.values[HEADLINE] or 0.0

    @property
    def abstained(self) -> bool:
        """Whether the output declined."""
        return self.case.parsed.abstained


def scored(case: Case, price: Price | None = None) -> Scored:
    """Measure one case."""
    row = case.prediction
    cost = (row.prompt_tokens * price[0] + row.output_tokens * price[1]) / 1e6 if price else None
    return Scored(case, {name: metric(case) for name, metric in METRICS.items()}, cost)


def as_stored(row: Prediction) -> Case:
    """Return a prediction as a case, its output read as when it was stored, of passages that are not known."""
    return Case(row, Parsed(row.answer, row.abstained, bool(row.answer or row.abstained)), (), "answer")


def point_of(case: Case) -> Point:
    """Return the cell a case belongs to."""
    row = case.prediction
    return Point(row.system, row.gold, row.variant, 0 if row.gold in REFERENCES else row.passages)


def prices_of(systems: Iterable[SystemSettings]) -> dict[str, Price]:
    """Return the prices of the systems that are asked over an endpoint with both prices."""
    found = {}
    for system in systems:
        asked = system.endpoint
        if asked and asked.input_price is not None and asked.output_price is not None:
            found[system.name] = (asked.input_price, asked.output_price)
    return found


def answer_row(answer: Scored, document: str | None = None, *, partial: bool = False) -> dict[str, Any]:
    """Return a row of answers.jsonl.

    question_id, group, system, gold, passages, variant, answerable, abstained, failure, confidence, route,
    prompt_tokens, output_tokens, seconds, calls, answer (as parsed; null where there is none), cost (null without
    prices), document (whose questions are drawn together; null where single questions are), partial (only a part of the
    questions was asked), then every metric of METRICS, null where it does not apply.
    """
    row, parsed = answer.case.prediction, answer.case.parsed
    return {
        "question_id": row.question_id,
        "group": row.group,
        "system": row.system,
        "gold": row.gold,
        "passages": row.passages,
        "variant": row.variant,
        "answerable": row.answerable,
        "abstained": parsed.abstained,
        "failure": row.failure,
        "confidence": row.confidence,
        "route": row.route,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
        "seconds": row.seconds,
        "calls": row.calls,
        "answer": parsed.answer,
        "cost": answer.cost,
        "document": document,
        "partial": partial,
        **{name: None if value is None else round(value, 6) for name, value in answer.values.items()},
    }


def write_answers(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write answers.jsonl, atomically: one JSON object a line."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())


def column(answers: Sequence[Scored], value: Callable[[Scored], float | None]) -> list[float]:
    """Return one number an answer, NaN where there is none, as the bootstrap takes it."""
    found = (value(answer) for answer in answers)
    return [float("nan") if one is None else one for one in found]
