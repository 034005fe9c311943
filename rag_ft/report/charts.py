"""Further figures of the page: accuracy along an axis, risk and coverage, cost, paired differences. Draws numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_ft.report.axes import AxisGrid
from rag_ft.report.drawing import INK, MUTED, cut, draw, inline, look, margins, plain_axes, spread, titles
from rag_ft.report.findings import (
    by_importance,
    find,
    gold_modes,
    headline_point,
    interval,
    is_clear,
    level,
    main_sweep,
    percent,
    points,
    title,
)
from rag_ft.report.tables import passages_text

_LONGEST = 24
_SIZE = (5.4, 3.75)
_FONT = 9.5
_DRAWN_POINTS = 60  # of a curve; more are not seen and make the page heavy


@dataclass(frozen=True)
class Line:
    """One series of a chart, in shares of 1 upwards; `number` is its system's in every figure."""

    name: str
    number: int
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart of accuracy: lines over ticks, or (with `loose`) single points, each labelled directly.

    Attributes:
        name: what it shows, and its place among the figures of a page (the prefix of its ids).
        finding: the second line of its title.
        label: of the x axis.
        ticks: places on the x axis and their names; empty leaves them to matplotlib.
        lines: the series, the first drawn first.
        loose: points that no line joins, on a logarithmic axis.
        marked: markers on every point of a line.
    """

    name: str
    finding: str
    label: str
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    loose: bool = False
    marked: bool = True


def axis_chart(scores: Mapping[str, Any], grid: AxisGrid, name: str, label: str) -> Chart:
    """Return accuracy along an axis: numbers keep their distances, words stand in even steps."""
    try:
        places = tuple(100 * float(value) for value in grid.values)
    except ValueError:
        places = tuple(float(number) for number in range(len(grid.values)))
    lines = []
    for number, system in _numbered(scores, grid.rows):
        found = [(x, one) for x, one in zip(places, grid.rows[system], strict=True) if one]
        means, lows, highs = (tuple(one[key] for _, one in found) for key in ("mean", "low", "high"))
        lines.append(Line(system, number, tuple(x for x, _ in found), means, lows, highs))
    where = f"{title(grid.gold)}, {passages_text(grid.passages)}"
    return Chart(name, where, label, tuple(zip(places, grid.names(), strict=True)), tuple(lines))


def coverage_charts(scores: Mapping[str, Any]) -> list[Chart]:
    """Return accuracy among the answers a system is surest of, by their share; one chart per gold mode."""
    golds = gold_modes(scores)
    rows = [row for row in main_sweep(scores.get("curves", ())) if row["gold"] in golds and row["points"]]
    charts = []
    for gold in dict.fromkeys(row["gold"] for row in rows):
        largest = max(row["passages"] for row in rows if row["gold"] == gold)
        here = {row["system"]: row for row in rows if (row["gold"], row["passages"]) == (gold, largest)}
        lines = tuple(_coverage_line(here[system], number) for number, system in _numbered(scores, here))
        ticks = tuple((float(share), str(share)) for share in range(0, 101, 25))
        name = f"Accuracy of the surest answers, {title(gold).lower()}"
        where = f"{passages_text(largest)}; in brackets the area under the risk (AURC)"
        charts.append(Chart(name, where, "Answers given in %, surest first", ticks, lines, marked=False))
    return charts


def _coverage_line(row: Mapping[str, Any], number: int) -> Line:
    step = max(1, -(-len(row["points"]) // _DRAWN_POINTS))
    kept = sorted([*row["points"][:-1:step], row["points"][-1]])
    aurc = row.get("aurc")
    aurc = aurc["mean"] if isinstance(aurc, Mapping) else aurc
    note = "" if aurc is None else f"({aurc:.3f})"
    return Line(row["system"], number, tuple(100 * x for x, _ in kept), tuple(y for _, y in kept), note=note)


def cost_charts(scores: Mapping[str, Any]) -> list[Chart]:
    """Return accuracy against prompt tokens, seconds and price per answer, at the headline count."""
    point = headline_point(scores)
    if point is None:
        return []
    gold, count = point
    wanted = {"prompt_tokens": "Prompt tokens per answer", "seconds": "Seconds per answer", "cost": "Price per answer"}
    charts = []
    for key, label in wanted.items():
        lines = []
        for number, system in _numbered(scores):
            cell = find(scores["cells"], system=system, gold=gold, passages=count, group="all")
            if cell and cell.get(key):
                lines.append(
                    Line(system, number, (cell[key],), (cell["accuracy"]["mean"],), note=f"at {cell[key]:,.3g}")
                )
        if len(lines) > 1:
            where = f"{title(gold)}, {passages_text(count)}"
            charts.append(Chart(f"Accuracy by {label.lower()}", where, label, (), tuple(lines), loose=True))
    return charts


def _numbered(scores: Mapping[str, Any], there: Mapping[str, Any] | None = None) -> list[tuple[int, str]]:
    """Return systems with the number each has in every figure."""
    numbered = enumerate(by_importance(scores))
    return [(number, name) for number, name in numbered if there is None or name in there]


def chart_figure(chart: Chart, partial: bool) -> dict[str, str]:
    """Return a chart as `svg` for the page and its numbers as `alt`."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        (_scatter if chart.loose else _curves)(axes, chart)
        plain_axes(axes, 100, 20)
        axes.set_xlabel(chart.label)
        titles(axes, cut(chart.name, 62), cut(chart.finding, 70))
        labels = _end_labels(axes, chart)
        margins(figure, max(map(len, labels), default=0), _FONT)

    return {"svg": inline(draw(paint, _SIZE, "svg", _FONT, partial), chart.name), "alt": chart_alt(chart, partial)}


