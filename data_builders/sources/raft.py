"""What RAFT writes (Zhang et al. 2024): a question, its oracle document among distractors, a reasoned answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Literal

from data_builders.records import GoldEvidence, Passage, Question
from data_builders.sources.passage_rows import Listed, first_text, passage_of, question_text, ranking_of, text_at
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, hashed_id, shown, text_of

_MARK = "<ANSWER>:"
_QUOTE = re.compile(r"##begin_quote##(.*?)##end_quote##", re.DOTALL)
_MARKS = re.compile(r"##(?:begin_quote|end_quote)##|##\s*(?:reason|answer)\s*:?", re.IGNORECASE)
_REASON = "It supports the answer."
_NO_TITLE = "placeholder_title"


class RaftSettings(FileSettings):
    """Rows made by RAFT: the oracle document is gold, its quotes are evidence, its reasoning is the analysis."""

    kind: Literal["raft"]
    """The rows of raft.py in its own ("hf") form as JSON Lines; `datasets` exports its Arrow folders with to_json."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the documents, the question and the documents' order in the file.

    Quotes count where they stand verbatim in the oracle document. The answer follows the last `<ANSWER>:`.
    """
    documents = _documents(row)
    oracle = _oracle(row, documents)
    yield from dict.fromkeys([*documents, oracle])
    question, reasoned = question_text(row), text_of(row, "cot_answer")
    reasoning, mark, answer = reasoned.rpartition(_MARK)
    if not mark or not answer.strip():
        raise BadRow("cot_answer", f"has no {_MARK} with an answer after it")
    id_ = first_text(row, ("id",)) or hashed_id("q", question, answer.strip())
    yield Question(
        id=id_,
        question=question,
        answers=(answer.strip(),),
        gold=(oracle.id,),
        evidence=tuple(GoldEvidence(oracle.id, quote, _REASON) for quote in _quotes(reasoning, oracle.text)),
        analysis=" ".join(_MARKS.sub(" ", reasoning).split()),
        source=place.source,
    )
    yield from ranking_of(id_, [Listed(document) for document in documents])


def _documents(row: dict[str, Any]) -> list[Passage]:
    """Return the documents shown, whose texts and titles are lists in a list."""
    context = row.get("context")
    if not isinstance(context, dict):
        raise BadRow("context", "is missing" if "context" not in row else f"is {shown(context)}, not an object")
    texts, titles = _flat(context, "sentences"), _flat(context, "title") if "title" in context else []
    named = zip_longest(texts, titles[: len(texts)], fillvalue="")
    return [passage_of("" if title == _NO_TITLE else title, text) for text, title in named]


def _flat(context: dict[str, Any], field: str) -> list[str]:
    value = context.get(field)
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise BadRow(f"context.{field}", f"is {shown(value)}, not a list that holds a list of texts")
    items = [item for inner in value for item in inner]
    return [text_at(item, f"context.{field}.0.{number}") for number, item in enumerate(items)]


def _oracle(row: dict[str, Any], documents: list[Passage]) -> Passage:
    """Return the oracle document: the one shown, or (RAFT leaves it out of some rows) one of its own."""
    text = text_of(row, "oracle_context")
    if not text.strip():
        raise BadRow("oracle_context", "is empty")
    return next((document for document in documents if document.text == text), passage_of("", text))


def _quotes(reasoning: str, text: str) -> list[str]:
    """Return the different quotes, a line each, that stand in `text` as they are."""
    lines = [line.strip() for quote in _QUOTE.findall(reasoning) for line in quote.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and line in text))


RAFT = Format(
    kind="raft",
    example={
        "id": "seed_task_0",
        "type": "general",
        "question": "When was the Aldern bridge opened?",
        "context": {
            "title": [["placeholder_title", "placeholder_title"]],
            "sentences": [["Aldern lies on the Ruhne.", "The bridge was opened in 1932."]],
        },
        "oracle_context": "The bridge was opened in 1932.",
        "cot_answer": "##Reason: ##begin_quote##The bridge was opened in 1932.##end_quote## <ANSWER>: 1932",
        "instruction": "<DOCUMENT>Aldern lies on the Ruhne.</DOCUMENT>...",
    },
    parse=parse,
)
