"""One axis of the grid at a time: which cells differ in it alone, side by side. Lays nothing out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rag_ft.report.findings import axes_of, percent, systems_of

_AT_REST = {"order": "retrieved", "retriever": ""}  # what a cell says that does not name the axis
_ORDER = {"negatives": ("random", "weak", "hard"), "order": ("retrieved", "reordered", "shuffled")}
_NUMBERS = ("position", "noise")
_WORDS = {
    "retriever": {"": "as ranked for the run"},
    "position": {"0": "First", "1": "Last"},
    "order": {"retrieved": "By rank", "reordered": "Best at both ends", "shuffled": "Shuffled"},
    "negatives": {"random": "Of other questions", "weak": "Worst ranked", "hard": "Best ranked"},
}


@dataclass(frozen=True)
class AxisGrid:
    """Accuracy of every system at the values of one axis, all else equal, over all questions.

    Attributes:
        axis: `position`, `noise`, `negatives`, `order` or `retriever`.
        gold: the gold mode.
        passages: the passage count.
        values: of the axis, in reading order, as the scores write them.
        rows: system to its estimates ({mean, low, high}, or None where not measured), one for each value.
        n: questions.
    """

    axis: str
    gold: str
    passages: int
    values: tuple[str, ...]
    rows: Mapping[str, tuple[Mapping[str, float] | None, ...]]
    n: int

    def names(self) -> list[str]:
        """Return how the page calls the values."""
        return [value_name(self.axis, value) for value in self.values]


def value_name(axis: str, value: str) -> str:
    """Return how the page calls a value of an axis: `0.5` of position becomes "50 %"."""
    if value in _WORDS.get(axis, {}):
        return _WORDS[axis][value]
    return f"{percent(float(value), 0)} %" if axis in _NUMBERS else value


def axis_grids(scores: Mapping[str, Any], axis: str) -> list[AxisGrid]:
    """Return a grid for each gold mode and count at which the axis has at least two values.

    Shuffles of one context are averaged, and so are the ends of their intervals: that is never narrower than the
    interval of the average.
    """
    found: dict[tuple[str, int], dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
    for cell in scores["cells"]:
        moved = axes_of(cell.get("variant", ""))
        moved.pop("draw", None)
        value = moved.pop(axis, _at_rest(axis, cell["gold"]))
        if cell["group"] == "all" and not moved and value is not None and cell.get("accuracy"):
            point = found.setdefault((cell["gold"], cell["passages"]), {})
            point.setdefault((cell["system"], value), []).append(cell)
    grids = [_grid(scores, axis, gold, count, cells) for (gold, count), cells in found.items()]
    return [grid for grid in grids if grid.rows]


def _at_rest(axis: str, gold: str) -> str | None:
    """Return the value of an axis that a cell does not name; None where it has none of those compared."""
    if axis == "negatives":  # as ranked, a context with gold may hold further answers
        return "hard" if gold in ("absent", "counterfactual") else None
    return _AT_REST.get(axis)


def _grid(
    scores: Mapping[str, Any],
    axis: str,
    gold: str,
    count: int,
    cells: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
) -> AxisGrid:
    values = sorted(dict.fromkeys(value for _, value in cells), key=lambda value: _place(axis, value))
    rows = {
        system: tuple(_mean(cells.get((system, value), ())) for value in values)
        for system in systems_of(scores)
        if sum((system, value) in cells for value in values) > 1  # one value shows nothing of the axis
    }
    return AxisGrid(axis, gold, count, tuple(values), rows, max(cell["n"] for one in cells.values() for cell in one))


def _place(axis: str, value: str) -> tuple[float, str]:
    if axis in _NUMBERS:
        return float(value), ""
    known = _ORDER.get(axis, ("",))
    return (known.index(value), "") if value in known else (len(known), value)


def _mean(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, float] | None:
    if not cells:
        return None
    estimates = [cell["accuracy"] for cell in cells]
    return {
        "mean": fmean(each["mean"] for each in estimates),
        "low": fmean(each["low"] for each in estimates),
        "high": fmean(each["high"] for each in estimates),
    }
