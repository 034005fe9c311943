"""From predictions to scores.json: every cell, every paired comparison, with intervals. Generates and draws nothing.

A cell is a system at a passage count in a gold mode. Within a gold mode and group, all cells are scored on the same
questions, those every cell has answered, so that a run that was killed still compares like with like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_builders.errors import RagFtError
from rag_ft.evaluation.metrics import METRICS, abstention
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.statistics import Bootstrap, Interval, ResampledMeans, resample

HEADLINE = "accuracy"
EVERYONE = "all"
SWEEP_MODES = ("kept", "retrieved")
_METRIC_NAMES = [*METRICS, "cover_output"]

Point = tuple[str, int]  # a system and its passage count


def score_predictions(
    predictions: Sequence[Prediction],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    baseline: str = "base",
    run_name: str,
    partial: bool,
    recall: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Score predictions into the plain dictionary that scores.json holds.

    `accuracy` is token-bounded cover accuracy of the parsed answer. Abstentions and failed generations count as 0 in
    it, also where declining was right: the abstention table tells those apart (and leaves failed generations out).
    `cover_raw` is the same with raw substrings; `cover_output` scores the whole output instead of the parsed answer.
    Token counts and seconds are means per question.

    Args:
        predictions: in any order of questions; systems are listed in order of first appearance.
        confidence: level of the intervals.
        resamples: bootstrap resamples.
        seed: of the bootstrap; the same seed gives the same scores.
        run_name: the name of the run.
        baseline: the system the others are compared with; without it there are no differences.
        partial: only a part of the questions was asked.
        recall: rows {group, passages, recall}: share of questions whose gold passages are all in the top `passages`.

    Raises:
        RagFtError: there are no predictions, a prediction stands there twice, or no question is common to all cells.
    """
    _check(predictions)
    bootstrap = Bootstrap(confidence, resamples, seed)
    groups = _questions_by_group(predictions)
    scores: dict[str, Any] = {
        "run": run_name,
        "partial": partial,
        "confidence": confidence,
        "resamples": resamples,
        "metric": HEADLINE,
        "baseline": baseline,
        "questions": {group: len(ids) for group, ids in groups.items()},
        "recall": [dict(row) for row in recall],
        "cells": [],
        "differences": [],
        "drops": [],
        "retention": [],
    }
    for gold in dict.fromkeys(row.gold for row in predictions):
        _add_mode(scores, gold, [row for row in predictions if row.gold == gold], groups, bootstrap)
    return scores


def _add_mode(
    scores: dict[str, Any],
    gold: str,
    predictions: Sequence[Prediction],
    groups: Mapping[str, set[str]],
    bootstrap: Bootstrap,
) -> None:
    """Add the cells, differences, falls and retentions of one gold mode, on the questions all its points share."""
    points = _points(predictions)
    common = set.intersection(*(set(rows) for rows in points.values()))
    if not common:
        raise RagFtError(
            f"no question has been answered at every point of gold mode {gold!r}, so nothing can be compared. "
            "Run `rag-ft evaluate RECIPE` again; it continues where it stopped."
        )
    for group, ids in groups.items():
        if shared := sorted(common & ids):
            _add_cells(scores, _grid(gold, group, points, shared, bootstrap), scores["baseline"])
            if gold in SWEEP_MODES:
                comparable = _comparable(gold, points, shared)
                _add_falls(scores, _grid(gold, group, points, comparable, bootstrap), scores["baseline"])


def _comparable(gold: str, points: Mapping[Point, Mapping[str, Prediction]], ids: list[str]) -> list[str]:
    """Return the questions that say how accuracy falls with the count.

    With gold kept those are the ones that can be answered at every count, if there are any: a question of two hops
    cannot at one passage, and would make the fall from there look small.
    """
    always = [id_ for id_ in ids if all(rows[id_].answerable for rows in points.values())]
    return always if gold == "kept" and always else ids


def _check(predictions: Sequence[Prediction]) -> None:
    if not predictions:
        raise RagFtError("there are no predictions to score. Run `rag-ft evaluate RECIPE` first.")
    seen, groups = set(), dict[str, str]()
    for row in predictions:
        key = (row.question_id, row.system, row.gold, _count(row))
        if key in seen:
            raise RagFtError(
                f"question {row.question_id!r} is answered twice by {row.system!r} with {row.passages} passages "
                f"({row.gold}), so its score would count double. Run `rag-ft evaluate RECIPE --restart` to start over."
            )
        seen.add(key)
        if groups.setdefault(row.question_id, row.group) != row.group:
            raise RagFtError(
                f"question {row.question_id!r} stands in group {groups[row.question_id]!r} and in {row.group!r}; "
                "a question has one group. Give the questions distinct ids and run `rag-ft build RECIPE` again."
            )


def _count(row: Prediction) -> int:
    """Return the passage count that makes a cell; a reference is one point, however many passages it shows."""
    return row.passages if row.gold in SWEEP_MODES else 0


def _questions_by_group(predictions: Iterable[Prediction]) -> dict[str, set[str]]:
    """Return question ids under "all" and under each named group."""
    groups: dict[str, set[str]] = {}
    for row in predictions:
        groups.setdefault(row.group, set()).add(row.question_id)
    named = {name: groups[name] for name in sorted(groups) if name not in ("", EVERYONE)}
    return {EVERYONE: set[str]().union(*groups.values()), **named}


