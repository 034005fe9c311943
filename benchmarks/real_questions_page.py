"""Writes docs/results.md and its figure from real_questions.json (`python -m benchmarks.real_questions_page`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import real_questions_kept as kept_answers
from data_builders.files import atomic_path
from rag_ft.report.figures import save_figure

ROOT = Path(__file__).parent.parent
Row = Mapping[str, Any]
WHAT = {
    "base": "not trained",
    "base + reordering": "not trained; best passages at both ends of the context",
    "clean": "plain tuning: the gold passage alone, nothing unanswerable",
    "raft-like": "random distractors, gold shown with probability 0.8, five passages",
    "answer": "hard negatives of two retrievers in shared contexts, the answer alone",
    "reasoning": "the same; names the relevant passages, then answers",
    "self-reasoning": "the same in three stages; judges every passage, quotes, analyses, answers",
    "answer + routing": "`answer`, shown the five best passages first and all where it declines (Self-Route)",
}
OURS = ("answer", "reasoning", "self-reasoning")
ROUTED = ("answer + routing",)


DATA = (
    ("train/nq_open_train_bm25", "1,855", "questions of Natural Questions, gold and BM25's passages", "CC BY-SA 3.0"),
    ("dev/nq_open_dev_bm25", "300", "the same, of other questions and gold pages", "CC BY-SA 3.0"),
    (
        "dev/squad11_dev_bm25",
        "600",
        "questions of SQuAD 1.1's training file, of 42 articles kept apart",
        "CC BY-SA 4.0",
    ),
    ("corpus/squad11_questions", "87,599", "all its questions, with the ids of their paragraphs", "CC BY-SA 4.0"),
    ("corpus/squad11_passages", "18,896", "all its paragraphs", "CC BY-SA 4.0"),
    ("corpus/wiki_pool", "15,628", "further passages of Wikipedia", "CC BY-SA"),
)
"""Files of DATA, their rows, what is in them, licence."""


def main() -> None:
    """Write the page and its figure."""
    save_figure(figure_scores(), ROOT / "docs/results.svg")
    with atomic_path(ROOT / "docs/results.md") as temporary:
        temporary.write_text(page(), encoding="utf-8")


def figure_scores() -> Row:
    """Return what the figure takes of the results file, in the form of scores.json."""
    numbers = _result()["numbers"]
    return {
        **{name: numbers[name] for name in ("partial", "recall")},
        "baseline": "base",
        "cells": [{**cell, "variant": ""} for cell in numbers["cells"]],
        "differences": [{**row, "baseline": "base", "variant": ""} for row in numbers["minus base"]],
    }


def _result() -> Row:
    result: Row = json.loads((ROOT / "benchmarks/results/real_questions.json").read_text(encoding="utf-8"))
    return result


def page() -> str:
    """Return the page of the results file as it is now."""
    result = _result()
    return "\n".join(_lines(result["numbers"], result["machine"], result["command"])) + "\n"


def _lines(numbers: Row, machine: Row, command: str) -> Iterator[str]:
    asked = ", ".join(f"{count} of {group}" for group, count in numbers["questions"].items() if group != "all")
    tokens = max(one["tokens"] for one in numbers["trainings"].values())
    yield "# Results on real questions"
    yield ""
    yield "<!-- Written by benchmarks/real_questions_page.py: change that, not this page. -->"
    yield ""
    if numbers["partial"]:
        yield "**PARTIAL: a part of the questions was asked.**"
        yield ""
    yield from (
        "SmolLM2-135M-Instruct on Natural Questions and SQuAD 1.1: what training does to it, against baselines that",
        f"saw as many tokens ({tokens:,} each, LoRA, two CPU cores). Asked are {numbers['questions']['all']} dev",
        f"questions ({asked}); their passages are the first of BM25 and MiniLM, fused, from Wikipedia (see",
        "[the data](#the-data)); gold passages that are not among them take the last places. Numbers come from",
        "`benchmarks/results/real_questions.json`, those of trials from `real_questions_trials.json` beside it. This",
        "makes the former anew:",
        "",
        f"    {command}",
        "",
        "The model is the smallest that can be tuned on a laptop: read differences, not heights.",
    )
    if kept := kept_answers.names(WHAT):
        yield f"Single answers are kept ({', '.join(kept)}): `python -m benchmarks.real_questions_kept FOLDER` writes"
        yield "them as runs, which `rag-ft compare` pairs with those of another system."
    silent = [name for name in (*numbers["trainings"], *ROUTED) if name not in _systems(numbers)]
    missing = [name for name in OURS if name not in numbers["trainings"]]
    told = {"Trained, and not asked yet": silent, "Not trained on so many tokens yet": missing}
    for note in [*numbers["notes"], *(f"{what}: {', '.join(names)}." for what, names in told.items() if names)]:
        yield ""
        yield note
    yield ""
    yield "![Accuracy against the number of passages shown](results.svg)"
    yield from _section("Accuracy as passages are added", _accuracy(numbers))
    yield from _section("Against the baselines", _differences(numbers))
    yield from _section("Without evidence", _abstention(numbers))
    yield from _section("Robustness", _robustness(numbers))
    yield from _section("What each was trained on", _trainings(numbers))
    yield from _section("What was aimed at", _targets(numbers))
    yield from _section("What was tried on the way", _trials())
    yield from _section("The data", _data())
    yield ""
    yield f"Measured on {machine['processor']}, {machine['cores']} cores, torch {machine['packages'].get('torch')}."


def _data() -> Iterator[str]:
    yield "DATA holds JSON Lines, compressed. Questions are rows of [`jsonl`](sources.md#jsonl): `id`, `question`,"
    yield "`answers`, `passages` with `title`, `text`, `is_gold`; in `squad11_questions`, `gold` names paragraphs. NQ's"
    yield "gold passages are those published with Lost in the Middle (arXiv 2307.03172). Without copies, and without"
    yield "what only another split may see, 32,669 passages are searched for training and 19,776 for dev questions."
    yield ""
    yield "| file (`.jsonl.gz`) | rows | what | licence |"
    yield "|---|---|---|---|"
    yield from (f"| `{name}` | {rows} | {what} | {licence} |" for name, rows, what, licence in DATA)


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield from lines


def _systems(numbers: Row) -> list[str]:
    return list(dict.fromkeys(cell["system"] for cell in numbers["cells"]))


def _find(rows: Sequence[Row], **keys: Any) -> Row | None:
    return next((row for row in rows if all(row[key] == value for key, value in keys.items())), None)


def _percent(estimate: Row | None) -> str:
    return "" if estimate is None else f"{100 * estimate['mean']:.0f}"


def _points(estimate: Row | None) -> str:
    if estimate is None:
        return ""
    low, high = (100 * estimate[end] for end in ("low", "high"))
    return f"{100 * estimate['mean']:+.0f} ({low:+.0f} to {high:+.0f})"


def _counts(numbers: Row) -> list[int]:
    return sorted({cell["passages"] for cell in numbers["cells"] if cell["gold"] == "kept"})


def _accuracy(numbers: Row) -> Iterator[str]:
    counts = _counts(numbers)
    for group, count in numbers["questions"].items():
        yield f"| {group}, {count} questions, % | closed book | {' | '.join(map(str, counts))} |"
        yield "|---|" + "---|" * (1 + len(counts))
        for system in _systems(numbers):
            place = {"system": system, "group": group}
            closed = _find(numbers["cells"], gold="closed_book", **place)
            cells = [_find(numbers["cells"], gold="kept", passages=count, **place) for count in counts]
            if any(cells):
                shown = [_percent(cell and cell["accuracy"]) for cell in (closed, *cells)]
                yield f"| {system} | {' | '.join(shown)} |"
        yield ""
    yield "An accepted answer stands in the parsed answer as whole words. Evidence is always among the passages."


def _differences(numbers: Row) -> Iterator[str]:
    counts = [count for count in _counts(numbers) if count >= 10]
    heads = [f"minus {other}, {count} passages" for other in ("base", "clean") for count in counts]
    yield f"| points, with 95 % interval | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(heads)
    for system in _systems(numbers):
        rows = [
            _find(numbers[f"minus {other}"], system=system, gold="kept", passages=count, group="all")
            for other in ("base", "clean")
            for count in counts
        ]
        if any(rows):
            yield f"| {system} | {' | '.join(_points(row and row['accuracy']) for row in rows)} |"
    yield ""
    yield "Paired by question. Intervals are over questions: another seed of training would move them further."
    if ROUTED[0] in _systems(numbers):
        alike = [
            _find(numbers["cells"], system=name, gold="kept", passages=5, group="all") for name in ("base", "clean")
        ]
        base, clean = (_percent(cell and cell["accuracy"]) for cell in alike)
        yield "Part of the routed system's lead is that it is shown five passages first. Who never declines is, routed,"
        yield f"what it is with five: hold it against {base} % of the base and {clean} % of `clean` as well."
    yield ""
    yield from (
        "Read them as hopeful: settings were chosen among trials on the first of these questions, and routing (with",
        "its default of five) was added after the scores of `answer` on them were known. Intervals are not",
        "corrected for the number of comparisons.",
    )


def _abstention(numbers: Row) -> Iterator[str]:
    heads = (
        "answers though nothing supports it",
        "would, if it declined at random",
        "declines though it is there",
        "answers if it declines when unsure",
    )
    yield f"| at 10 passages, % | {' | '.join(heads)} |"
    yield "|---|---|---|---|---|"
    for system in _systems(numbers):
        absent = _find(numbers["cells"], system=system, gold="absent", passages=10, group="all")
        kept = _find(numbers["cells"], system=system, gold="kept", passages=10, group="all")
        if absent and kept:
            refused = kept["abstention"]["over_refusal"]
            rates = (absent["abstention"]["hallucination_rate"], 1 - refused, refused)
            unsure = _find(numbers["thresholds"], system=system, passages=10)
            last = f"{100 * unsure['hallucination_rate']:.0f}" if unsure else ""
            yield f"| {system} | {' | '.join(f'{100 * rate:.0f}' for rate in rates)} | {last} |"
    yield ""
    yield from (
        "Who declines at random declines as often with evidence as without: the closer the first two numbers, the",
        "less the model tells the two apart. The last column: nothing supports it, and it declines below the",
        "confidence that turns away at most 10 % of what can be answered. Where even that leaves most of them, the",
        "model does not know when it is wrong.",
    )


def _robustness(numbers: Row) -> Iterator[str]:
    names = {
        "auc": "area under the curve",
        "drop_from_peak": "drop from the peak",
        "retention": "at 20 passages, of that at 1",
        "distraction_rate": "misled by distractors",
        "harm_rate": "right without, wrong with passages",
    }
    yield f"| % | {' | '.join(names.values())} |"
    yield "|---|" + "---|" * len(names)
    for row in numbers["robustness"]:
        cells = [
            ""
            if row[name] is None
            else f"{100 * row[name]['mean']:.0f} ({100 * row[name]['low']:.0f} to {100 * row[name]['high']:.0f})"
            for name in names
        ]
        yield f"| {row['system']} | {' | '.join(cells)} |"
    yield ""
    yield "Who is right more often with one passage has more to lose: read the drop in points beside the share that"
    yield "is kept."


def _trainings(numbers: Row) -> Iterator[str]:
    yield "| system | what | tokens | questions | steps | minutes |"
    yield "|---|---|---|---|---|---|"
    for system, what in WHAT.items():
        one = numbers["trainings"].get(system)
        told = [f"{one[name]:,}" for name in ("tokens", "questions", "steps", "minutes")] if one else [""] * 4
        yield f"| {system} | {what} | {' | '.join(told)} |"


def _targets(numbers: Row) -> Iterator[str]:
    yield "| aim | measured | reached |"
    yield "|---|---|---|"
    for count in (10, 20):
        for other, least in (("base", 0.15), ("clean", 0.05)):
            best = [row for systems in (OURS, ROUTED) if (row := _best(numbers, other, count, systems))]
            reached = any(row["accuracy"]["mean"] >= least and row["accuracy"]["low"] > 0 for row in best)
            aim = f"best of ours over {other} at {count} passages: {100 * least:.0f} points, interval clear of 0"
            shown = "; ".join(f"{row['system']}: {_points(row['accuracy'])}" for row in best)
            yield f"| {aim} | {shown} | {_yes(reached)} |"
    yield _drop_target(numbers)
    yield _refusal_target(numbers)


def _trials() -> Iterator[str]:
    """Trials on few questions: enough to see what fails, too few to choose between what works."""
    kept = json.loads((ROOT / "benchmarks/results/real_questions_trials.json").read_text(encoding="utf-8"))["numbers"]
    counts = list(next(iter(kept.values()))["accuracy"])
    asked = next(iter(kept.values()))["asked"]
    yield f"Style `answer`, the first {asked} of the questions, 400,000 tokens where no other number is named."
    yield ""
    yield f"| accuracy, % | {' | '.join(counts)} | declines at 10 | answers at 10 without evidence |"
    yield "|---|" + "---|" * (len(counts) + 2)
    for name, one in kept.items():
        cells = [_percent(one["accuracy"][count]) for count in counts]
        rates = [one["over-refusal"]["10"], one["hallucination at 10, gold absent"]]
        yield f"| {name} | {' | '.join(cells)} | {' | '.join(f'{100 * rate:.0f}' for rate in rates)} |"


def _best(numbers: Row, other: str, count: int, systems: Sequence[str]) -> Row | None:
    rows = [
        row
        for row in numbers[f"minus {other}"]
        if row["system"] in systems and (row["gold"], row["passages"], row["group"]) == ("kept", count, "all")
    ]
    return max(rows, key=lambda row: row["accuracy"]["mean"], default=None)


def _drop_target(numbers: Row) -> str:
    drops = {row["system"]: row["drop_from_peak"]["mean"] for row in numbers["robustness"]}
    best = [
        min(asked, key=drops.__getitem__)
        for systems in (OURS, ROUTED)
        if (asked := [system for system in systems if system in drops])
    ]
    shown = "; ".join(f"{system}: {100 * drops[system]:.0f} points" for system in (*best, "base"))
    reached = min(drops[system] for system in best) <= drops["base"] / 2
    return f"| drop from the peak to 20 passages at most half of the base's | {shown} | {_yes(reached)} |"


def _refusal_target(numbers: Row) -> str:
    found = []
    for system in (*OURS, *ROUTED):
        absent = _find(numbers["cells"], system=system, gold="absent", passages=10, group="all")
        kept = _find(numbers["cells"], system=system, gold="kept", passages=10, group="all")
        if absent and kept:
            found.append((system, absent["abstention"]["hallucination_rate"], kept["abstention"]["over_refusal"]))
    shown = "; ".join(f"{name}: {100 * wrong:.0f} at {100 * refused:.0f}" for name, wrong, refused in found)
    reached = any(wrong < 0.15 and refused < 0.1 for _, wrong, refused in found)
    aim = "nothing supports it: answers under 15 %, declining under 10 % where it is there"
    return f"| {aim} | {shown} | {_yes(reached)} |"


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


if __name__ == "__main__":
    main()
