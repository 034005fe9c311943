"""The report: report.html (one file, works offline), report.md and its figure. Lays out; computes no number."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from data_builders.files import atomic_path
from rag_ft.report.axes import axis_grids
from rag_ft.report.charts import axis_chart, chart_figure, cost_charts, coverage_charts
from rag_ft.report.figures import alt_text, inline_svg, save_figure
from rag_ft.report.findings import (
    PARTIAL,
    fact_text,
    gold_modes,
    groups_of,
    headline,
    intervals_text,
    level,
    main_systems,
    tested_by,
    title,
)
from rag_ft.report.markdown import report_markdown
from rag_ft.report.robustness import (
    HEAT,
    citation_table,
    conditions_table,
    counterfactual_table,
    detectable_sentence,
    difference_table,
    heat_tables,
    robustness_note,
    robustness_table,
    routing_tables,
)
from rag_ft.report.tables import (
    Table,
    abstention_table,
    accuracy_table,
    cost_table,
    match_table,
    recall_table,
    reference_table,
    threshold_table,
)

FIGURE_FILE = "accuracy.svg"
_TEMPLATES = Path(__file__).parent / "templates"
_CURVES = {
    "noise": ("Accuracy under noise", "Passages that hold no answer"),
    "negatives": ("Accuracy by hardness of the negatives", "What fills the context up"),
}


def write_report(
    scores: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    facts: Mapping[str, Any],
    browser: Mapping[str, Any] | None = None,
) -> None:
    """Write report.html, report.md and accuracy.svg into `folder`, each atomically.

    Args:
        scores: the content of scores.json.
        examples: rows of `rag_ft.report.examples.choose_examples`.
        folder: where the files go; made if missing.
        facts: what the run was, as a reader should see it: names to text, numbers, lists or one more level of names.
            `command` is shown as the command that reproduces the run.
        browser: what `rag_ft.report.disagreements.browser` returns; None leaves the browser out.

    Raises:
        RagFtError: the folder cannot be written.
    """
    has_figure = bool(gold_modes(scores))
    if has_figure:
        save_figure(scores, folder / FIGURE_FILE)
    write_text(folder / "report.md", report_markdown(scores, examples, facts, FIGURE_FILE if has_figure else None))
    write_text(folder / "report.html", report_html(scores, examples, facts, browser))


def report_html(
    scores: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    browser: Mapping[str, Any] | None = None,
) -> str:
    """Return the page as text. Everything but our own figures is escaped: passages and outputs are untrusted."""
    return render(
        "report.html.j2",
        scores,
        browser,
        headline=headline(scores),
        figures={**_figures(scores), **robustness_figures(scores)},
        tables={**_tables(scores), **robustness_tables(scores)},
        examples=[{**example, "passages": _marked(example["passages"])} for example in examples],
        facts={name: value for name, value in facts.items() if name != "command"},
        command=facts.get("command"),
    )


def render(template: str, scores: Mapping[str, Any], browser: Mapping[str, Any] | None, **values: Any) -> str:
    """Return a page. The one script it may run is ours, named by its hash; everything else a page could load is off."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title_of"] = title
    environment.filters["fact"] = fact_text
    environment.filters["summary_note"] = robustness_note
    script = (_TEMPLATES / "browser.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        scores=scores,
        browser=browser if browser and browser["questions"] else None,
        script=Markup(script),
        script_hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
        partial_note=PARTIAL,
        level=level(scores),
        intervals=intervals_text(scores),
        test=tested_by(scores),
        subject=main_systems(scores)[0],
        suite=scores.get("suite"),
        detectable=detectable_sentence(scores),
        **values,
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figures(scores: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the panels: `main` one per gold mode over all questions, `groups` one per gold mode and group."""
    main = [accuracy_panel(scores, gold, "all", False) for gold in gold_modes(scores)]
    small = [
        accuracy_panel(scores, gold, group, True) for gold in gold_modes(scores) for group in groups_of(scores)[1:]
    ]
    return {"main": main, "groups": small}


def accuracy_panel(scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> dict[str, Any]:
    """Return accuracy against passages as `svg` and `alt`."""
    return _marked_safe({"svg": inline_svg(scores, gold, group, compact=compact), "alt": alt_text(scores, gold, group)})


def _marked_safe(figure: Mapping[str, str]) -> dict[str, Any]:
    # Safe to mark: matplotlib escapes the text it draws, and a figure takes no markup from the scores.
    return {**figure, "svg": Markup(figure["svg"])}


def robustness_figures(scores: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures beside accuracy by count, each list empty where the scores have nothing to draw."""
    charts = {
        axis: [axis_chart(scores, grid, name, label) for grid in axis_grids(scores, axis)]
        for axis, (name, label) in _CURVES.items()
    }
    charts |= {"coverage": coverage_charts(scores), "cost": cost_charts(scores)}
    return {
        kind: [_marked_safe(chart_figure(chart, scores["partial"])) for chart in found]
        for kind, found in charts.items()
    }


def robustness_tables(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables beside accuracy by count; None or empty where the scores do not have them."""
    return {
        "robustness": robustness_table(scores),
        **{axis: heat_tables(scores, axis, caption) for axis, caption in HEAT.items()},
        "counterfactual": counterfactual_table(scores),
        "conditions": conditions_table(scores),
        "citation": citation_table(scores),
        "routing": routing_tables(scores),
        "differences": difference_table(scores, largest_only=True),
        "differences_all": difference_table(scores, largest_only=False),
    }


def _tables(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": accuracy_tables(scores, ["all"]),
        "groups": accuracy_tables(scores, groups) if (groups := groups_of(scores)[1:]) else [],
        "recall": recall_table(scores),
        "abstention": abstention_table(scores, largest_only=True),
        "abstention_all": abstention_table(scores, largest_only=False),
        "thresholds": threshold_table(scores),
        "match": match_table(scores),
        "cost": cost_table(scores),
    }


def accuracy_tables(scores: Mapping[str, Any], groups: Sequence[str]) -> list[Table]:
    """Return accuracy by count for each gold mode, and the reference points where there are any."""
    tables = [*(accuracy_table(scores, gold, groups) for gold in gold_modes(scores)), reference_table(scores, groups)]
    return [table for table in tables if table]


def _marked(passages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**passage, "parts": split_quotes(passage["text"], passage["quotes"])} for passage in passages]


def split_quotes(text: str, quotes: Sequence[str]) -> list[tuple[str, bool]]:
    """Split `text` into (part, is quoted) pieces that join to `text` again. Overlapping quotes become one mark."""
    inside = [False] * len(text)
    for quote in filter(None, quotes):
        start = text.find(quote)
        if start >= 0:
            inside[start : start + len(quote)] = [True] * len(quote)
    parts: list[tuple[str, bool]] = []
    begin = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or inside[end] != inside[begin]:
            parts.append((text[begin:end], inside[begin]))
            begin = end
    return parts
