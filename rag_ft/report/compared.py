"""The page of several runs side by side: one file, works offline. Lays out; computes no number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from rag_ft.report.charts import forest_figure
from rag_ft.report.findings import Headline, gold_modes, headline, main_sweep, title
from rag_ft.report.page import accuracy_panel, accuracy_tables, render, robustness_figures, robustness_tables
from rag_ft.report.tables import Cell, Row, Section, Table, abstention_table, cost_table, match_table, threshold_table

_MOST_LINES = 40  # of a forest plot: more are not read


def compared_html(
    compared: Mapping[str, Any], browser: Mapping[str, Any] | None, trained: Mapping[str, str] | None = None
) -> str:
    """Return the page as text.

    Args:
        compared: what `rag_ft.evaluation.compare.compare` returns.
        browser: what `rag_ft.report.disagreements.browser` returns; None leaves the browser out.
        trained: by run, the retrievers whose passages it was trained on.
    """
    found = headline(compared)
    panels = [accuracy_panel(compared, gold, "all", False) for gold in gold_modes(compared)]
    figures = {**robustness_figures(compared), "main": panels, "forest": _forests(compared)}
    further = robustness_tables(compared)
    further["retriever"] = [_with_training(table, trained or {}) for table in further["retriever"]]
    tables = {
        **further,
        "runs": runs_table(compared, trained or {}),
        "accuracy": accuracy_tables(compared, ["all"]),
        "groups": accuracy_tables(compared, groups) if (groups := _groups(compared)) else [],
        "abstention": abstention_table(compared, largest_only=True),
        "thresholds": threshold_table(compared),
        "match": match_table(compared),
        "cost": cost_table(compared),
    }
    notes = Headline(found.lead, (*found.further, *compared["notes"]))
    return render("compare.html.j2", compared, browser, headline=notes, figures=figures, tables=tables)


def runs_table(compared: Mapping[str, Any], trained: Mapping[str, str]) -> Table:
    """The runs, their questions, and whose passages they were trained on where that is known."""
    columns = ("Run", "Questions", *(["Trained on passages of"] if any(trained.values()) else []))
    rows = tuple(
        Row(
            f"{'PARTIAL: ' if run['partial'] else ''}{run['name']}",
            (Cell(str(run["questions"])), *([Cell(trained.get(run["name"], ""))] if len(columns) > 2 else [])),
        )
        for run in compared["runs"]
    )
    return Table(f"Runs: {compared['shared']} questions shared", columns, (Section("", rows),))


def _with_training(table: Table, trained: Mapping[str, str]) -> Table:
    """Say beside whose ranking is shown whose passages the runs were trained on, as far as that is known."""
    known = "; ".join(f"{run}: {names}" for run, names in trained.items() if names)
    return replace(table, caption=f"{table.caption}. Trained on passages of {known}") if known else table


def _groups(compared: Mapping[str, Any]) -> list[str]:
    return [group for group in compared["questions"] if group != "all"]


def _forests(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    figures = []
    for gold in gold_modes(compared):
        rows = [row for row in main_sweep(compared["differences"]) if (row["gold"], row["group"]) == (gold, "all")]
        if rows:
            name = f"Difference to {compared['baseline']}: {title(gold).lower()}"
            figure = forest_figure(compared, rows[:_MOST_LINES], name)
            # Safe to mark: matplotlib escapes the text it draws.
            figures.append({**figure, "svg": Markup(figure["svg"])})
    return figures
