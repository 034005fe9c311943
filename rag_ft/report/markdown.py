"""The report and the results section of the model card as Markdown. Lays out; computes no number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rag_ft.report.figures import alt_text
from rag_ft.report.findings import PARTIAL, fact_text, gold_modes, groups_of, headline, intervals_text, title
from rag_ft.report.robustness import (
    HEAT,
    citation_table,
    conditions_table,
    counterfactual_table,
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

_SPECIAL = re.compile(r"([\\`*_{}\[\]#~|$])")


def escape(text: str) -> str:
    """Return untrusted text as one line of Markdown that renders as the same characters, also inside a table."""
    line = re.sub(r"\s*[\r\n\u2028\u2029]+\s*", " ", text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def markdown_table(table: Table, scores: Mapping[str, Any]) -> str:
    """Return a table with its caption above, stamped as the scores are; sections become a row with their name."""
    width = len(table.columns)
    lines = [
        f"**{'PARTIAL: ' if scores['partial'] else ''}{escape(table.caption)}**",
        "",
        _line([escape(column) for column in table.columns]),
        _line(["---", *["---:"] * (width - 1)]),
    ]
    for section in table.sections:
        if section.head:
            lines.append(_line([f"*{escape(section.head)}*", *[""] * (width - 1)]))
        for row in section.rows:
            cells = [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells]
            lines.append(_line([escape(row.head), *map(escape, cells)]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def results_markdown(scores: Mapping[str, Any], figure: str | None) -> str:
    """Return headline, figure and main tables: what the report begins with and the model card shows.

    Args:
        scores: the content of scores.json.
        figure: path of the figure relative to the Markdown file; None leaves it out.
    """
    found = headline(scores)
    parts = [f"**{escape(found.lead)}**", *map(escape, found.further)]
    if scores["partial"]:
        parts.insert(0, f"> **PARTIAL**: {PARTIAL}")
    if figure and gold_modes(scores):
        alt = " ".join(alt_text(scores, gold) for gold in gold_modes(scores))
        parts.append(f"![{escape(alt)}]({figure})")
    groups = groups_of(scores)
    accuracy: list[Table | None] = [accuracy_table(scores, gold, groups) for gold in gold_modes(scores)]
    tables = [*accuracy, reference_table(scores, groups)]
    robustness = robustness_table(scores)
    tables += [difference_table(scores, largest_only=True), robustness]
    parts += [markdown_table(table, scores) for table in tables if table]
    parts.append(
        f"In brackets: {intervals_text(scores)}, "
        "paired for differences. Accuracy: the answer contains an accepted answer, word for word after normalisation; "
        "abstentions and failed generations count as wrong. Loss from best: accuracy at the best count less that "
        "at the largest. Retention: accuracy at the largest count divided by that at the smallest.\n"
    )
    parts += [robustness_note(robustness)] if robustness else []
    return "\n\n".join(part.strip() for part in parts) + "\n"


def report_markdown(
    scores: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], figure: str | None
) -> str:
    """Return report.md: what the page says, without the passages of the examples.

    Args:
        scores: the content of scores.json.
        examples: rows of `rag_ft.report.examples.choose_examples`.
        facts: what the run was, see `rag_ft.report.page.write_report`.
        figure: path of the figure relative to the file; None leaves it out.
    """
    recall = recall_table(scores)
    parts = [f"# {escape(scores['run'])}", results_markdown(scores, figure)]
    parts += ["## What retrieval found", markdown_table(recall, scores)] if recall else []
    parts += _conditions(scores)
    parts += ["## Answering and abstaining", markdown_table(abstention_table(scores, largest_only=False), scores)]
    parts += [markdown_table(unsure, scores)] if (unsure := threshold_table(scores)) else []
    parts += ["## Other metrics and cost"]
    parts += [markdown_table(table, scores) for table in (match_table(scores), cost_table(scores))]
    parts += ["## Questions side by side", *map(_example, examples)] if examples else []
    parts += ["## The run", fact_lines(facts)]
    if facts.get("command"):
        parts += ["To reproduce:", code_block(str(facts["command"]), "sh")]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _conditions(scores: Mapping[str, Any]) -> list[str]:
    """Return positions, orders, retrievers and every further condition, and routing, as far as they were measured."""
    heat = [table for axis, caption in HEAT.items() for table in heat_tables(scores, axis, caption)]
    tables = [*heat, counterfactual_table(scores), citation_table(scores), conditions_table(scores)]
    found = [table for table in [*tables, *routing_tables(scores)] if table]
    return ["## Under further conditions", *(markdown_table(table, scores) for table in found)] if found else []


def code_block(text: str, language: str = "") -> str:
    """Return `text` in a fence longer than any run of backticks it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _example(example: Mapping[str, Any]) -> str:
    kind = f"{example['kind']} ({example['kind_questions']} such). " if "kind" in example else ""
    expected = " / ".join(example["answers"])
    lines = [f"### {escape(example['question'])}", "", f"{escape(kind)}Expected: {escape(expected)}", ""]
    lines += ["| System | Passages | Answer | Verdict |", "| --- | ---: | --- | --- |"]
    for output in example["outputs"]:
        verdict = "correct" if output["correct"] else "abstained" if output["abstained"] else "wrong"
        answer = "\u2013" if output["answer"] is None else escape(output["answer"])
        lines.append(_line([escape(output["system"]), str(output["passages"]), answer, verdict]))
    quoted = [
        (passage["title"] or passage["id"], quote) for passage in example["passages"] for quote in passage["quotes"]
    ]
    lines += ["", *(f"> {escape(name)}: {escape(quote)}\n>" for name, quote in quoted)]
    return "\n".join(lines).removesuffix("\n>")


def fact_lines(facts: Mapping[str, Any], depth: int = 0) -> str:
    """Return facts (see `rag_ft.report.page.write_report`) as a nested list; `command` is left to a code block."""
    lines = []
    for name, value in facts.items():
        if name == "command":
            continue
        head = f"{'  ' * depth}- {escape(name if depth else title(name))}:"
        lines += (
            [head, fact_lines(value, depth + 1)]
            if isinstance(value, Mapping)
            else [f"{head} {escape(fact_text(value))}"]
        )
    return "\n".join(lines)
