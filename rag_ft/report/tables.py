"""The scores as tables of text, once for the page, the Markdown report and the model card. No markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag_ft.report.findings import (
    EN_DASH,
    MINUS,
    REFERENCES,
    WITHOUT_ANSWER,
    counts_of,
    find,
    gold_modes,
    groups_of,
    interval,
    level,
    main_sweep,
    percent,
    points,
    systems_of,
    title,
)

Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A value and what stands small beside it (its interval); `shade`, from 0 to 1, is how dark a heat map has it."""

    text: str
    note: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of a table. `kind` is `value` or `difference`."""

    head: str
    cells: tuple[Cell, ...]
    kind: str = "value"


@dataclass(frozen=True)
class Section:
    """Rows under one heading (a group, a gold mode); an empty heading is not shown."""

    head: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A caption, column heads (the first is that of the row heads) and sections."""

    caption: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]


EMPTY = Cell(EN_DASH)


def accuracy_table(scores: Scores, gold: str, groups: Sequence[str]) -> Table:
    """Accuracy per system and passage count with intervals, paired differences, loss from the best count, retention."""
    counts = counts_of(scores, gold)
    columns = ("System", *map(passages_text, counts), *(("Loss from best", "Retention") if scores["drops"] else ()))
    sections = tuple(Section(_section(scores, group), _accuracy_rows(scores, gold, group)) for group in groups)
    caption = f"{title(gold)}: accuracy in % with {level(scores)} intervals"
    return Table(caption, columns, sections)


def passages_text(count: int) -> str:
    """Return a passage count with its noun."""
    return f"{count} passage" if count == 1 else f"{count} passages"


def _section(scores: Scores, group: str) -> str:
    n = scores["questions"].get(group)
    return f"{title(group)} ({n})" if n is not None else title(group)


def _accuracy_rows(scores: Scores, gold: str, group: str) -> tuple[Row, ...]:
    counts, rows = counts_of(scores, gold), []
    for system in systems_of(scores):
        at = {"system": system, "gold": gold, "group": group}
        cells = [estimate(scores, find(scores["cells"], passages=count, **at), "accuracy") for count in counts]
        falls = [_loss(scores, find(scores["drops"], **at)), _ratio(scores, find(scores["retention"], **at))]
        falls = falls if scores["drops"] else []
        rows += [Row(system, (*cells, *falls))] if any(cell != EMPTY for cell in cells) else []
    for row in main_sweep(scores["differences"]):
        if (row["gold"], row["group"], row["passages"]) == (gold, group, counts[-1]):
            rows.append(_difference_row(scores, row, counts))
    return tuple(rows)


def _difference_row(scores: Scores, last: Mapping[str, Any], counts: list[int]) -> Row:
    keys = {key: last[key] for key in ("system", "baseline", "gold", "group")}
    found = [find(scores["differences"], passages=count, **keys) for count in counts]
    cells = [signed(row["accuracy"]) if row else EMPTY for row in found]
    return Row(
        f"{last['system']} {MINUS} {last['baseline']}",
        (*cells, *([Cell("")] * (2 if scores["drops"] else 0))),
        "difference",
    )


def signed(difference: Mapping[str, float]) -> Cell:
    """Return a difference in points with its interval, both with their signs."""
    return Cell(points(difference["mean"]), f"{points(difference['low'])} to {points(difference['high'])}")


def estimate(scores: Scores, cell: Mapping[str, Any] | None, metric: str) -> Cell:
    """Return a metric of a cell in percent with its interval; a dash where it was not measured or applies to nobody."""
    if cell is None or cell.get(metric) is None:
        return EMPTY
    n = of_some(scores, cell["group"], cell[metric].get("n", cell["n"]))
    return Cell(percent(cell[metric]["mean"]), interval(cell[metric]) + n)


def of_some(scores: Scores, group: str, n: int | None) -> str:
    """Return ", n = 12" where a number is over other than all questions of a group: what misses some says so."""
    return "" if n is None or n == scores["questions"].get(group, n) else f", n = {n}"


