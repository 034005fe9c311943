"""Lost in the Middle: questions of NQ-open with one gold passage among distractors, in the order of the experiment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from data_builders.records import Passage, Question
from data_builders.sources.jsonl import optional_text, within
from data_builders.sources.passage_rows import (
    answers_of,
    distinct,
    first_text,
    ids_of,
    listed,
    passage_of,
    question_text,
    ranking_of,
)
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, hashed_id, shown


class LostInTheMiddleSettings(FileSettings):
    """The files of Lost in the Middle (Liu et al. 2023): NQ-open questions with a gold passage and distractors."""

    kind: Literal["lost_in_the_middle"]
    """One JSON object a line, usually .gz; the ranking is the file's order, with the gold passage where it puts it."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield a row's passages, its question and their order.

    Gold is the passage with `isgold`, else (retrieval output of the same project) `nq_annotated_gold`.
    """
    question, answers, entries = question_text(row), answers_of(row), listed(row, "ctxs")
    flagged = [
        entry.passage
        for entry, item in zip(entries, row.get("ctxs") or (), strict=True)
        if _is_gold(item.get("isgold"))
    ]
    annotated = [] if flagged else [_annotated(row)]
    yield from dict.fromkeys([*distinct(entries), *annotated])
    id_, gold = first_text(row, ("id",)) or hashed_id("q", question, *answers), ids_of([*flagged, *annotated])
    yield Question(id_, question, answers, gold[:1], source=place.source, alternatives=gold[1:])
    yield from ranking_of(id_, entries)


def _is_gold(value: Any) -> bool:
    if value not in (True, False, None):
        raise BadRow("ctxs", f"has an isgold of {shown(value)}, not true or false")
    return value is True


def _annotated(row: dict[str, Any]) -> Passage:
    gold = row.get("nq_annotated_gold")
    if not isinstance(gold, dict):
        raise BadRow("ctxs", "has no passage with isgold: true, and nq_annotated_gold is missing")
    with within("nq_annotated_gold"):
        text = first_text(gold, ("chunked_long_answer", "long_answer"))
        if not text:
            raise BadRow("chunked_long_answer", "is missing")
        return passage_of(optional_text(gold, "title"), text)


LOST_IN_THE_MIDDLE = Format(
    kind="lost_in_the_middle",
    example={
        "question": "when was the aldern bridge opened",
        "answers": ["1932"],
        "ctxs": [
            {"id": "9", "title": "Aldern", "text": "Aldern lies on the Ruhne.", "score": 0.92, "hasanswer": False},
            {"title": "Aldern bridge", "text": "It was opened in 1932.", "hasanswer": True, "isgold": True},
        ],
        "nq_annotated_gold": {"title": "Aldern bridge", "chunked_long_answer": "It was opened in 1932."},
    },
    parse=parse,
)
