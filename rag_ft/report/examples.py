"""Which questions the report shows in full, and what it shows of them. Renders nothing, scores nothing new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from data_builders.files import seeded
from data_builders.records import Pool
from data_builders.text import contains_answer

KINDS = {
    "gained": "{system} right, {baseline} wrong",
    "lost": "{baseline} right, {system} wrong",
    "both_wrong": "both wrong",
    "both_right": "both right",
    "right": "right",
    "wrong": "wrong",
}


class PredictionLike(Protocol):
    """What is read of a `rag_ft.evaluation.predictions.Prediction`."""

    @property
    def question_id(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def system(self) -> str: ...  # noqa: D102
    @property
    def gold(self) -> str: ...  # noqa: D102
    @property
    def passages(self) -> int: ...  # noqa: D102
    @property
    def variant(self) -> str: ...  # noqa: D102
    @property
    def shown(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def answers(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def output(self) -> str: ...  # noqa: D102
    @property
    def answer(self) -> str | None: ...  # noqa: D102
    @property
    def abstained(self) -> bool: ...  # noqa: D102
    @property
    def failure(self) -> str | None: ...  # noqa: D102


Rows = dict[str, PredictionLike]


def choose_examples(
    predictions: Iterable[PredictionLike],
    pools: Mapping[str, Pool],
    evidence: Mapping[str, Sequence[tuple[str, str]]],
    count: int = 10,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Choose questions at the largest passage count and return them as rows of examples.json.

    The kinds of outcome take turns (the tuned system gained, it lost, both wrong) while they last, so that losses are
    shown as readily as gains; questions that both answer right come only when nothing else is left. Within a kind the
    order is drawn by `seed` and question id. Each row says its kind and how many questions are of that kind.

    Args:
        predictions: of one run; `kept` is shown where it was swept, else `retrieved`.
        pools: the passages of every question, by question id.
        evidence: (passage id, verbatim quote) pairs by question id.
        count: how many questions at most.
        seed: of the draw.
    """
    by_question = _at_largest_count(list(predictions))
    systems = list(dict.fromkeys(name for rows in by_question.values() for name in rows))
    if not systems:
        return []
    pair = _pair(systems)
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for question_id in sorted(by_question, key=lambda name: seeded(seed, "examples", name).random()):
        rows = by_question[question_id]
        if question_id in pools and all(name in rows for name in pair):
            kinds[_kind(rows, pair)].append(question_id)
    chosen = _take_turns(kinds, count)
    return [
        {
            **_example(by_question[question_id], pools[question_id], evidence.get(question_id, ())),
            "kind": KINDS[kind].format(system=pair[0], baseline=pair[-1]),
            "kind_questions": len(kinds[kind]),
        }
        for kind, question_id in chosen
    ]


def is_correct(row: PredictionLike) -> bool:
    """Tell whether an answer counts as right in accuracy: it holds an accepted one, or declines where there is none."""
    if row.failure is not None:
        return False
    if not row.answers:
        return row.abstained
    return not row.abstained and row.answer is not None and contains_answer(row.answer, row.answers)


def _at_largest_count(predictions: list[PredictionLike]) -> dict[str, Rows]:
    """Return predictions by question and system, in the headline gold mode at its largest count."""
    predictions = [row for row in predictions if not row.variant]
    golds = {row.gold for row in predictions}
    gold = next((mode for mode in ("kept", "retrieved") if mode in golds), None)
    swept = [row for row in predictions if row.gold == gold]
    largest = max((row.passages for row in swept), default=0)
    found: dict[str, Rows] = {}
    for row in swept:
        if row.passages == largest:
            found.setdefault(row.question_id, {})[row.system] = row
    return found


def _pair(systems: Sequence[str]) -> tuple[str, ...]:
    """Return the system the report is about and its baseline, or the only system."""
    system = "tuned" if "tuned" in systems else systems[-1]
    baseline = "base" if "base" in systems else systems[0]
    return (system,) if system == baseline else (system, baseline)


def _kind(rows: Rows, pair: tuple[str, ...]) -> str:
    right = [is_correct(rows[name]) for name in pair]
    if len(right) == 1:
        return "right" if right[0] else "wrong"
    return {(True, False): "gained", (False, True): "lost", (False, False): "both_wrong"}.get(
        (right[0], right[1]), "both_right"
    )


def _take_turns(kinds: Mapping[str, Sequence[str]], count: int) -> list[tuple[str, str]]:
    """Return (kind, question id), the kinds taking turns; "both right" waits until the others have run out."""
    turns = [name for name in KINDS if name != "both_right"]
    longest = max(map(len, kinds.values()))
    mixed = [(name, kinds[name][turn]) for turn in range(longest) for name in turns if turn < len(kinds[name])]
    rest = [("both_right", question_id) for question_id in kinds["both_right"]]
    order = list(KINDS)
    return sorted([*mixed, *rest][:count], key=lambda item: order.index(item[0]))


def _example(rows: Rows, pool: Pool, evidence: Sequence[tuple[str, str]]) -> dict[str, Any]:
    first = next(iter(rows.values()))
    known = {passage.id: passage for passage in pool.passages}
    passages = [
        {
            "id": passage.id,
            "title": passage.title,
            "text": passage.text,
            "is_gold": passage.is_gold,
            "quotes": [quote for passage_id, quote in evidence if passage_id == passage.id],
        }
        for passage in (known[name] for name in first.shown if name in known)
    ]
    return {
        "question_id": pool.id,
        "group": first.group,
        "question": pool.question,
        "answers": list(first.answers),
        "passages": passages,
        "outputs": [_output(row) for row in rows.values()],
    }


def _output(row: PredictionLike) -> dict[str, Any]:
    return {
        "system": row.system,
        "passages": row.passages,
        "answer": row.answer,
        "output": row.output if row.failure is None else f"Generation failed: {row.failure}",
        "correct": is_correct(row),
        "abstained": row.abstained,
    }