def chart_alt(chart: Chart, partial: bool) -> str:
    """Return a chart's numbers as one paragraph."""
    kind = "Scatter plot" if chart.loose else "Line chart"
    parts = [f"{'PARTIAL. ' if partial else ''}{kind}, {chart.name}: accuracy in percent. {chart.finding}."]
    names = dict(chart.ticks)
    for line in chart.lines:
        pairs = list(zip(line.xs, line.ys, strict=True))
        if not chart.marked:  # too many points to read: the fifth parts of the curve say its shape
            pairs = [pairs[round(part * (len(pairs) - 1) / 5)] for part in range(6)]
        at = [f"{percent(y)} at {names.get(x) or _plain_number(x, chart)}" for x, y in pairs]
        note = f" {line.note}" if line.note and not chart.loose else ""
        parts.append(f"{line.name}{note}: {', '.join(at)}.")
    return " ".join(parts)


def _plain_number(x: float, chart: Chart) -> str:
    return f"{x:,.4g}" if chart.loose else f"{x:.0f} %"


def _curves(axes: Any, chart: Chart) -> None:
    for line in chart.lines:
        style = look(line.number)
        if line.lows:
            low, high = ([100 * y for y in ys] for ys in (line.lows, line.highs))
            axes.fill_between(line.xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        every = 1 if chart.marked else max(1, len(line.xs) // 6)
        ys = [100 * y for y in line.ys]
        axes.plot(line.xs, ys, **style, markersize=5, linewidth=1.9, markevery=every)
    places = [place for place, _ in chart.ticks]
    axes.set_xticks(places, [name for _, name in chart.ticks])
    room = (max(places) - min(places)) * (0.12 if any(name[:1].isalpha() for _, name in chart.ticks) else 0.03)
    axes.set_xlim(min(places) - room, max(places) + room)


def _scatter(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    xs = [line.xs[0] for line in chart.lines]
    axes.set_xscale("log")
    axes.set_xlim(min(xs) / 1.3, max(xs) * 1.3)
    ticks = _nice_ticks(min(xs), max(xs))
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    for line in chart.lines:
        style = {**look(line.number), "linestyle": "none"}
        axes.plot(line.xs, [100 * line.ys[0]], **style, markersize=8, zorder=3)


def _nice_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from low to high: of 1, 2, 5 times powers of ten, the ends included where none fits."""
    candidates = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
    inside = [number for number in candidates if low / 1.3 <= number <= high * 1.3]
    return inside if len(inside) > 1 else [float(f"{number:.3g}") for number in dict.fromkeys((low, high))]


def _end_labels(axes: Any, chart: Chart) -> list[str]:
    """Write every series' name and last number at the right edge, joined to its end; return the texts."""
    drawn = [line for line in chart.lines if line.xs]
    edge, texts = axes.get_yaxis_transform(), []
    placed = spread([100 * line.ys[-1] for line in drawn], 6.2, 0, 100)
    for line, y in zip(drawn, placed, strict=True):
        end, text = 100 * line.ys[-1], f"{percent(line.ys[-1], 0)} {cut(line.name, _LONGEST)}"
        text = f"{text} {line.note}" if line.note else text
        style = {"color": look(line.number)["color"], "linewidth": 0.9, "clip_on": False}
        if chart.loose:  # the point stands anywhere: a thin line leads from it to its name
            axes.annotate(
                "",
                (1.0, end),
                (line.xs[0], end),
                xycoords=edge,
                textcoords="data",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "linestyle": (0, (1, 3))},
            )
        axes.plot([1.0, 1.025], [end, y], transform=edge, **style)
        axes.text(1.035, y, text, transform=edge, va="center", color=INK, parse_math=False)
        texts.append(text)
    return texts


def forest_figure(scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, str]:
    """Return paired differences with their intervals, one line each, against a rule at no difference.

    Args:
        scores: for the level of the intervals and the stamp.
        rows: of differences, in the order shown from the top.
        name: the figure's title.
    """
    size = (7.6, 1.15 + 0.3 * len(rows))

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        _forest(axes, rows, [is_clear(row, scores) for row in rows])
        titles(axes, name, f"Points, with {level(scores)} intervals")
        width, height = size
        figure.subplots_adjust(left=2.35 / width, right=1 - 2.0 / width, top=1 - 0.62 / height, bottom=0.42 / height)

    alt = " ".join(f"{_pair(row)}: {_read(row)}{'' if is_clear(row, scores) else ', not clear'}." for row in rows)
    stamp = "PARTIAL. " if scores["partial"] else ""
    svg = inline(draw(paint, size, "svg", _FONT, scores["partial"]), name)
    return {"svg": svg, "alt": f"{stamp}Differences in points with intervals. {alt}"}


def _forest(axes: Any, rows: Sequence[Mapping[str, Any]], clear: Sequence[bool]) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for place, (row, filled) in enumerate(zip(rows, clear, strict=True)):
        low, mean, high = (100 * row["accuracy"][key] for key in ("low", "mean", "high"))
        axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
        # Filled: clear of 0. The shape says it without colour.
        axes.plot([mean], [place], marker="o", markersize=7, color=INK, markerfacecolor=INK if filled else "none")
        axes.annotate(
            _read(row),
            (1.02, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            color=INK,
        )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [cut(_pair(row), 34) for row in rows])
    axes.set_facecolor("none")
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['system']}, {row['passages']}" if row["passages"] else str(row["system"])


def _read(row: Mapping[str, Any]) -> str:
    return f"{points(row['accuracy']['mean'])} ({interval(row['accuracy'], signed=True)})"
