"""Cases with a known outcome, for the tests of scores, robustness and report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rag_ft.evaluation.answers import as_stored
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.cells import Sampling
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.statistics import Bootstrap


def prediction(question="q1", system="base", passages=1, answer="Paris", **changes) -> Prediction:
    """Return an answer to a question whose accepted answer is Paris."""
    row = Prediction(
        question_id=question,
        group="one_hop",
        system=system,
        gold="kept",
        passages=passages,
        shown=tuple(f"d{i}" for i in range(passages)),
        answerable=True,
        answers=("Paris",),
        output=f"Answer: {answer}",
        answer=answer,
        abstained=False,
        prompt_tokens=100 * passages,
        output_tokens=4,
        seconds=0.5,
        failure=None,
    )
    return replace(row, **changes)


def sweep(system, right, group="one_hop", prefix="q", **changes) -> list[Prediction]:
    """Return predictions of a system: `right` maps a passage count to a string of 1 (right) and 0 (wrong)."""
    return [
        prediction(f"{prefix}{i}", system, count, "Paris" if hit == "1" else "Rome", group=group, **changes)
        for count, hits in right.items()
        for i, hit in enumerate(hits)
    ]


def cases_of(rows: Iterable[Prediction]) -> list[Case]:
    """Return predictions as cases, read as they say they were."""
    return [as_stored(row) for row in rows]


def find(rows: Iterable[dict[str, Any]], **keys) -> dict[str, Any]:
    """Return the one row that holds all keys."""
    [row] = [row for row in rows if all(row[key] == value for key, value in keys.items())]
    return row


def sampling(*, clusters=None, **bootstrap):
    """How intervals are made in a test, where it says nothing else."""
    return Sampling(Bootstrap(**{"confidence": 0.95, "resamples": 500, "seed": 0, **bootstrap}), clusters)


def split_options(changes):
    """Return what of a test's options is about sampling, and the rest."""
    names = ("confidence", "resamples", "seed", "interval", "clusters")
    return {k: v for k, v in changes.items() if k in names}, {k: v for k, v in changes.items() if k not in names}
