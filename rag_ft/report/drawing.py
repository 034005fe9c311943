"""How every figure is drawn: palette, type, bytes that do not change, SVG that fits the page. Knows no scores.

Every series has a colour of the Okabe-Ito palette (safe for colour-blind readers), a marker and a line style of its
own, so that a figure also reads in grey. Text stays text, and the same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

INK, MUTED, RULE = "#1f2328", "#59636e", "#d8dde3"
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")
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


def look(number: int) -> dict[str, Any]:
    """Return colour, line style and marker of the series with this number, for matplotlib's `plot`."""
    # Markers and lines go round at other paces than colours, so that twelve series still differ.
    again = number // len(SERIES_COLOURS)
    return {
        "color": SERIES_COLOURS[number % len(SERIES_COLOURS)],
        "linestyle": _LINES[(number + 2 * again) % len(_LINES)],
        "marker": _MARKERS[(number + again) % len(_MARKERS)],
    }


def draw(paint: Callable[[Any], None], size: tuple[float, float], kind: str, font_size: float, partial: bool) -> bytes:
    """Return what `paint` draws on an empty figure, as SVG or PNG.

    Args:
        paint: takes the matplotlib figure and draws on it.
        size: width and height in inches.
        kind: `svg` or `png`.
        font_size: in points.
        partial: write PARTIAL into the upper right corner.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "font.size": font_size}):
        figure = Figure(figsize=size, facecolor="white")
        paint(figure)
        if partial:
            figure.text(0.995, 0.99, "PARTIAL", ha="right", va="top", weight="bold", color=INK)
        # Dates and versions would make the bytes differ from day to day and from machine to machine.
        plain = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=plain, dpi=200 if kind == "png" else 72)
    return buffer.getvalue()


def standalone(content: bytes, kind: str) -> bytes:
    """Return a figure for a file of its own: an SVG names fonts that other machines have."""
    return content.replace(b"'DejaVu Sans'", _STANDALONE_FONT.encode()) if kind == "svg" else content


def inline(content: bytes, name: str) -> str:
    """Return an SVG as an `<svg>` element for an HTML page.

    It takes the page's font, has no background, and its colours are CSS variables (`--ink`, `--muted`, `--rule`,
    `--series-1` ...) with the printed colours as fallback. Ids carry `name`, so several fit one page.
    """
    svg = content.decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<(metadata|title)>.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    for size in ("height", "width"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    prefix = re.sub(r"\W+", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)").replace("fill: #ffffff", "fill: none", 1)
    series = {f"series-{number}": colour for number, colour in enumerate(SERIES_COLOURS, start=1)}
    for variable, colour in {"ink": INK, "muted": MUTED, "rule": RULE, **series}.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg.strip()


def plain_axes(axes: Any, top: int, step: int) -> None:
    """Set percent from 0 to `top` upwards with a rule every `step`, and take away what carries no number."""
    axes.set_ylim(0, top)  # from zero, so that no difference looks larger than it is
    axes.set_yticks(range(0, top + 1, step))
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def titles(axes: Any, name: str, finding: str) -> None:
    """Write a panel's name and, below it, its finding, left of the tick labels and above the axes."""
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


def margins(figure: Any, longest: int, font_size: float, panels: int = 1) -> None:
    """Leave as much room at the right of every panel as its longest direct label (in characters) needs."""
    width, height = figure.get_size_inches()
    right = (longest * font_size * 0.6 + 16) / 72
    left, top, bottom = 0.46, 0.62, 0.5
    if panels > 1:
        between = (right + left) / ((width - right - left - (right + left) * (panels - 1)) / panels)
        figure.subplots_adjust(wspace=between)
    figure.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height)


def cut(name: str, length: int) -> str:
    """Return a name at most `length` characters long."""
    return name if len(name) <= length else f"{name[: length - 1]}\u2026"


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
