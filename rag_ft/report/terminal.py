"""The scores a person reads in the terminal: accuracy by passage count, and runs compared. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from rag_ft.report.findings import REFERENCES, WITHOUT_ANSWER, find, gold_modes, main_sweep
from rag_ft.report.robustness import p_text


def terminal_table(scores: Mapping[str, Any], gold: str | None = None) -> Table:
    """Return accuracy in percent with its interval, per system and passage count, over all questions.

    Rows of differences to the baseline and of retrieval recall follow where `scores` has them.

    Args:
        scores: what `score_predictions` returns.
        gold: the gold mode to show; None takes the first swept one.
    """
    cells = [cell for cell in main_sweep(scores["cells"]) if cell["group"] == "all"]
    gold = gold or next(iter(gold_modes(scores)), cells[0]["gold"])
    shown = [cell for cell in cells if cell["gold"] == gold]
    counts = sorted({cell["passages"] for cell in shown})
    table = Table(title=_title(scores, gold, max(cell["n"] for cell in shown)), caption=_caption(scores, cells))
    table.add_column("system")
    for count in counts:
        table.add_column(f"{count} passage{'s' * (count != 1)}", justify="right")
    for system in dict.fromkeys(cell["system"] for cell in shown):
        _add_row(
            table, system, {c["passages"]: _percent(c["accuracy"]) for c in shown if c["system"] == system}, counts
        )
    _add_differences(table, scores, gold, counts)
    recall = {row["passages"]: f"{100 * row['recall']:.1f}" for row in scores["recall"] if row["group"] == "all"}
    if recall:
        table.add_section()
        _add_row(table, "evidence retrieved", recall, counts)
    return table


def comparison_table(compared: Mapping[str, Any]) -> Table:
    """Return the paired differences of the main sweep in points over all shared questions: won, tied, lost.

    Args:
        compared: what `rag_ft.evaluation.compare.compare` returns.
    """
    everyone = [row for row in compared["differences"] if row["group"] == "all"]
    rows = main_sweep(everyone)
    stamp = "PARTIAL: " if compared["partial"] else ""
    table = Table(
        title=escape(
            f"{stamp}accuracy less that of {compared['baseline']}, {compared['shared']} shared questions, points "
            f"with {100 * compared['confidence']:g} % intervals"
        ),
        caption=escape("\n".join([*compared["notes"], *_about_rest(compared, len(everyone) - len(rows))])),
        box=SIMPLE_HEAD,  # without lines between the columns, a name and five numbers fit into 80 characters
    )
    table.add_column("system")
    for name in ("accuracy", "difference", "won/tied/lost", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    for gold, passages in dict.fromkeys((row["gold"], row["passages"]) for row in sorted(rows, key=_place)):
        table.add_section()
        where = "" if gold in REFERENCES else f", k = {passages}"
        table.add_row(f"[italic]{gold.replace('_', ' ')}{where}[/italic]")
        for row in rows:
            if (row["gold"], row["passages"]) == (gold, passages):
                table.add_row(*_compared(compared, row))
    return table


def _compared(compared: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    cell = find(compared["cells"], **{key: row[key] for key in ("system", "gold", "passages", "group")}) or row
    mean, low, high = (100 * row["accuracy"][key] for key in ("mean", "low", "high"))
    difference = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
    tally = "/".join(str(row[key]) for key in ("wins", "ties", "losses"))
    return escape(row["system"]), f"{100 * cell['accuracy']['mean']:.1f}", difference, tally, p_text(row["p_holm"])


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    order = ("kept", "retrieved", *REFERENCES, *WITHOUT_ANSWER)
    return order.index(row["gold"]), row["passages"]


def _about_rest(compared: Mapping[str, Any], further: int) -> list[str]:
    if not compared["differences"]:
        alone = len({cell["system"] for cell in compared["cells"]}) < 2
        return ["There is no second system to compare." if alone else "No two systems were asked at the same point."]
    return [f"{further} comparisons under further conditions: --html FILE or --json FILE"] if further else []


def _add_row(table: Table, name: str, texts: Mapping[int, str], counts: list[int]) -> None:
    table.add_row(name, *(texts.get(count, "-") for count in counts))


def _add_differences(table: Table, scores: Mapping[str, Any], gold: str, counts: list[int]) -> None:
    rows = [row for row in main_sweep(scores["differences"]) if row["group"] == "all" and row["gold"] == gold]
    if rows:
        table.add_section()
    for system in dict.fromkeys(row["system"] for row in rows):
        texts = {row["passages"]: _percent(row["accuracy"], "+") for row in rows if row["system"] == system}
        _add_row(table, f"{system} - {scores['baseline']}", texts, counts)


def _percent(interval: Mapping[str, float], sign: str = "", separator: str = "\n") -> str:
    """Return the estimate and its interval, on two lines so that four counts fit into 80 columns."""
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f}{separator}{low:{sign}.1f} to {high:{sign}.1f}"


def _title(scores: Mapping[str, Any], gold: str, questions: int) -> str:
    partial = "PARTIAL: " if scores["partial"] else ""
    return (
        f"{partial}{scores['run']}: accuracy in %, gold {gold.replace('_', ' ')}, {questions} questions, "
        f"{100 * scores['confidence']:g} % intervals"
    )


def _caption(scores: Mapping[str, Any], cells: list[Mapping[str, Any]]) -> str:
    references = [
        f"{cell['system']}, {cell['gold'].replace('_', ' ')}: {_percent(cell['accuracy'], separator=', ')}"
        for cell in cells
        if cell["gold"] in REFERENCES
    ]
    failures = sum(cell["failures"] for cell in cells)
    return "\n".join([*references, *([f"failed generations, counted as wrong: {failures}"] if failures else [])])
