"""The cells of one mode of the grid, on the same questions: means, paired differences, how accuracy falls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rag_ft.evaluation.answers import HEADLINE, Point, Scored, column
from rag_ft.evaluation.metrics import abstention
from rag_ft.evaluation.statistics import Bootstrap, Interval, ResampledMeans, mcnemar, resample, sign_flip

SWEEP_MODES = ("kept", "retrieved")
"""Gold modes in which accuracy is meant to hold as passages are added."""
Points = Mapping[Point, Mapping[str, Scored]]
"""Answers by cell and question id: systems as they first appear, passage counts ascending."""


@dataclass(frozen=True)
class Sampling:
    """How questions are drawn: the bootstrap, and by question id the cluster drawn together (None: none)."""

    bootstrap: Bootstrap
    clusters: Mapping[str, str] | None = None

    def resample(self, columns: Sequence[Sequence[float]], ids: Sequence[str]) -> ResampledMeans:
        """Resample columns that hold one number for each of the questions `ids`."""
        return resample(np.column_stack(columns), self.bootstrap, self._of(ids))

    def tally(self, gains: Sequence[float], ids: Sequence[str]) -> dict[str, Any]:
        """Count wins, losses and ties of what a system gains on each of the questions `ids`, and test them.

        McNemar's exact test; where questions are drawn in clusters, random flips of whole clusters.
        """
        wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        clusters = self._of(ids)
        p = mcnemar(wins, losses) if clusters is None else sign_flip(gains, clusters, self.bootstrap)
        return {"wins": wins, "losses": losses, "ties": len(gains) - wins - losses, "p": float(f"{p:.6g}")}

    def _of(self, ids: Sequence[str]) -> list[str] | None:
        return None if self.clusters is None else [self.clusters.get(id_, id_) for id_ in ids]


@dataclass(frozen=True)
class Mode:
    """All cells of a gold mode, variant and group on the same questions, resampled together."""

    gold: str
    variant: str
    group: str
    rows: Mapping[Point, Sequence[Scored]]
    metrics: Sequence[str]
    resampled: ResampledMeans
    sampling: Sampling

    def column(self, point: Point, metric: str = HEADLINE) -> int:
        """Return the column of a cell's metric."""
        return list(self.rows).index(point) * len(self.metrics) + self.metrics.index(metric)

    def sweep(self, system: str) -> list[Point]:
        """Return a system's points, passage counts ascending."""
        return [point for point in self.rows if point.system == system]

    def place(self) -> dict[str, str]:
        """Return what every row of scores.json says of where it stands."""
        return {"gold": self.gold, "variant": self.variant, "group": self.group}


def mode_of(points: Points, group: str, ids: Sequence[str], sampling: Sampling) -> Mode:
    """Resample all cells of one gold mode and variant on the questions `ids`, which each of them has answered."""
    rows = {point: [by_id[id_] for id_ in ids] for point, by_id in points.items()}
    first, answers = next(iter(rows.items()))
    metrics = list(answers[0].values)
    # One column per point and metric, points outermost, as Mode.column counts.
    columns = [_values(answers, name) for answers in rows.values() for name in metrics]
    return Mode(first.gold, first.variant, group, rows, metrics, sampling.resample(columns, ids), sampling)


def _values(answers: Sequence[Scored], name: str) -> list[float]:
    return column(answers, lambda answer: answer.values[name])


def fall_from(points: Points, ids: Sequence[str]) -> tuple[int, list[str]]:
    """Return the count from which on accuracy is said to fall, and the questions that say so.

    With gold kept those are the ones that can be answered at every count from there on: a question of two hops cannot
    at one passage, and would make the fall from there look small. The count is the smallest that leaves half of those
    that can be answered at the largest, so that a few odd questions do not speak for all; where no question names its
    evidence, all say it, from the first count on.
    """
    counts = sorted({point.passages for point in points})
    if any(point.gold != "kept" for point in points):
        return counts[0], list(ids)
    later = {least: [by_id for point, by_id in points.items() if point.passages >= least] for least in counts}
    always = {
        least: [id_ for id_ in ids if all(by_id[id_].case.prediction.answerable for by_id in there)]
        for least, there in later.items()
    }
    most = len(always[counts[-1]])
    if not most:
        return counts[0], list(ids)
    return next((least, same) for least, same in always.items() if 2 * len(same) >= most)


