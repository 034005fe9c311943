"""The report: report.html (one file, works offline), report.md and its figure. Lays out; computes no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from data_builders.files import atomic_path
from rag_ft.report.figures import alt_text, inline_svg, save_figure
from rag_ft.report.findings import fact_text, gold_modes, groups_of, headline, level, main_systems, title
from rag_ft.report.markdown import report_markdown
from rag_ft.report.tables import (
    Table,
    abstention_table,
    accuracy_table,
    cost_table,
    match_table,
    recall_table,
    reference_table,
)

FIGURE_FILE = "accuracy.svg"
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    scores: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], folder: Path, *, facts: Mapping[str, Any]
) -> None:
    """Write report.html, report.md and accuracy.svg into `folder`, each atomically.

    Args:
        scores: the content of scores.json.
        examples: rows of `rag_ft.report.examples.choose_examples`.
        folder: where the files go; made if missing.
        facts: what the run was, as a reader should see it: names to text, numbers, lists or one more level of names.
            `command` is shown as the command that reproduces the run.

    Raises:
        RagFtError: the folder cannot be written.
    """
    has_figure = bool(gold_modes(scores))
    if has_figure:
        save_figure(scores, folder / FIGURE_FILE)
    _write(folder / "report.md", report_markdown(scores, examples, facts, FIGURE_FILE if has_figure else None))
    _write(folder / "report.html", report_html(scores, examples, facts))


def report_html(scores: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """Return the page as text. Everything but our own figures is escaped: passages and outputs are untrusted."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title_of"] = title
    environment.filters["fact"] = fact_text
    return environment.get_template("report.html.j2").render(
        scores=scores,
        headline=headline(scores),
        figures=_figures(scores),
        tables=_tables(scores),
        examples=[{**example, "passages": _marked(example["passages"])} for example in examples],
        facts={name: value for name, value in facts.items() if name != "command"},
        command=facts.get("command"),
        level=level(scores),
        subject=main_systems(scores)[0],
    )


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figures(scores: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the panels: `main` one per gold mode over all questions, `groups` one per gold mode and group."""
    main = [_figure(scores, gold, "all", False) for gold in gold_modes(scores)]
    small = [_figure(scores, gold, group, True) for gold in gold_modes(scores) for group in groups_of(scores)[1:]]
    return {"main": main, "groups": small}


def _figure(scores: Mapping[str, Any], gold: str, group: str, compact: bool) -> dict[str, Any]:
    svg = inline_svg(scores, gold, group, compact=compact)
    # Safe to mark: matplotlib escapes the text it draws, and the figure takes no markup from the scores.
    return {"svg": Markup(svg), "alt": alt_text(scores, gold, group)}


def _tables(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": _accuracy_tables(scores, ["all"]),
        "groups": _accuracy_tables(scores, groups) if (groups := groups_of(scores)[1:]) else [],
        "recall": recall_table(scores),
        "abstention": abstention_table(scores, largest_only=True),
        "abstention_all": abstention_table(scores, largest_only=False),
        "match": match_table(scores),
        "cost": cost_table(scores),
    }


def _accuracy_tables(scores: Mapping[str, Any], groups: Sequence[str]) -> list[Table]:
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
