"""The robustness of systems as tables of text: summary, heat maps, citations, routing, paired tests. No markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rag_ft.report.axes import AxisGrid, axis_grids
from rag_ft.report.findings import (
    EN_DASH,
    MINUS,
    axes_of,
    by_document,
    gold_modes,
    interval,
    level,
    main_sweep,
    percent,
    points,
    systems_of,
    title,
)
from rag_ft.report.tables import (
    EMPTY,
    Cell,
    Row,
    Section,
    Table,
    estimate,
    metric_table,
    of_some,
    passages_text,
    signed,
)

Scores = Mapping[str, Any]

SUMMARY = {
    "auc": ("Area under the curve", percent, "mean accuracy over the logarithm of the passage count"),
    "drop_from_peak": ("Drop from peak", percent, "accuracy at the best count less that at the largest"),
    "retention": ("Retention", percent, "accuracy at the largest count, of that at the smallest"),
    "distraction_rate": (
        "Distraction rate",
        percent,
        "of the questions right with the gold passages alone, those wrong at the largest count",
    ),
    "position_spread": ("Position spread", percent, "best less worst position of the gold passages"),
    "position_middle_drop": ("Drop in the middle", points, "gold passages first and last, less those between"),
    "noise_drop": (
        "Drop under noise",
        points,
        "accuracy at the lowest share of noise less that at the highest, where any context changed",
    ),
    "consistency": (
        "Consistency over shuffles",
        percent,
        "how often two shuffles of the same passages get the same answer",
    ),
    "net_harm": (
        "Net harm",
        points,
        "accuracy without any passage less that at the largest count; below 0, passages help",
    ),
    "harm_rate": (
        "Harmed by passages",
        percent,
        "of all questions, those right without any passage and wrong with them",
    ),
}
"""Name in scores.json to column head, how its number is written, and what it is."""

HEAT = {
    "position": "Where the gold passages stand, first to last",
    "order": "Order of the passages",
    "retriever": "Whose ranking is shown",
}
"""Axes shown as systems by values, and how their tables are called."""

_CITATION = {
    "citation_precision": "Citation precision",
    "citation_recall": "Citation recall",
    "quote_verbatim": "Verbatim quotes",
    "relevance_f1": "Relevance F1",
    "alce_precision": "ALCE precision",
    "alce_recall": "ALCE recall",
}


def robustness_note(table: Table) -> str:
    """Say what the columns of the summary are."""
    said = [f"{head}: {what}." for head, _, what in SUMMARY.values() if head in table.columns]
    return " ".join([*said, "A dash: not measured."])


def robustness_table(scores: Scores) -> Table | None:
    """The summary of every system per gold mode, over all questions; None where the scores have none."""
    rows = [row for row in scores.get("robustness", ()) if row.get("group", "all") == "all"]
    shown = [key for key in SUMMARY if any(row.get(key) is not None for row in rows)]
    if not shown:
        return None
    sections = []
    for gold in dict.fromkeys(row["gold"] for row in rows):
        measured = [row for row in rows if row["gold"] == gold and any(row.get(key) is not None for key in shown)]
        sections += (
            [Section(title(gold), tuple(_summary_row(scores, row, shown) for row in measured))] if measured else []
        )
    columns = ("System", *(SUMMARY[key][0] for key in shown))
    return Table(f"Robustness: % and points, with {level(scores)} intervals", columns, tuple(sections))


def _summary_row(scores: Scores, row: Mapping[str, Any], shown: Sequence[str]) -> Row:
    return Row(row["system"], tuple(_number(scores, row.get(key), SUMMARY[key][1]) for key in shown))


def _number(scores: Scores, found: Mapping[str, Any] | None, write: Callable[[float], str]) -> Cell:
    if found is None:
        return EMPTY
    return Cell(write(found["mean"]), interval(found, signed=write is points) + of_some(scores, "all", found.get("n")))


def heat_tables(scores: Scores, axis: str, caption: str) -> list[Table]:
    """Systems by values of an axis, the numbers in the cells and a shade behind them; one table per mode and count."""
    return [_heat(scores, grid, caption) for grid in axis_grids(scores, axis)]


def _heat(scores: Scores, grid: AxisGrid, caption: str) -> Table:
    rows = tuple(
        Row(system, tuple(_shaded(found) for found in estimates), "heat") for system, estimates in grid.rows.items()
    )
    where = f"{title(grid.gold).lower()}, {passages_text(grid.passages)}, {grid.n} questions"
    text = f"{caption}: accuracy in % with {level(scores)} intervals ({where})"
    return Table(text, ("System", *grid.names()), (Section("", rows),))


def _shaded(found: Mapping[str, float] | None) -> Cell:
    return Cell(percent(found["mean"]), interval(found), found["mean"]) if found else EMPTY


def counterfactual_table(scores: Scores) -> Table | None:
    """What systems write where the gold passages state another answer than the accepted one."""
    cells = [
        cell for cell in main_sweep(scores["cells"]) if cell["gold"] == "counterfactual" and cell["group"] == "all"
    ]
    if not cells:
        return None
    rows = tuple(
        Row(
            cell["system"],
            (Cell(str(cell["passages"])), estimate(scores, cell, "misled"), estimate(scores, cell, "accuracy")),
        )
        for cell in sorted(cells, key=lambda cell: (systems_of(scores).index(cell["system"]), cell["passages"]))
    )
    columns = ("System", "Passages", "Wrote the planted answer", "Wrote the true answer")
    caption = f"Passages that state another answer: in %, with {level(scores)} intervals"
    return Table(caption, columns, (Section("", rows),))


def citation_table(scores: Scores) -> Table | None:
    """Citations, quotes and relevance judgements of the styles that write them; None where none was scored."""
    table = metric_table(scores, _CITATION, f"Citations, quotes and judgements in % with {level(scores)} intervals")
    return table if table.sections and len(table.columns) > 2 else None


def difference_table(scores: Scores, *, largest_only: bool) -> Table | None:
    """Win, tie and loss of every system against the baseline with the p of `tested_by`; None in scores without them."""
    rows = [row for row in scores["differences"] if row["group"] == "all" and row.get("wins") is not None]
    sections = []
    for place in dict.fromkeys((row["gold"], row.get("variant", "")) for row in rows):
        here = [row for row in rows if (row["gold"], row.get("variant", "")) == place]
        largest = max(row["passages"] for row in here)
        here = [row for row in here if row["passages"] == largest] if largest_only else here
        if not largest_only or (not place[1] and place[0] in gold_modes(scores)):
            sections.append(Section(place_name(*place), tuple(_paired(row) for row in here)))
    if not sections:
        return None
    columns = ("Pair", "Passages", "Difference, points", "Won", "Tied", "Lost", "p", "p (Holm)")
    where = " at the largest count" if largest_only else ""
    return Table(f"Question by question{where}: won, tied, lost", columns, tuple(sections))


def place_name(gold: str, variant: str) -> str:
    """Return a gold mode and the other axes as words."""
    return ", ".join([title(gold), *(f"{axis} {value}" for axis, value in axes_of(variant).items())])


def _paired(row: Mapping[str, Any]) -> Row:
    counts = tuple(Cell(str(row[key])) for key in ("wins", "ties", "losses"))
    pair = f"{row['system']} {MINUS} {row['baseline']}"
    tests = tuple(Cell(p_text(row.get(key))) for key in ("p", "p_holm"))
    return Row(pair, (Cell(str(row["passages"])), signed(row["accuracy"]), *counts, *tests))


def p_text(p: float | None) -> str:
    """Return a p-value with three decimals, "< 0.001" below that, and a dash where there is none."""
    if p is None:
        return EN_DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def routing_tables(scores: Scores) -> list[Table]:
    """What Self-Route saved and whether it routed well; empty without a routing system."""
    rows = scores.get("routing", ())
    if not rows:
        return []
    shares = {
        "answerable_share": "Answered from few",
        "token_share": "Prompt tokens, of all",
        "accuracy": "Accuracy, routed",
        "few_accuracy": "Accuracy of few alone",
        "all_accuracy": "Accuracy of all alone",
        "right_to_answer": "Rightly answered",
        "right_to_route": "Routed on, then right",
    }
    fates = {
        "few_right": "Answered from few, right",
        "few_wrong": "Answered from few, wrong",
        "all_right": "Routed to all, right",
        "all_wrong": "Routed to all, wrong",
    }
    return [
        Table(caption, ("System", "Passages", *heads.values()), _by_gold(scores, rows, heads, part))
        for caption, heads, part in (
            ("Self-Route: shares in %", shares, None),
            ("Self-Route: questions by route and outcome", fates, "confusion"),
        )
    ]


def _by_gold(
    scores: Scores, rows: Sequence[Mapping[str, Any]], heads: Mapping[str, str], part: str | None
) -> tuple[Section, ...]:
    sections = []
    for place in dict.fromkeys((row["gold"], row.get("variant", "")) for row in rows):
        here = [row for row in rows if (row["gold"], row.get("variant", "")) == place]
        lines = tuple(
            Row(row["system"], (Cell(str(row["passages"])), *(_share(scores, row, key, part) for key in heads)))
            for row in here
        )
        sections.append(Section(place_name(*place), lines))
    return tuple(sections)


def _share(scores: Scores, row: Mapping[str, Any], key: str, part: str | None) -> Cell:
    value = row[part].get(key) if part else row.get(key)
    if value is None:
        return EMPTY
    if isinstance(value, Mapping):
        return _number(scores, value, percent)
    return Cell(str(value)) if part else Cell(percent(value))


def conditions_table(scores: Scores) -> Table | None:
    """Every cell at which further axes were moved, so that nothing measured is left out; None without such cells."""
    cells = [cell for cell in scores["cells"] if cell.get("variant") and cell["group"] == "all"]
    sections = []
    for gold, variant in dict.fromkeys((cell["gold"], cell["variant"]) for cell in cells):
        rows = tuple(
            Row(cell["system"], (Cell(str(cell["passages"])), estimate(scores, cell, "accuracy"), Cell(str(cell["n"]))))
            for cell in cells
            if (cell["gold"], cell["variant"]) == (gold, variant)
        )
        sections.append(Section(place_name(gold, variant), rows))
    caption = f"Every further condition: accuracy in % with {level(scores)} intervals"
    return Table(caption, ("System", "Passages", "Accuracy", "Questions"), tuple(sections)) if sections else None


def detectable_sentence(scores: Scores) -> str:
    """Return which difference this many questions could show; empty in scores that do not say."""
    found = scores.get("detectable")
    if not found or found.get("difference") is None:
        return ""
    few = " Where several are about one document, only larger ones are found." if by_document(scores) else ""
    return (
        f"With {found['n']} questions, a difference of {percent(found['difference'])} points is found with a "
        f"probability of {percent(found['power'], 0)} %; smaller ones are mostly missed.{few}"
    )
