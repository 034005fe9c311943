"""KILT: questions whose provenance names paragraphs of the KILT knowledge source, and that knowledge source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from data_builders.records import Passage, Question
from data_builders.sources.jsonl import optional_text, within
from data_builders.sources.passage_rows import question_text, text_at
from data_builders.sources.rows import (
    BadRow,
    Files,
    FileSettings,
    Format,
    Place,
    SourceRecord,
    rows_of,
    shown,
    text_of,
)

_LONGEST_SPAN = 50  # paragraphs; a wider one is a slip, and would be shown as gold as a whole


class KiltSettings(FileSettings):
    """Questions of KILT tasks, answered by paragraphs of one Wikipedia."""

    kind: Literal["kilt"]
    """A KILT task file, one JSON object a line."""
    knowledge_source: Files
    """The KILT knowledge source (or the part of it you search): {wikipedia_id, wikipedia_title, text} a line."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the question of a row.

    What one output names is needed together (hops); different outputs are alternatives. The first output whose
    provenance names paragraphs gives the gold, the others give passages that never are negatives.
    """
    outputs = rows_of(row, "output")
    answers, golds = [], []
    for number, output in enumerate(outputs):
        with within(f"output.{number}"):
            answers.append(optional_text(output, "answer").strip())
            golds.append(_paragraphs(output))
    given = tuple(dict.fromkeys(answer for answer in answers if answer))
    if not given:
        raise BadRow("output", "holds no answer")
    named = [gold for gold in golds if gold]
    gold = named[0] if named else ()
    others = dict.fromkeys(id_ for other in named[1:] for id_ in other if id_ not in gold)
    question = question_text(row, "input")
    yield Question(text_of(row, "id"), question, given, gold, source=place.source, alternatives=tuple(others))


def _paragraphs(output: dict[str, Any]) -> tuple[str, ...]:
    """Return the ids of the paragraphs one output needs; none where its provenance names pages only."""
    found: list[str] = []
    for number, provenance in enumerate(rows_of(output, "provenance") if output.get("provenance") is not None else ()):
        with within(f"provenance.{number}"):
            first = _index(provenance, "start_paragraph_id")
            if first is None:
                return ()
            last = _index(provenance, "end_paragraph_id")
            last = first if last is None else last
            if not first <= last < first + _LONGEST_SPAN:
                raise BadRow("end_paragraph_id", f"is {last}, but the span begins at paragraph {first}")
            page = text_of(provenance, "wikipedia_id")
            found.extend(f"{page}#{paragraph}" for paragraph in range(first, last + 1))
    return tuple(dict.fromkeys(found))


def _index(row: dict[str, Any], field: str) -> int | None:
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRow(field, f"is {shown(value)}, not the number of a paragraph")
    return value


def parse_page(row: dict[str, Any], place: Place) -> Iterator[Passage]:
    """Yield the paragraphs of a page as passages `wikipedia_id#paragraph`; empty ones are left out."""
    page, title, paragraphs = text_of(row, "wikipedia_id"), text_of(row, "wikipedia_title"), row.get("text")
    if isinstance(paragraphs, dict):  # as the Hub keeps it
        paragraphs = paragraphs.get("paragraph")
    if not isinstance(paragraphs, list):
        raise BadRow("text", "is missing" if "text" not in row else f"is {shown(paragraphs)}, not a list of paragraphs")
    for number, paragraph in enumerate(paragraphs):
        text = text_at(paragraph, f"text.{number}").strip()
        if text:
            yield Passage(f"{page}#{number}", title, text, document=title)


def heading(passage: Passage) -> str:
    """Return what to call a paragraph that is a heading of the knowledge source, or nothing for one that says more.

    A page begins with its title, and every section with its own: "Section::::Early life.". As passages they say
    nothing, but retrieval would find them, since a title's words are those of questions.
    """
    if passage.text.startswith("Section::::"):
        return "paragraphs that are the heading of a section"
    return "paragraphs that are the title of their page" if passage.text == passage.title.strip() else ""


KILT = Format(
    kind="kilt",
    example={
        "id": "q1",
        "input": "When was the Aldern bridge opened?",
        "output": [
            {
                "answer": "1932",
                "provenance": [
                    {
                        "wikipedia_id": "41",
                        "title": "Aldern bridge",
                        "start_paragraph_id": 1,
                        "end_paragraph_id": 1,
                    }
                ],
            }
        ],
    },
    parse=parse,
)
KNOWLEDGE_SOURCE = Format(
    kind="kilt (knowledge_source)",
    example={
        "wikipedia_id": "41",
        "wikipedia_title": "Aldern bridge",
        "text": ["Aldern bridge\n", "The bridge crosses the Ruhne. It was opened in 1932.\n"],
    },
    parse=parse_page,
)
