"""HotpotQA and what is written like it (2WikiMultihopQA): ten paragraphs by sentence, supporting facts by sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from data_builders.records import GoldEvidence, Passage, Question
from data_builders.sources.jsonl import optional_text
from data_builders.sources.passage_rows import (
    Listed,
    first_text,
    ids_of,
    passage_of,
    question_text,
    ranking_of,
    text_at,
)
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, hashed_id, shown, text_of

_REASON = "It is one of the facts the answer follows from."


class HotpotqaSettings(FileSettings):
    """Questions over several articles, with the sentences that support the answer."""

    kind: Literal["hotpotqa"]
    """HotpotQA's own JSON or the rows of its Hub copy; reports keep bridge and comparison questions apart."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the paragraphs, the question with its gold and quotes, and the paragraphs' order in the file."""
    sentences = _context(row)
    passages = {title: passage_of(title, _joined(lines)) for title, lines in sentences.items()}
    yield from passages.values()
    question, answer = question_text(row), text_of(row, "answer").strip()
    if not answer:
        raise BadRow("answer", "is empty")
    facts = _facts(row, sentences)
    id_ = first_text(row, ("_id", "id")) or hashed_id("q", question, answer)
    yield Question(
        id=id_,
        question=question,
        answers=(answer,),
        gold=ids_of(passages[title] for title, _ in facts),
        evidence=tuple(_evidence(facts, sentences, passages)),
        source=place.source,
        group=optional_text(row, "type"),
    )
    yield from ranking_of(id_, [Listed(passage) for passage in passages.values()])


def _context(row: dict[str, Any]) -> dict[str, list[str]]:
    """Return title -> sentences; of two paragraphs with one title the first counts."""
    found: dict[str, list[str]] = {}
    for number, (title, lines) in enumerate(_pairs(row, "context", "sentences")):
        key = f"context.{number}"
        if not isinstance(lines, list):
            raise BadRow(f"{key}.1", f"is {shown(lines)}, not a list of sentences")
        texts = [text_at(line, f"{key}.1.{n}") for n, line in enumerate(lines)]
        found.setdefault(text_at(title, f"{key}.0"), texts)
    return found


def _facts(row: dict[str, Any], sentences: dict[str, list[str]]) -> list[tuple[str, int]]:
    """Return (title, number of the sentence) of every supporting fact."""
    facts = []
    for number, (title, index) in enumerate(_pairs(row, "supporting_facts", "sent_id")):
        if not isinstance(title, str) or title not in sentences:
            raise BadRow(f"supporting_facts.{number}", f"names {shown(title)}, which is no title in context")
        if isinstance(index, bool) or not isinstance(index, int):
            raise BadRow(f"supporting_facts.{number}", f"names sentence {shown(index)}, which is no number")
        facts.append((title, index))
    return facts


def _pairs(row: dict[str, Any], field: str, second: str) -> list[tuple[Any, Any]]:
    """Return [[title, x], ...] as pairs, also where it is written {title: [...], x: [...]}, as on the Hub."""
    value = row.get(field)
    if isinstance(value, dict):
        titles, others = value.get("title"), value.get(second)
        if not isinstance(titles, list) or not isinstance(others, list) or len(titles) != len(others):
            raise BadRow(field, f"needs lists of the same length under title and {second}")
        return list(zip(titles, others, strict=True))
    if not isinstance(value, list):
        raise BadRow(field, "is missing" if field not in row else f"is {shown(value)}, not a list")
    for number, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(f"{field}.{number}", f"is {shown(pair)}, not [title, {second}]")
    return [(title, other) for title, other in value]


def _joined(sentences: list[str]) -> str:
    """Join sentences with the space they bring along (HotpotQA) or one between them (2WikiMultihopQA)."""
    text = ""
    for sentence in sentences:
        gap = text and sentence and not text[-1].isspace() and not sentence[0].isspace()
        text += f" {sentence}" if gap else sentence
    return text


def _evidence(
    facts: Iterable[tuple[str, int]], sentences: dict[str, list[str]], passages: dict[str, Passage]
) -> Iterator[GoldEvidence]:
    """Quote every supporting sentence, one line each; HotpotQA names some that its paragraphs do not have."""
    for title, index in dict.fromkeys(facts):
        sentence = sentences[title][index] if 0 <= index < len(sentences[title]) else ""
        for line in filter(None, map(str.strip, sentence.splitlines())):
            yield GoldEvidence(passages[title].id, line, _REASON)


HOTPOTQA = Format(
    kind="hotpotqa",
    example={
        "_id": "q1",
        "question": "On which river lies the town whose bridge was opened in 1932?",
        "answer": "Ruhne",
        "type": "bridge",
        "supporting_facts": [["Aldern bridge", 1], ["Aldern", 0]],
        "context": [
            ["Aldern", ["Aldern lies on the Ruhne.", " It has a market."]],
            ["Aldern bridge", ["It stands in Aldern.", " It was opened in 1932."]],
        ],
    },
    parse=parse,
)