def _loss(scores: Scores, drop: Mapping[str, Any] | None) -> Cell:
    if drop is None:
        return EMPTY
    note = (
        f"{interval(drop['accuracy'])}, best at {drop['best_passages']}{of_some(scores, drop['group'], drop.get('n'))}"
    )
    return Cell(percent(drop["accuracy"]["mean"]), note)


def _ratio(scores: Scores, row: Mapping[str, Any] | None) -> Cell:
    if row is None or row["ratio"] is None:
        return EMPTY
    return Cell(f"{row['ratio']:.2f}", of_some(scores, row["group"], row.get("n")).removeprefix(", "))


def reference_table(scores: Scores, groups: Sequence[str]) -> Table | None:
    """Accuracy at the single points: no passages, gold alone, full documents; None where none was measured."""
    golds = [gold for gold in REFERENCES if find(scores["cells"], gold=gold)]
    sections = []
    for group in groups:
        rows = [
            Row(system, tuple(estimate(scores, cell, "accuracy") for cell in cells))
            for system in systems_of(scores)
            if any(cells := [find(scores["cells"], system=system, gold=gold, group=group) for gold in golds])
        ]
        sections.append(Section(_section(scores, group), tuple(rows)))
    caption = f"Reference points: accuracy in % with {level(scores)} intervals"
    return Table(caption, ("System", *map(title, golds)), tuple(sections)) if golds else None


def recall_table(scores: Scores) -> Table | None:
    """Share of questions whose evidence is among the top k; None where retrieval was not scored."""
    counts = sorted({row["passages"] for row in scores["recall"]})
    rows = []
    for group in groups_of(scores):
        found = [find(scores["recall"], group=group, passages=count) for count in counts]
        rows.append(
            Row(_section(scores, group), tuple(Cell(percent(row["recall"])) if row else EMPTY for row in found))
        )
    caption = "Recall at k: questions whose evidence is among the first k retrieved, in %"
    return (
        Table(caption, ("Questions", *(f"k = {count}" for count in counts)), (Section("", tuple(rows)),))
        if counts
        else None
    )


_ABSTENTION = ("answered_answerable", "abstained_answerable", "answered_unanswerable", "abstained_unanswerable")

_RATES = {"hallucination_rate": "hallucinated", "over_refusal": "over_refused"}  # and the metric they are means of
_F1 = ("refusal_f1", "answerable_f1")  # of questions with and without evidence; of one kind alone they say nothing


def abstention_table(scores: Scores, *, largest_only: bool) -> Table:
    """Who answers and who abstains, by whether the passages shown hold the evidence; all questions together."""
    columns = (
        "System",
        "Passages",
        "Evidence shown: answered",
        "Evidence shown: abstained",
        "Evidence missing: answered",
        "Evidence missing: abstained",
        "Hallucination rate, %",
        "Over-refusal, %",
        "Refusal F1, %",
        "Answerable F1, %",
    )
    where = " at the largest count" if largest_only else ""
    golds = [*gold_modes(scores), *(gold for gold in WITHOUT_ANSWER[:1] if find(scores["cells"], gold=gold))]
    sections = _sections(scores, _abstention_row, largest_only, golds)
    return Table(f"Abstention{where}: questions, and rates with {level(scores)} intervals", columns, sections)


def _abstention_row(cell: Mapping[str, Any]) -> Row:
    counted = cell["abstention"]
    both = all(counted[one] + counted[other] for one, other in (_ABSTENTION[:2], _ABSTENTION[2:]))
    numbers = [Cell(str(counted[key])) for key in _ABSTENTION]
    rates = [_rate(counted[rate], cell.get(metric)) for rate, metric in _RATES.items()]
    scores = [_rate(counted[key] if both else None) for key in _F1]
    return Row(cell["system"], (Cell(str(cell["passages"])), *numbers, *rates, *scores))


def _rate(share: float | None, estimated: Mapping[str, float] | None = None) -> Cell:
    """Return a share in percent, and beside it the interval of the same share where there is one."""
    return EMPTY if share is None else Cell(percent(share), interval(estimated) if estimated else "")


