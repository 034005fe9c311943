"""Accuracy against passages as SVG or PNG, and its text alternative. Draws numbers; decides nothing about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from rag_ft.report.drawing import (
    INK,
    MUTED,
    SERIES_COLOURS,
    cut,
    draw,
    inline,
    look,
    margins,
    plain_axes,
    spread,
    standalone,
    titles,
)
from rag_ft.report.findings import by_importance, counts_of, find, gold_modes, main_systems, percent, title

_LONGEST_LABEL = 20


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
    found = []
    for name in by_importance(scores):
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
    shares = [f"{cut(line.system, _LONGEST_LABEL)} {percent(line.means[-1], 0)} %" for line in ends[:2]]
    return name, f"Accuracy at {largest}: {', '.join(shares)}"


def alt_text(scores: Mapping[str, Any], gold: str, group: str = "all") -> str:
    """Return a panel's numbers as one paragraph, for readers who cannot see it."""
    stamp = "PARTIAL. " if scores["partial"] else ""
    parts = [
        f"{stamp}Line chart, {title(gold).lower()}, {title(group).lower()}: accuracy in percent by passages shown."
    ]
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
    """Return one panel as an `<svg>` element for an HTML page, as `rag_ft.report.drawing.inline` does."""
    size = (2.75, 2.35) if compact else (5.4, 3.75)
    return inline(_render(scores, [gold], group, size, "svg", compact), f"{gold}-{group}")


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
    with atomic_path(path) as temporary:
        temporary.write_bytes(standalone(content, kind))


def _render(
    scores: Mapping[str, Any], golds: Sequence[str], group: str, size: tuple[float, float], kind: str, compact: bool
) -> bytes:
    def paint(figure: Any) -> None:
        panels = figure.subplots(1, len(golds), squeeze=False)[0]
        for axes, gold in zip(panels, golds, strict=True):
            _panel(axes, scores, gold, group, compact)
        longest = max(len(text) for gold in golds for text, *_ in _labels(scores, gold, group, compact))
        margins(figure, longest, font_size, len(golds))

    font_size = 8 if compact else 9.5
    return draw(paint, size, kind, font_size, scores["partial"])


def _panel(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    for item in levels_of(scores, gold, group):
        shares = [100 * share for share in item.shares]
        if item.counts:
            axes.plot(item.counts, shares, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        else:
            axes.axhline(shares[0], color=MUTED, linewidth=0.8, linestyle=(0, (6, 4)))
    for number, line in enumerate(series_of(scores, gold, group)):
        style = look(number)
        low, mean, high = ([100 * share for share in shares] for shares in (line.lows, line.means, line.highs))
        axes.fill_between(line.counts, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(line.counts, mean, **style, markersize=5, linewidth=1.9)
    _axes(axes, scores, gold, group, compact)
    _end_labels(axes, scores, gold, group, compact)


def _axes(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    from matplotlib.ticker import NullLocator

    counts = counts_of(scores, gold)
    axes.set_xscale("log")  # counts are mostly 1, 2, 5, 10 ...: even steps on a logarithmic axis
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(counts[0] / 1.12, counts[-1] * 1.06)
    plain_axes(axes, 100, 50 if compact else 20)
    axes.set_xlabel("Passages shown")
    titles(axes, *figure_title(scores, gold, group))


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
    return f"{number} {cut(name, _LONGEST_LABEL)}"


def _end_labels(axes: Any, scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> None:
    edge = axes.get_yaxis_transform()  # x in fractions of the axes, y in percent
    for text, end, y, colour, weight in _labels(scores, gold, group, compact):
        axes.plot([1.0, 1.025], [end, y], transform=edge, color=colour, linewidth=0.9, clip_on=False)
        ink = MUTED if colour == MUTED else INK
        axes.text(1.035, y, text, transform=edge, va="center", color=ink, weight=weight, parse_math=False)
