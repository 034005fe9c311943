"""From cases to scores.json and the rows of answers.jsonl. Generates and draws nothing.

A cell is a system under a condition. Within a mode (gold and variant) and group, all cells are scored on the same
questions, those every cell has answered, so that a run that was killed still compares like with like.

An ESTIMATE is {mean, low, high, n}, n the number of questions it is a mean over, or null where there is none. A
PLACE is gold, variant ("" in the main sweep), group ("all" and each named group) and, in cells and differences,
passages. Shares go from 0 to 1. The keys of scores.json:

- version: of the definitions below; raised when a number of the same name begins to mean something else.
- run, partial, confidence, interval, resamples, seed, metric ("accuracy"), baseline: as given.
- resample: "question" or "document", what was drawn.
- questions: {group: number of questions}.
- recall: as given.
- detectable: {n, power, difference}: the smallest difference in accuracy that so many questions show.
- cells: rows of system, PLACE, n, answerable (a count), an ESTIMATE for each of METRICS, abstention (the fields of
  metrics.Abstention), failures (a count), and means per answer: prompt_tokens, output_tokens, seconds, calls, cost
  (null without prices).
- differences: rows of system, baseline, PLACE, accuracy (an ESTIMATE of system minus baseline), wins, losses, ties
  (counts of questions), p (exact McNemar; flips of documents where these are drawn), p_holm (corrected over all rows
  of group "all"; null elsewhere).
- drops: rows of system, PLACE, n, smallest_passages (from which on the questions that are looked at can be answered),
  best_passages, largest_passages, accuracy (an ESTIMATE), minus_baseline
  (an ESTIMATE or null). Gold modes kept and retrieved only, as in retention and robustness.
- retention: rows of system, PLACE, n, ratio (null where accuracy at the smallest count is 0).
- robustness: rows of system, group, gold, and an ESTIMATE for each of robustness.MEASURES: auc, drop_from_peak,
  retention, distraction_rate, position_spread, position_middle_drop, net_harm, harm_rate, consistency, noise_drop.
- curves: rows of system, gold, passages, group ("all"), variant (""), points ([[coverage, accuracy], ...], coverage
  ascending), aurc; none for a cell whose engine told no confidence.
- thresholds: rows of system, passages, group ("all"), confidence, over_refusal, hallucination_rate: what declining
  below that confidence leaves of the answers that nothing supports.
- routing: rows of system, gold, passages, variant, n, answerable_share, token_share, accuracy, few_accuracy,
  all_accuracy, right_to_answer, right_to_route, confusion {few_right, few_wrong, all_right, all_wrong} (counts).
  token_share, all_accuracy and right_to_answer are null where no system of the same kind is shown all passages;
  right_to_answer is also null where nothing was answered from few, right_to_route where nothing was routed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.evaluation.answers import HEADLINE, Point, Scored, answer_row, point_of, prices_of, scored
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.cells import SWEEP_MODES, Points, Sampling, cells, differences, fall_from, falls, mode_of
from rag_ft.evaluation.robustness import Field, kin_of, robustness_rows
from rag_ft.evaluation.routing import routing_rows, showing_all
from rag_ft.evaluation.selective import curves, thresholds
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.evaluation.statistics import detectable_difference, holm

EVERYONE = "all"
POWER = 0.8
VERSION = 1


def score_cases(
    cases: Sequence[Case],
    sampling: Sampling,
    *,
    baseline: str = "base",
    run_name: str,
    partial: bool,
    recall: Sequence[Mapping[str, Any]] = (),
    systems: Sequence[SystemSettings] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score cases into the plain dictionary that scores.json holds, and the rows of answers.jsonl (see answer_row).

    The module's docstring has the keys of scores.json.

    Args:
        cases: in any order of questions; systems are listed in order of first appearance.
        sampling: how intervals are made, and which questions are drawn together; the same seed gives the same scores.
        baseline: the system the others are compared with; without it there are no differences.
        run_name: the name of the run.
        partial: only a part of the questions was asked.
        recall: rows {group, passages, recall}: share of the questions with gold that have all of it in the top so many.
        systems: as the recipe has them: they tell whose references serve several systems, what a router is held
            against, and the prices of endpoints. Without them every system stands for itself.

    Raises:
        RagFtError: there are no cases, one stands there twice, or no question is common to all cells of a mode.
    """
    _check(cases)
    bootstrap = sampling.bootstrap
    prices = prices_of(systems)
    answers = [scored(case, prices.get(case.prediction.system)) for case in cases]
    points, groups = _points(answers), _questions_by_group(cases)
    scores: dict[str, Any] = {
        "version": VERSION,
        "run": run_name,
        "partial": partial,
        "confidence": bootstrap.confidence,
        "interval": bootstrap.interval,
        "resample": "question" if sampling.clusters is None else "document",
        "resamples": bootstrap.resamples,
        "seed": bootstrap.seed,
        "metric": HEADLINE,
        "baseline": baseline,
        "questions": {group: len(ids) for group, ids in groups.items()},
        "recall": [dict(row) for row in recall],
        "detectable": _detectable(len(groups[EVERYONE]), bootstrap.confidence),
        **_tables(points, groups, baseline, sampling),
        "robustness": robustness_rows(Field(points, kin_of(systems)), groups, sampling),
        "curves": curves(points),
        "thresholds": thresholds(points),
        "routing": routing_rows(points, showing_all(systems)),
    }
    clusters = sampling.clusters or {}
    documents = (clusters.get(answer.case.prediction.question_id) for answer in answers)
    return scores, [
        answer_row(answer, document, partial=partial) for answer, document in zip(answers, documents, strict=True)
    ]


