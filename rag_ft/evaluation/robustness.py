"""One system in a row of numbers: how it holds as passages are added, moved, shuffled and made noisy.

Every number is made of means over questions that all systems have answered at all points it looks at, resampled
together, so systems can be compared. Except where said, it is accuracy that is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from data_builders.text import answer_tokens
from rag_ft.evaluation.answers import Point, Scored
from rag_ft.evaluation.cells import SWEEP_MODES, Points, Sampling, fall_from, plain
from rag_ft.evaluation.conditions import axes_of
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.evaluation.statistics import Interval, ResampledMeans

Answers = Sequence[Sequence[Scored]]
"""Answers by point and question."""


@dataclass(frozen=True)
class Field:
    """Where the numbers of a system are looked up.

    Attributes:
        points: all cells of the grid.
        kin: by system those of the same weights, endpoint and style, itself first: the order of passages does not
            matter to a reference, so one of them has it.
    """

    points: Points
    kin: Mapping[str, Sequence[str]]

    def counts(self, system: str, gold: str) -> list[Point]:
        """Return the main sweep of a system, counts ascending."""
        return [point for point in self.points if (point.system, point.gold, point.variant) == (system, gold, "")]

    def reference(self, system: str, gold: str) -> list[Point]:
        """Return a reference of a system or of its kin; none where nobody has it."""
        wanted = (Point(name, gold, "", 0) for name in self.kin.get(system, [system]))
        return [point for point in wanted if point in self.points][:1]

    def along(self, system: str, gold: str, axis: str) -> list[Point]:
        """Return the points that differ in one axis alone, by its value, at the largest count that has several."""
        return self._several(system, gold, lambda axes: float(axes[axis]) if set(axes) == {axis} else None)

    def shuffles(self, system: str, gold: str) -> list[Point]:
        """Return the shuffles of the same contexts, at the largest count that has several."""
        return self._several(system, gold, _draw)

    def _several(self, system: str, gold: str, place: Callable[[Mapping[str, str]], float | None]) -> list[Point]:
        by_count: dict[int, list[tuple[float, Point]]] = {}
        for point in self.points:
            if (point.system, point.gold) == (system, gold) and (at := place(axes_of(point.variant))) is not None:
                by_count.setdefault(point.passages, []).append((at, point))
        largest = max((count for count, found in by_count.items() if len(found) > 1), default=None)
        return [] if largest is None else [point for _, point in sorted(by_count[largest], key=lambda one: one[0])]


def _draw(axes: Mapping[str, str]) -> float | None:
    shuffled = axes.get("order") == "shuffled" and set(axes) <= {"order", "draw"}
    return float(axes.get("draw", 0)) if shuffled else None


def kin_of(systems: Iterable[SystemSettings]) -> dict[str, list[str]]:
    """Return by system the names of those that share weights, endpoint and style, itself first."""
    known = list(systems)
    return {
        one.name: [one.name, *(other.name for other in known if other.name != one.name and alike(one, other))]
        for one in known
    }


def alike(one: SystemSettings, other: SystemSettings) -> bool:
    """Tell whether two systems differ in nothing but name and strategy."""
    return (one.weights, one.endpoint, one.style) == (other.weights, other.endpoint, other.style)


# The numbers. Each takes resampled columns and says in its first line what it is.


def area(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Area under accuracy over log k by trapezoids, divided by the width, so from 0 to 1 (ours)."""
    places = np.log([point.passages for point in points])
    widths = np.diff(places)
    shares = (np.append(widths, 0) + np.append(0, widths)) / 2 / (places[-1] - places[0])
    return resampled.statistic(columns, lambda means: means @ shares)


