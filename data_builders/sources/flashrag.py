"""FlashRAG: questions with golden answers and no gold passages, and FlashRAG's corpus files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from data_builders.records import Passage, Question
from data_builders.sources.jsonl import optional_text
from data_builders.sources.passage_rows import answers_of, passage_of, question_text
from data_builders.sources.rows import BadRow, Files, FileSettings, Format, Place, SourceRecord, text_of


class FlashragSettings(FileSettings):
    """The data sets that FlashRAG collected, in its one format: questions and answers, no gold passages."""

    kind: Literal["flashrag"]
    """One JSON object a line: id, question, golden_answers."""
    corpus_path: Files | None = None
    """The passages to search, as FlashRAG keeps them: {id, contents}, where the first line of contents is the title."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the question of a row; no passage is annotated as gold."""
    answers = answers_of(row, "golden_answers")
    yield Question(text_of(row, "id"), question_text(row), answers, (), source=place.source)


def parse_passage(row: dict[str, Any], place: Place) -> Iterator[Passage]:
    """Yield the passage of a corpus row: `title` and `text`, or else `contents` cut after its first line."""
    id_, title, text = text_of(row, "id"), optional_text(row, "title"), optional_text(row, "text")
    if not text:
        first, newline, rest = text_of(row, "contents").partition("\n")
        title, text = (title or first, rest) if newline else (title, first)
    if not text.strip():
        raise BadRow("contents", "is empty")
    yield passage_of(_unquoted(title.strip()), text.strip(), id_)


def _unquoted(title: str) -> str:
    """Take off the quotation marks that the Wikipedia corpora of DPR and FlashRAG put around titles."""
    return title[1:-1] if len(title) > 2 and title[0] == title[-1] == '"' else title


FLASHRAG = Format(
    kind="flashrag",
    example={
        "id": "test_0",
        "question": "when was the aldern bridge opened",
        "golden_answers": ["1932", "in 1932"],
        "metadata": {},
    },
    parse=parse,
)
CORPUS = Format(
    kind="flashrag (corpus_path)",
    example={"id": "7", "contents": '"Aldern bridge"\nThe bridge crosses the Ruhne. It was opened in 1932.'},
    parse=parse_passage,
)