def threshold_table(scores: Scores) -> Table | None:
    """What declining below a confidence leaves of unsupported answers; None where no engine told how sure it was."""
    columns = ("System", "Passages", "Declines below", "Over-refusal, %", "Hallucination rate, %")
    rows = [
        Row(row["system"], (Cell(str(row["passages"])), Cell(f"{row['confidence']:.2f}"), *map(Cell, shares)))
        for row in scores.get("thresholds", ())
        if (shares := [percent(row["over_refusal"]), percent(row["hallucination_rate"])])
    ]
    caption = "Declining when unsure: the threshold that turns away at most 10 % of what can be answered"
    return Table(caption, columns, (Section("", tuple(rows)),)) if rows else None


_MATCH = {
    "exact_match": "Exact match",
    "exact_match_korean": "Exact match (Korean)",
    "f1": "F1",
    "f1_hotpot": "F1 (HotpotQA)",
    "f1_korean": "F1 (characters)",
    "cover_raw": "Raw cover",
    "cover_output": "Cover, whole output",
    "rouge_l": "ROUGE-L",
    "well_formed": "Well formed",
    "false_answer": "Wrong, of those answered",
    "judged": "Judged right",
}


def match_table(scores: Scores) -> Table:
    """The other answer metrics of every cell, as far as they were scored."""
    return metric_table(scores, _MATCH, f"Other metrics in % with {level(scores)} intervals, all questions")


def metric_table(scores: Scores, metrics: Mapping[str, str], caption: str) -> Table:
    """Metrics (name in the scores to column head) of every cell that has one of them."""
    cells = main_sweep(scores["cells"])
    shown = [key for key in metrics if any(cell.get(key) is not None for cell in cells)]
    columns = ("System", "Passages", *(metrics[key] for key in shown))

    def row(cell: Mapping[str, Any]) -> Row | None:
        if all(cell.get(key) is None for key in shown):
            return None
        return Row(cell["system"], (Cell(str(cell["passages"])), *(estimate(scores, cell, key) for key in shown)))

    return Table(caption, columns, _sections(scores, row, False))


def cost_table(scores: Scores) -> Table:
    """Mean tokens, seconds and calls of the model per answer, and how many generations failed."""
    priced = any(cell.get("cost") is not None for cell in scores["cells"])
    several = any(cell.get("calls", 1) != 1 for cell in scores["cells"])  # routed answers, one prompt a passage
    columns: tuple[str, ...] = ("Prompt tokens", "Output tokens", "Seconds", "Failed generations")
    columns = ("System", "Passages", *columns, *(["Calls"] if several else []), *(["Price"] if priced else []))

    def row(cell: Mapping[str, Any]) -> Row:
        numbers = (f"{cell['prompt_tokens']:.0f}", f"{cell['output_tokens']:.1f}", f"{cell['seconds']:.2f}")
        further = [f"{cell.get('calls', 1):.2f}"] if several else []
        further += [EN_DASH if cell.get("cost") is None else f"{cell['cost']:.3g}"] if priced else []
        return Row(cell["system"], tuple(map(Cell, (str(cell["passages"]), *numbers, str(cell["failures"]), *further))))

    return Table("Cost: means per answer, and failures", columns, _sections(scores, row, False))


def _sections(
    scores: Scores,
    row: Callable[[Mapping[str, Any]], Row | None],
    largest_only: bool,
    golds: Sequence[str] | None = None,
) -> tuple[Section, ...]:
    """One section per gold mode, `row` of every cell over all questions, systems together."""
    sections = []
    for gold in gold_modes(scores) if golds is None else golds:
        counts = counts_of(scores, gold)
        cells = [
            cell
            for system in systems_of(scores)
            for count in (counts[-1:] if largest_only else counts)
            if (cell := find(scores["cells"], system=system, gold=gold, passages=count, group="all"))
        ]
        rows = tuple(found for found in map(row, cells) if found)
        sections += [Section(title(gold), rows)] if rows else []
    return tuple(sections)