def drop_from_peak(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Accuracy at the best count minus accuracy at the largest (after the inverted U of arXiv 2410.05983)."""
    return resampled.drop_from_best(columns).interval


def retention(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Accuracy at the largest count divided by that at the smallest (ours); null where the latter is 0."""
    return resampled.statistic([columns[0], columns[-1]], lambda means: _divided(means[:, 1], means[:, 0]))


def mean_of_column(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Mean of a column that is made for the number."""
    return resampled.mean(columns[0])


def position_spread(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Accuracy at the best place of the gold passages minus that at the worst (max - min, after arXiv 2307.03172)."""
    return resampled.spread(columns)


def position_middle_drop(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Mean accuracy with gold first and last minus the mean over the places between (after arXiv 2307.03172)."""
    between = slice(1, len(columns) - 1)
    return resampled.statistic(columns, lambda means: means[:, [0, -1]].mean(1) - means[:, between].mean(1))


def net_harm(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Accuracy without passages minus that at the largest count: what passages cost (RetRobust, arXiv 2310.01558)."""
    return resampled.difference(columns[0], columns[-1])


def noise_drop(resampled: ResampledMeans, columns: list[int], points: Sequence[Point]) -> Interval:
    """Accuracy at the lowest share of noise minus that at the highest (after RGB, arXiv 2309.01431)."""
    return resampled.difference(columns[0], columns[-1])


def _divided(parts: np.ndarray[Any, Any], wholes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(wholes > 0, parts / wholes, np.nan)


# The columns they are made of.


def accuracies(answers: Answers) -> list[list[float]]:
    """Accuracy at each point."""
    return [[answer.accuracy for answer in point] for point in answers]


def distracted(answers: Answers) -> list[list[float]]:
    """Wrong at the second point, of the questions that were right at the first (ours)."""
    return [[float("nan") if not one.accuracy else float(not two.accuracy) for one, two in zip(*answers, strict=True)]]


def harmed(answers: Answers) -> list[list[float]]:
    """Right without passages, wrong with them: a share of all questions (ours)."""
    return [[float(one.accuracy > 0 and not two.accuracy) for one, two in zip(*answers, strict=True)]]


def agreement(answers: Answers) -> list[list[float]]:
    """Share of the pairs of shuffles that are answered alike (permutation: after Stable-RAG, arXiv 2601.02993)."""
    return [[_agreeing([said(answer) for answer in question]) for question in zip(*answers, strict=True)]]


def _agreeing(answers: Sequence[str | None]) -> float:
    pairs = list(combinations(answers, 2))
    return sum(one == two and one is not None for one, two in pairs) / len(pairs)


def said(answer: Scored) -> str | None:
    """Return an answer so that two that say the same are equal; None where generation failed, which agrees with none.

    Words without case, punctuation and articles. All abstentions are alike, and so are all outputs without an answer.
    """
    if answer.case.prediction.failure is not None:
        return None
    if answer.abstained:
        return "\x00abstained"
    return " ".join(answer_tokens(answer.case.parsed.answer or ""))


@dataclass(frozen=True)
class Measure:
    """A number of the robustness summary.

    Attributes:
        points: the cells it looks at, of a system in a gold mode; none where it does not apply.
        interval: how it is made of the resampled columns.
        columns: how those are made of the answers.
        fall: over the questions that can be answered at every count, where gold is kept (see fall_from).
    """

    points: Callable[[Field, str, str], list[Point]]
    interval: Callable[[ResampledMeans, list[int], Sequence[Point]], Interval]
    columns: Callable[[Answers], list[list[float]]] = accuracies
    fall: bool = False


def _sweep(field: Field, system: str, gold: str) -> list[Point]:
    points = field.counts(system, gold)
    return points if len(points) > 1 else []


def _gold_only_and_largest(field: Field, system: str, gold: str) -> list[Point]:
    return _with_reference(field, system, gold, "gold_only") if gold == "kept" else []


def _closed_book_and_largest(field: Field, system: str, gold: str) -> list[Point]:
    return _with_reference(field, system, gold, "closed_book")


def _with_reference(field: Field, system: str, gold: str, reference: str) -> list[Point]:
    points = [*field.reference(system, reference), *field.counts(system, gold)[-1:]]
    return points if len(points) == 2 else []


def _positions(field: Field, system: str, gold: str) -> list[Point]:
    return field.along(system, gold, "position")


def _ends_and_middle(field: Field, system: str, gold: str) -> list[Point]:
    points = _positions(field, system, gold)
    places = [float(axes_of(point.variant)["position"]) for point in points]
    return points if len(points) > 2 and (places[0], places[-1]) == (0, 1) else []


def _noises(field: Field, system: str, gold: str) -> list[Point]:
    """Nothing where no question was shown other passages at one share of noise than at another: none was moved."""
    points = field.along(system, gold, "noise")
    shown = [{id_: one.case.prediction.shown for id_, one in field.points[point].items()} for point in points]
    return points if any(one != shown[0] for one in shown) else []


MEASURES: dict[str, Measure] = {
    "auc": Measure(_sweep, area, fall=True),
    "drop_from_peak": Measure(_sweep, drop_from_peak, fall=True),
    "retention": Measure(_sweep, retention, fall=True),
    "distraction_rate": Measure(_gold_only_and_largest, mean_of_column, distracted),
    "position_spread": Measure(_positions, position_spread),
    "position_middle_drop": Measure(_ends_and_middle, position_middle_drop),
    "net_harm": Measure(_closed_book_and_largest, net_harm),
    "harm_rate": Measure(_closed_book_and_largest, mean_of_column, harmed),
    "consistency": Measure(Field.shuffles, mean_of_column, agreement),
    "noise_drop": Measure(_noises, noise_drop),
}


def robustness_rows(field: Field, groups: Mapping[str, set[str]], sampling: Sampling) -> list[dict[str, Any]]:
    """Return one row per group, gold mode of the main sweep and system: every measure, or null where none applies."""
    systems = list(dict.fromkeys(point.system for point in field.points))
    present = {point.gold for point in field.points}
    rows = []
    for group, ids in groups.items():
        for gold in (mode for mode in SWEEP_MODES if mode in present):
            found = {name: _measured(one, field, gold, ids, sampling) for name, one in MEASURES.items()}
            rows += [
                {"system": system, "group": group, "gold": gold}
                | {name: by_system.get(system) for name, by_system in found.items()}
                for system in systems
            ]
    return rows


def _measured(
    measure: Measure, field: Field, gold: str, group: set[str], sampling: Sampling
) -> dict[str, dict[str, float] | None]:
    """Return a measure of every system it applies to, all on the same questions."""
    systems = dict.fromkeys(point.system for point in field.points)
    points = {system: found for system in systems if (found := measure.points(field, system, gold))}
    looked_at = {point: field.points[point] for found in points.values() for point in found}
    ids = sorted(group.intersection(*looked_at.values())) if looked_at else []
    if measure.fall and ids:
        least, ids = fall_from(looked_at, ids)
        later = {system: [point for point in found if point.passages >= least] for system, found in points.items()}
        points = {system: found for system, found in later.items() if len(found) > 1}
    if not ids or not points:
        return {}
    columns = {
        system: measure.columns([[field.points[point][id_] for id_ in ids] for point in found])
        for system, found in points.items()
    }
    resampled = sampling.resample([column for made in columns.values() for column in made], ids)
    first, intervals = 0, {}
    for system, made in columns.items():
        places = list(range(first, first := first + len(made)))
        intervals[system] = plain(measure.interval(resampled, places, points[system]))
    return intervals
