"""DPR training files (`positive_ctxs`) and the output of DPR, Contriever and their kin (`ctxs`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from data_builders.records import Question
from data_builders.sources.passage_rows import (
    answers_of,
    distinct,
    first_text,
    ids_of,
    listed,
    question_text,
    ranking_of,
)
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, hashed_id

_FIELDS = ("positive_ctxs", "hard_negative_ctxs", "negative_ctxs", "ctxs")
_IDS = ("id", "question_id", "q_id", "query_id")


class DprSettings(FileSettings):
    """Questions with the passages a retriever ranked for them, in the JSON that DPR and Contriever write."""

    kind: Literal["dpr"]
    """DPR's training files or the retrieval output of DPR and Contriever; both may be JSON or JSON Lines."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield a row's passages, its question and their ranking.

    Positives are alternatives to each other: the first is gold, the others never are negatives. Without positives
    (retrieval output) nothing is annotated as gold.
    """
    if all(row.get(field) is None for field in _FIELDS):
        raise BadRow("positive_ctxs", "is missing, and so is ctxs")
    question, answers = question_text(row), answers_of(row)
    lists = {field: listed(row, field) for field in _FIELDS}
    entries = [entry for field in _FIELDS for entry in lists[field]]
    yield from distinct(entries)
    id_, positives = (
        first_text(row, _IDS) or hashed_id("q", question, *answers),
        ids_of(distinct(lists["positive_ctxs"])),
    )
    yield Question(id_, question, answers, positives[:1], source=place.source, alternatives=positives[1:])
    yield from ranking_of(id_, entries)


DPR = Format(
    kind="dpr",
    example={
        "question": "when was the aldern bridge opened",
        "answers": ["1932"],
        "positive_ctxs": [
            {"title": "Aldern bridge", "text": "It was opened in 1932.", "score": 12.5, "passage_id": "7"}
        ],
        "negative_ctxs": [],
        "hard_negative_ctxs": [
            {"title": "Aldern", "text": "Aldern lies on the Ruhne.", "score": 9.1, "passage_id": "9"}
        ],
    },
    parse=parse,
)
