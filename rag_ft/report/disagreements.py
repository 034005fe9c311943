"""Questions on which systems disagree, for the browser of the page. Reads no file, scores nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_builders.files import seeded
from data_builders.records import Pool
from rag_ft.report.findings import headline_point, main_sweep

MOST = 200
_LONGEST_TEXT = 1500  # characters of a passage or an output: the page is one file and is read by people


def choose_disagreements(
    answers: Iterable[Mapping[str, Any]], systems: Sequence[str], count: int = MOST, seed: int = 1
) -> tuple[list[list[Mapping[str, Any]]], int]:
    """Choose questions that some systems answer right and others wrong.

    The patterns of who is right take turns, so that rare ones are shown too; within a pattern the draw goes by `seed`
    and question id.

    Args:
        answers: rows of answers.jsonl of one point of the grid.
        systems: in the order shown; questions that one of them did not answer are left out.
        count: how many questions at most.
        seed: of the draw.

    Returns:
        The rows of each chosen question in the order of `systems`, and how many questions disagree in all.
    """
    by_question: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in answers:
        by_question.setdefault(row["question_id"], {})[row["system"]] = row
    patterns: dict[tuple[bool, ...], list[str]] = {}
    for question in sorted(by_question, key=lambda name: seeded(seed, "disagreements", name).random()):
        rows = by_question[question]
        if all(name in rows for name in systems):
            pattern = tuple(is_right(rows[name]) for name in systems)
            if len(set(pattern)) > 1:
                patterns.setdefault(pattern, []).append(question)
    longest = max(map(len, patterns.values()), default=0)
    turns = [ids[turn] for turn in range(longest) for ids in patterns.values() if turn < len(ids)]
    chosen = [[by_question[question][name] for name in systems] for question in turns[:count]]
    return chosen, len(turns)


def is_right(row: Mapping[str, Any]) -> bool:
    """Tell whether an answer counts as right; where the metric does not apply to it, it does not."""
    return bool(row["accuracy"] and row["accuracy"] >= 0.5)


def browser(
    scores: Mapping[str, Any],
    answers: Iterable[Mapping[str, Any]],
    pools: Mapping[str, Pool],
    outputs: Callable[[list[Mapping[str, Any]]], Mapping[tuple[str, str], str]] | None,
    systems: Sequence[str],
    seed: int = 1,
) -> dict[str, Any]:
    """Return what the browser of disagreements shows: the headline gold mode at its largest count.

    Args:
        scores: the content of scores.json.
        answers: rows of answers.jsonl.
        pools: question texts and gold passages by question id; a question that is not there shows its id.
        outputs: takes the rows that are shown, returns all that a system wrote by question id and system, where it is
            known; None shows parsed answers alone.
        systems: in the order shown.
        seed: of the draw.
    """
    gold, passages = headline_point(scores) or ("", 0)
    here = [row for row in main_sweep(answers) if (row["gold"], row["passages"]) == (gold, passages)]
    there = {row["system"] for row in here}
    systems = [name for name in systems if name in there]
    chosen, total = choose_disagreements(here, systems, seed=seed)
    written = outputs([row for rows in chosen for row in rows]) if outputs else {}
    questions = [_question(rows, pools.get(rows[0]["question_id"]), written) for rows in chosen]
    return {"gold": gold, "passages": passages, "systems": systems, "total": total, "questions": questions}


def _question(
    rows: Sequence[Mapping[str, Any]], pool: Pool | None, outputs: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    first = rows[0]
    gold = [passage for passage in pool.passages if passage.is_gold] if pool else []
    return {
        "id": first["question_id"],
        "group": first["group"],
        "question": pool.question if pool else first["question_id"],
        "answers": list(pool.answers) if pool else [],
        "gold": [{"title": passage.title or passage.id, "text": _short(passage.text)} for passage in gold],
        "outputs": [_output(row, outputs.get((row["question_id"], row["system"]))) for row in rows],
    }


def _output(row: Mapping[str, Any], output: str | None) -> dict[str, Any]:
    failed = f"Generation failed: {row['failure']}" if row["failure"] is not None else None
    return {
        "system": row["system"],
        "answer": row["answer"],
        "output": _short(failed or output or ""),
        "correct": is_right(row),
        "abstained": row["abstained"],
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} \u2026"
