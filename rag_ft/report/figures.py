"""Accuracy against passages as SVG or PNG, and its text alternative. Draws numbers; decides nothing about them.

Every series has a colour of the Okabe-Ito palette (safe for colour-blind readers), a marker and a line style of its
own, so that the figure also reads in grey. Text stays text, and the same scores give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from rag_ft.report.findings import counts_of, find, gold_modes, main_systems, percent, systems_of, title

INK, MUTED, RULE = "#1f2328", "#59636e", "#d8dde3"
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LONGEST_LABEL = 20
_STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's own font
    "svg.hashsalt": "rag-ft",  # else ids are random and the bytes differ from run to run
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
}
# Verdana has the widths of DejaVu Sans, so a file opened elsewhere keeps its layout.
_STANDALONE_FONT = "'DejaVu Sans', Verdana, sans-serif"


@dataclass(frozen=True)
class Series:
    """One line: a system's accuracy (shares of 1) at each passage count that was scored."""

    system: str
    counts: tuple[int, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@dataclass(frozen=True)
class Level:
    """A horizontal reference, or the recall line where `counts` is not empty. `shares` are of 1."""

    name: str
    shares: tuple[float, ...]
    counts: tuple[int, ...] = ()


def series_of(scores: Mapping[str, Any], gold: str, group: str) -> list[Series]:
    """Return the lines of one panel, the headline system first: it gets the first colour in every panel."""
    system, baseline = main_systems(scores)
    names = sorted(systems_of(scores), key=lambda name: (name != system, name != baseline))
    found = []
    for name in names:
        cells = [
            cell
            for count in counts_of(scores, gold)
            if (cell := find(scores["cells"], system=name, gold=gold, group=group, passages=count))
        ]
        values = [tuple(cell["accuracy"][key] for cell in cells) for key in ("mean", "low", "high")]
        found.append(Series(name, tuple(cell["passages"] for cell in cells), *values))
    return found


def levels_of(scores: Mapping[str, Any], gold: str, group: str) -> list[Level]:
    """Return recall at k (for passages as retrieved) and the headline system's reference points."""
    recall = [row for row in scores["recall"] if row["group"] == group and row["passages"] in counts_of(scores, gold)]
    recall.sort(key=lambda row: row["passages"])
    levels = []
    if gold == "retrieved" and recall:
        found = tuple(row["recall"] for row in recall)
        levels.append(Level("evidence retrieved", found, tuple(row["passages"] for row in recall)))
    for reference, name in (("gold_only", "gold alone"), ("closed_book", "no passages")):
        cell = find(scores["cells"], system=main_systems(scores)[0], gold=reference, group=group)
        if cell:
            levels.append(Level(name, (cell["accuracy"]["mean"],)))
    return levels


def figure_title(scores: Mapping[str, Any], gold: str, group: str = "all") -> tuple[str, str]:
    """Return what a panel shows, and its finding in numbers without a judgement."""
    name = title(gold) if group == "all" else f"{title(gold)}: {title(group).lower()}"
    drawn = [line for line in series_of(scores, gold, group) if line.counts]
    if not drawn:
        return name, "No answers scored"
    largest = max(line.counts[-1] for line in drawn)
    ends = [line for line in drawn if line.counts[-1] == largest]
    shares = [f"{_cut(line.system, _LONGEST_LABEL)} {percent(line.means[-1], 0)} %" for line in ends[:2]]
    return name, f"Accuracy at {largest}: {', '.join(shares)}"


def alt_text(scores: Mapping[str, Any], gold: str, group: str = "all") -> str:
    """Return a panel's numbers as one paragraph, for readers who cannot see it."""
    parts = [f"Line chart, {title(gold).lower()}, {title(group).lower()}: accuracy in percent by passages shown."]
    for line in series_of(scores, gold, group):
        pairs = zip(line.counts, line.means, strict=True)
        parts.append(f"{line.system}: " + ", ".join(f"{percent(mean)} at {count}" for count, mean in pairs) + ".")
    for item in levels_of(scores, gold, group):
        at = [f" at {count}" for count in item.counts] or [""]
        pairs_of_level = zip(item.shares, at, strict=True)
        parts.append(
            f"{item.name.capitalize()}: " + ", ".join(percent(share) + where for share, where in pairs_of_level) + "."
        )
    return " ".join(parts)


def inline_svg(scores: Mapping[str, Any], gold: str, group: str = "all", *, compact: bool = False) -> str:
    """Return one panel as an `<svg>` element for an HTML page.

    It takes the page's font, has no background, and its colours are CSS variables (`--ink`, `--muted`, `--rule`,
    `--series-1` ...) with the printed colours as fallback. Ids carry the panel's name, so several fit one page.
    """
    size = (2.75, 2.35) if compact else (5.4, 3.75)
    svg = _render(scores, [gold], group, size, "svg", compact).decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<(metadata|title)>.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    prefix = re.sub(r"\W+", "-", f"{gold}-{group}")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)").replace("fill: #ffffff", "fill: none", 1)
    for name, colour in {"ink": INK, "muted": MUTED, "rule": RULE, **_series_names()}.items():
        svg = svg.replace(colour, f"var(--{name}, {colour})")
    return svg.strip()


def _series_names() -> dict[str, str]:
    return {f"series-{number}": colour for number, colour in enumerate(SERIES_COLOURS, start=1)}