def cells(mode: Mode) -> list[dict[str, Any]]:
    """Return the row of every cell."""
    return [_cell(mode, point) for point in mode.rows]


def _cell(mode: Mode, point: Point) -> dict[str, Any]:
    answers = mode.rows[point]
    rows = [answer.case.prediction for answer in answers]
    table = abstention(
        (answer.case.prediction.answerable, answer.abstained) for answer in answers if answer.case.may_decline
    )
    return {
        "system": point.system,
        **mode.place(),
        "passages": max(row.passages for row in rows),
        "n": len(rows),
        "answerable": sum(row.answerable for row in rows),
        **{name: plain(mode.resampled.mean(mode.column(point, name))) for name in mode.metrics},
        "abstention": {key: rounded(value) for key, value in asdict(table).items()},
        "failures": sum(row.failure is not None for row in rows),
        "prompt_tokens": mean(row.prompt_tokens for row in rows),
        "output_tokens": mean(row.output_tokens for row in rows),
        "seconds": mean(row.seconds for row in rows),
        "calls": mean(row.calls for row in rows),
        "cost": _mean_cost(answers),
    }


def _mean_cost(answers: Sequence[Scored]) -> float | None:
    costs = [answer.cost for answer in answers if answer.cost is not None]
    return float(f"{np.mean(costs):.6g}") if costs else None  # often far below a millionth


def differences(mode: Mode, baseline: str) -> list[dict[str, Any]]:
    """Return every system against the baseline at the same count, question by question."""
    found = []
    for point, answers in mode.rows.items():
        other = Point(baseline, point.gold, point.variant, point.passages)
        if point.system != baseline and other in mode.rows:
            interval = mode.resampled.difference(mode.column(point), mode.column(other))
            gains = [one.accuracy - two.accuracy for one, two in zip(answers, mode.rows[other], strict=True)]
            ids = [answer.case.prediction.question_id for answer in answers]
            passages = max(answer.case.prediction.passages for answer in answers)
            place = {"system": point.system, "baseline": baseline, **mode.place(), "passages": passages}
            found.append({**place, HEADLINE: plain(interval), **mode.sampling.tally(gains, ids), "p_holm": None})
    return found


def falls(mode: Mode, baseline: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the drops and the retentions of the systems that were asked at several counts."""
    systems = dict.fromkeys(point.system for point in mode.rows)
    swept = [system for system in systems if len(mode.sweep(system)) > 1]
    return [_drop(mode, system, baseline) for system in swept], [_retention(mode, system) for system in swept]


def _drop(mode: Mode, system: str, baseline: str) -> dict[str, Any]:
    """Return how far a system falls from its best count to its largest, and that against the baseline's fall."""
    points, others = mode.sweep(system), mode.sweep(baseline)
    columns, against = ([mode.column(point) for point in sweep] for sweep in (points, others))
    drop = mode.resampled.drop_from_best(columns)
    alike = system != baseline and [one.passages for one in points] == [one.passages for one in others]
    return {
        "system": system,
        **mode.place(),
        "n": mode.resampled.n,
        "smallest_passages": points[0].passages,
        "best_passages": points[drop.best].passages,
        "largest_passages": points[-1].passages,
        HEADLINE: plain(drop.interval),
        "minus_baseline": plain(mode.resampled.drop_difference(columns, against)) if alike else None,
    }


def _retention(mode: Mode, system: str) -> dict[str, Any]:
    """Return accuracy at the largest count over that at the smallest; null where the latter is 0."""
    points = mode.sweep(system)
    smallest, largest = (float(mode.resampled.means[mode.column(point)]) for point in (points[0], points[-1]))
    ratio = rounded(largest / smallest) if smallest else None
    return {"system": system, **mode.place(), "n": mode.resampled.n, "ratio": ratio}


def plain(interval: Interval) -> dict[str, float] | None:
    """Return an interval as scores.json holds it; None where nothing was there to be measured."""
    if not interval.n or np.isnan(interval.mean):
        return None
    return {**{name: round(getattr(interval, name), 6) for name in ("mean", "low", "high")}, "n": interval.n}


def rounded(value: float | None) -> float | None:
    """Round what is no count to six places."""
    return round(value, 6) if isinstance(value, float) else value


def mean(values: Iterable[float]) -> float:
    """Return the mean, rounded."""
    return round(float(np.mean(list(values))), 6)