def _check(cases: Sequence[Case]) -> None:
    if not cases:
        raise RagFtError("there are no predictions to score. Run `rag-ft evaluate RECIPE` first.")
    seen, groups = set(), dict[str, str]()
    for case in cases:
        row, key = case.prediction, (case.prediction.question_id, point_of(case))
        if key in seen:
            raise RagFtError(
                f"question {row.question_id!r} is answered twice by {row.system!r} with {row.passages} passages "
                f"({' '.join(filter(None, (row.gold, row.variant)))}), so its score would count double. "
                "Run `rag-ft evaluate RECIPE --restart` to start over."
            )
        seen.add(key)
        if groups.setdefault(row.question_id, row.group) != row.group:
            raise RagFtError(
                f"question {row.question_id!r} stands in group {groups[row.question_id]!r} and in {row.group!r}; "
                "a question has one group. Give the questions distinct ids and run `rag-ft build RECIPE` again."
            )


def _points(answers: Iterable[Scored]) -> dict[Point, dict[str, Scored]]:
    """Return answers by point and question: modes and systems as they first appear, passage counts ascending."""
    points: dict[Point, dict[str, Scored]] = {}
    for answer in answers:
        points.setdefault(point_of(answer.case), {})[answer.case.prediction.question_id] = answer
    modes = list(dict.fromkeys((point.gold, point.variant) for point in points))
    systems = list(dict.fromkeys(point.system for point in points))
    order = {one: (modes.index((one.gold, one.variant)), systems.index(one.system), one.passages) for one in points}
    return {point: points[point] for point in sorted(points, key=order.__getitem__)}


def _questions_by_group(cases: Iterable[Case]) -> dict[str, set[str]]:
    """Return question ids under "all" and under each named group."""
    groups: dict[str, set[str]] = {}
    for case in cases:
        groups.setdefault(case.prediction.group, set()).add(case.prediction.question_id)
    named = {name: groups[name] for name in sorted(groups) if name not in ("", EVERYONE)}
    return {EVERYONE: set[str]().union(*groups.values()), **named}


def _detectable(n: int, confidence: float) -> dict[str, Any]:
    difference = detectable_difference(n, power=POWER, confidence=confidence)
    return {"n": n, "power": POWER, "difference": round(difference, 6)}


def _tables(
    points: Points, groups: Mapping[str, set[str]], baseline: str, sampling: Sampling
) -> dict[str, list[dict[str, Any]]]:
    """Return cells, differences, drops and retention of all modes."""
    tables: dict[str, list[dict[str, Any]]] = {"cells": [], "differences": [], "drops": [], "retention": []}
    for place in dict.fromkeys((point.gold, point.variant) for point in points):
        of_mode = {point: by_id for point, by_id in points.items() if (point.gold, point.variant) == place}
        common = _common(of_mode)
        for group, ids in groups.items():
            if shared := sorted(common & ids):
                _add_mode(tables, of_mode, group, shared, baseline, sampling)
    everyone = [row for row in tables["differences"] if row["group"] == EVERYONE]
    for row, corrected in zip(everyone, holm([row["p"] for row in everyone]), strict=True):
        row["p_holm"] = float(f"{corrected:.6g}")
    return tables


def _common(points: Points) -> set[str]:
    """Return the questions that have been answered at every point."""
    common = set.intersection(*(set(by_id) for by_id in points.values()))
    if not common:
        one = next(iter(points))
        raise RagFtError(
            f"no question can be asked at every point of gold mode {one.gold!r}"
            f"{f' with {one.variant}' if one.variant else ''}: each point leaves out others, so nothing can be "
            "compared. Ask more questions (evaluation.questions), or fewer counts in that sweep (evaluation.sweeps)."
        )
    return common


def _add_mode(
    tables: Mapping[str, list[dict[str, Any]]],
    points: Points,
    group: str,
    ids: Sequence[str],
    baseline: str,
    sampling: Sampling,
) -> None:
    mode = mode_of(points, group, ids, sampling)
    tables["cells"].extend(cells(mode))
    tables["differences"].extend(differences(mode, baseline))
    if mode.gold in SWEEP_MODES and len({point.passages for point in points}) > 1:
        least, same = fall_from(points, ids)
        later = {point: by_id for point, by_id in points.items() if point.passages >= least}
        whole = same == list(ids) and len(later) == len(points)
        drops, retention = falls(mode if whole else mode_of(later, group, same, sampling), baseline)
        tables["drops"].extend(drops)
        tables["retention"].extend(retention)