def save_figure(scores: Mapping[str, Any], path: Path, group: str = "all") -> None:
    """Write the figure with one panel per gold mode, atomically, as SVG or PNG by the suffix of `path`.

    Raises:
        RagFtError: another suffix, or scores without a sweep over passage counts.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise RagFtError(f'cannot draw {path.name}: "{path.suffix}" is no figure format. Name it .svg or .png.')
    modes = gold_modes(scores)
    if not modes:
        raise RagFtError(
            f"cannot draw {path.name}: the scores hold no sweep over passage counts. "
            "Set evaluation.passages and run `rag-ft evaluate RECIPE`."
        )
    content = _render(scores, modes, group, (5.4 * len(modes), 3.75), kind, False)
    if kind == "svg":
        content = content.replace(b"'DejaVu Sans'", _STANDALONE_FONT.encode())
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _render(
    scores: Mapping[str, Any], golds: Sequence[str], group: str, size: tuple[float, float], kind: str, compact: bool
) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "font.size": _font_size(compact)}):
        figure = Figure(figsize=size, facecolor="white")
        panels = figure.subplots(1, len(golds), squeeze=False)[0]
        for axes, gold in zip(panels, golds, strict=True):
            _panel(axes, scores, gold, group, compact)
        _margins(figure, scores, golds, group, compact)
        # Dates and versions would make the bytes differ from day to day and from machine to machine.
        plain = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=plain, dpi=200 if kind == "png" else 72)
    return buffer.getvalue()


def _font_size(compact: bool) -> float:
    return 8 if compact else 9.5


def _margins(figure: Any, scores: Mapping[str, Any], golds: Sequence[str], group: str, compact: bool) -> None:
    """Leave as much room at the right as the longest direct label needs."""
    width, height = figure.get_size_inches()
    longest = max(len(text) for gold in golds for text, *_ in _labels(scores, gold, group, compact))
    right = (longest * _font_size(compact) * 0.6 + 16) / 72
    left, top, bottom = 0.46, 0.62, 0.5
    if len(golds) > 1:
        between = (right + left) / ((width - right - left - (right + left) * (len(golds) - 1)) / len(golds))
        figure.subplots_adjust(wspace=between)
    figure.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)


def _panel(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    for item in levels_of(scores, gold, group):
        shares = [100 * share for share in item.shares]
        if item.counts:
            axes.plot(item.counts, shares, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        else:
            axes.axhline(shares[0], color=MUTED, linewidth=0.8, linestyle=(0, (6, 4)))
    for number, line in enumerate(series_of(scores, gold, group)):
        colour, dash, marker = (kinds[number % len(kinds)] for kinds in (SERIES_COLOURS, _LINES, _MARKERS))
        low, mean, high = ([100 * share for share in shares] for shares in (line.lows, line.means, line.highs))
        axes.fill_between(line.counts, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(line.counts, mean, color=colour, linestyle=dash, marker=marker, markersize=5, linewidth=1.9)
    _axes(axes, scores, gold, group, compact)
    _end_labels(axes, scores, gold, group, compact)


def _axes(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    from matplotlib.ticker import NullLocator

    counts = counts_of(scores, gold)
    axes.set_xscale("log")  # counts are mostly 1, 2, 5, 10 ...: even steps on a logarithmic axis
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(counts[0] / 1.12, counts[-1] * 1.06)
    axes.set_ylim(0, 100)  # from zero, so that no difference looks larger than it is
    axes.set_yticks(range(0, 101, 50 if compact else 20))
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("Passages shown")
    name, finding = figure_title(scores, gold, group)
    for text, weight, up, colour in ((name, "bold", 25, INK), (finding, "normal", 11, MUTED)):
        axes.annotate(
            text,
            (0, 1),
            (-26, up),  # points: titles start above the tick labels, not above the axis
            xycoords="axes fraction",
            textcoords="offset points",
            weight=weight,
            color=colour,
            parse_math=False,
        )


_Label = tuple[str, float, float, str, str]


def _labels(scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> list[_Label]:
    """Return (text, y of the line's end, y of the label, colour, weight) for what ends at the right edge."""
    lines = series_of(scores, gold, group)
    entries = [
        (line.system, line.means[-1], SERIES_COLOURS[number % len(SERIES_COLOURS)], "bold" if number == 0 else "normal")
        for number, line in enumerate(lines)
        if line.counts
    ]
    if not compact:
        entries += [(item.name, item.shares[-1], MUTED, "normal") for item in levels_of(scores, gold, group)]
    placed = spread([100 * entry[1] for entry in entries], 12.0 if compact else 6.2, 0, 100)
    return [
        (_short(name, percent(share, 0), compact), 100 * share, y, colour, weight)
        for (name, share, colour, weight), y in zip(entries, placed, strict=True)
    ]


def _short(name: str, number: str, compact: bool) -> str:
    if compact:
        return number
    return f"{number} {_cut(name, _LONGEST_LABEL)}"


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}\u2026"


def _end_labels(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    edge = axes.get_yaxis_transform()  # x in fractions of the axes, y in percent
    for text, end, y, colour, weight in _labels(scores, gold, group, compact):
        axes.plot([1.0, 1.025], [end, y], transform=edge, color=colour, linewidth=0.9, clip_on=False)
        ink = MUTED if colour == MUTED else INK
        axes.text(1.035, y, text, transform=edge, va="center", color=ink, weight=weight, parse_math=False)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move values apart to at least `gap`, as little as possible in least squares, within [low, high] where they fit.

    Pool-adjacent-violators on the values less their multiples of `gap`.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    blocks: list[list[float]] = []  # [sum, count]
    for place, index in enumerate(order):
        blocks.append([values[index] - place * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    fitted = [total / count for total, count in blocks for _ in range(int(count))]
    top = high - (len(values) - 1) * gap
    result = [0.0] * len(values)
    for place, index in enumerate(order):
        result[index] = max(low, min(fitted[place], top)) + place * gap
    return result
