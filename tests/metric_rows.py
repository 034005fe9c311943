"""Cases for the tests of metrics, from the rows of metric_cases.json or written out."""

import json
from pathlib import Path

from data_builders.records import PoolPassage
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.predictions import Prediction
from rag_ft.prompting.parse import parse_output
from rag_ft.prompting.settings import PromptSettings

ROWS = json.loads((Path(__file__).parent / "metric_cases.json").read_text(encoding="utf-8"))


def passage(rank, title="", text="", kind="gold"):
    """Return a passage: `kind` is gold, alternative, has_answer or nothing."""
    guard = "gold" if kind in ("gold", "alternative") else ""
    return PoolPassage(f"p{rank}", title, text, kind == "gold", kind != "", "bm25", rank, 1 / rank, guard)


def case(output="1801", style="answer", shown=(), answers=("1801",), question="q", planted="", failure=None, **other):
    """Return a case as the evaluation makes it: stored, then read in its style. `shown` holds (title, text, kind).

    `other` holds gold and answerable, where they are not kept and True.
    """
    parsed = parse_output(output, PromptSettings(style=style))
    passages = tuple(passage(rank, *one) for rank, one in enumerate(shown, 1))
    row = Prediction(
        question_id=question,
        group="",
        system="base",
        gold=other.get("gold", "kept"),
        passages=len(passages),
        shown=tuple(one.id for one in passages),
        answerable=other.get("answerable", True),
        answers=tuple(answers),
        output=output,
        answer=parsed.answer,
        abstained=parsed.abstained,
        prompt_tokens=1,
        output_tokens=1,
        seconds=0.1,
        failure=failure,
        planted=planted,
    )
    return Case(row, parsed, passages, style)


def case_of(row):
    """Return the case a row of metric_cases.json describes."""
    return case(
        row["output"],
        row["style"],
        row["shown"],
        row["answers"],
        **{name: row[name] for name in ("planted", "failure", "gold", "answerable") if name in row},
    )