def _points(rows: Iterable[Prediction]) -> dict[Point, dict[str, Prediction]]:
    """Return predictions by point and question: systems as they first appear, passage counts ascending."""
    points: dict[Point, dict[str, Prediction]] = {}
    for row in rows:
        points.setdefault((row.system, _count(row)), {})[row.question_id] = row
    systems = list(dict.fromkeys(system for system, _ in points))
    return {point: points[point] for point in sorted(points, key=lambda point: (systems.index(point[0]), point[1]))}


@dataclass(frozen=True)
class _Grid:
    """All cells of one gold mode and group on the same questions, resampled together."""

    gold: str
    group: str
    rows: dict[Point, list[Prediction]]
    resampled: ResampledMeans

    def column(self, point: Point, metric: str = HEADLINE) -> int:
        return list(self.rows).index(point) * len(_METRIC_NAMES) + _METRIC_NAMES.index(metric)

    def sweep(self, system: str) -> list[Point]:
        return [point for point in self.rows if point[0] == system]

    def systems(self) -> list[str]:
        return list(dict.fromkeys(system for system, _ in self.rows))


def _grid(
    gold: str, group: str, points: Mapping[Point, Mapping[str, Prediction]], ids: Sequence[str], bootstrap: Bootstrap
) -> _Grid:
    rows = {point: [by_id[question] for question in ids] for point, by_id in points.items()}
    # One column per point and metric, points outermost, as _Grid.column counts.
    matrix = np.hstack([[metric_values(row) for row in point_rows] for point_rows in rows.values()])
    return _Grid(gold, group, rows, resample(matrix, bootstrap))


def metric_values(row: Prediction) -> list[float]:
    """Return the metrics of one answer in the order of METRICS, then `cover_output`."""
    if row.failure is not None:
        return [0.0] * len(_METRIC_NAMES)
    if not row.answers:  # annotated as unanswerable: right is who declines, as in SQuAD 2.0 (arXiv 1806.03822)
        return [float(row.abstained)] * len(_METRIC_NAMES)
    whole_output = METRICS[HEADLINE](row.output, row.answers)
    answer = None if row.abstained else row.answer
    if answer is None:  # without this, declining would match an answer that normalises to nothing
        return [0.0] * len(METRICS) + [whole_output]
    return [metric(answer or "", row.answers) for metric in METRICS.values()] + [whole_output]


def _add_cells(scores: dict[str, Any], grid: _Grid, baseline: str) -> None:
    scores["cells"] += [_cell(grid, point) for point in grid.rows]
    scores["differences"] += _differences(grid, baseline)


def _add_falls(scores: dict[str, Any], grid: _Grid, baseline: str) -> None:
    swept = [system for system in grid.systems() if len(grid.sweep(system)) > 1]
    scores["drops"] += [_drop(grid, system, baseline) for system in swept]
    scores["retention"] += [_retention(grid, system) for system in swept]


def _cell(grid: _Grid, point: Point) -> dict[str, Any]:
    rows = grid.rows[point]
    table = abstention((row.answerable, row.abstained) for row in rows if row.failure is None)
    return {
        "system": point[0],
        "gold": grid.gold,
        "passages": max(row.passages for row in rows),
        "group": grid.group,
        "n": len(rows),
        "answerable": sum(row.answerable for row in rows),
        **{name: _plain(grid.resampled.mean(grid.column(point, name))) for name in _METRIC_NAMES},
        "abstention": {key: _rounded(value) for key, value in asdict(table).items()},
        "failures": sum(row.failure is not None for row in rows),
        "prompt_tokens": _mean(row.prompt_tokens for row in rows),
        "output_tokens": _mean(row.output_tokens for row in rows),
        "seconds": _mean(row.seconds for row in rows),
    }


def _differences(grid: _Grid, baseline: str) -> list[dict[str, Any]]:
    return [
        {
            "system": system,
            "baseline": baseline,
            "gold": grid.gold,
            "passages": max(row.passages for row in grid.rows[system, count]),
            "group": grid.group,
            HEADLINE: _plain(grid.resampled.difference(grid.column((system, count)), grid.column((baseline, count)))),
        }
        for system, count in grid.rows
        if system != baseline and (baseline, count) in grid.rows
    ]


def _drop(grid: _Grid, system: str, baseline: str) -> dict[str, Any]:
    """Return how far a system falls from its best count to its largest, and that against the baseline's fall."""
    points = grid.sweep(system)
    columns = [grid.column(point) for point in points]
    drop = grid.resampled.drop_from_best(columns)
    base_points = grid.sweep(baseline)
    comparable = system != baseline and [count for _, count in points] == [count for _, count in base_points]
    against = [grid.column(point) for point in base_points]
    return {
        "system": system,
        "gold": grid.gold,
        "group": grid.group,
        "n": grid.resampled.n,
        "best_passages": points[drop.best][1],
        "largest_passages": points[-1][1],
        HEADLINE: _plain(drop.interval),
        "minus_baseline": _plain(grid.resampled.drop_difference(columns, against)) if comparable else None,
    }


def _retention(grid: _Grid, system: str) -> dict[str, Any]:
    """Return accuracy at the largest count over that at the smallest; null where the latter is 0."""
    points = grid.sweep(system)
    smallest, largest = (float(grid.resampled.means[grid.column(point)]) for point in (points[0], points[-1]))
    ratio = _rounded(largest / smallest) if smallest else None
    return {"system": system, "gold": grid.gold, "group": grid.group, "n": grid.resampled.n, "ratio": ratio}


def _plain(interval: Interval) -> dict[str, float]:
    return {name: round(getattr(interval, name), 6) for name in ("mean", "low", "high")}


def _rounded(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 6)
