"""Passages that stand inside the rows of questions (`ctxs` and the like): reading them and their order. No format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.records import Passage, Ranking
from data_builders.sources.jsonl import optional_text, within
from data_builders.sources.rows import BadRow, hashed_id, rows_of, shown, text_of, texts_of

RETRIEVER = "source"  # the name of rankings whose file does not say who made them
_PASSAGE_IDS = ("id", "passage_id", "psg_id")
_LARGEST = 3e38  # of the numbers that 32 bits hold, as rankings are kept; also leaves out NaN and infinity


@dataclass(frozen=True)
class Listed:
    """A passage of a row's list and the score the list gives it, if any."""

    passage: Passage
    score: float | None = None


def question_text(row: dict[str, Any], field: str = "question") -> str:
    """Return the question without the space around it; an empty one is a `BadRow`."""
    question = text_of(row, field).strip()
    if not question:
        raise BadRow(field, "is empty")
    return question


def text_at(value: Any, key: str) -> str:
    """Return a value that must be a text; `key` is what a `BadRow` calls it."""
    return text_of({key: value}, key)


def first_text(row: dict[str, Any], fields: Iterable[str]) -> str:
    """Return the first of `fields` that holds something; empty if none does."""
    return next((text for text in (optional_text(row, field) for field in fields) if text), "")


def answers_of(row: dict[str, Any], field: str = "answers") -> tuple[str, ...]:
    """Return the different answers of a list; none at all is a `BadRow`, since it would read as unanswerable."""
    answers = tuple(dict.fromkeys(answer.strip() for answer in texts_of(row, field) if answer.strip()))
    if not answers:
        raise BadRow(field, "holds no answer")
    return answers


def number_of(row: dict[str, Any], field: str) -> float | None:
    """Return a number, also one written as a text (as DPR writes scores); None where it is missing or null."""
    value = row.get(field)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not abs(number) < _LARGEST:
        raise BadRow(field, f"is {shown(value)}, not a number")
    return number


def listed(row: dict[str, Any], field: str) -> list[Listed]:
    """Return the passages of a list of {title, text, id, score}; no list is an empty one.

    A passage without an id (`id`, `passage_id` or `psg_id`) gets one that its title and text decide.
    """
    found = []
    for number, item in enumerate(rows_of(row, field) if row.get(field) is not None else ()):
        with within(f"{field}.{number}"):
            passage = passage_of(optional_text(item, "title"), text_of(item, "text"), first_text(item, _PASSAGE_IDS))
            found.append(Listed(passage, number_of(item, "score")))
    return found


def passage_of(title: str, text: str, id_: str = "") -> Passage:
    """Return the passage of an article `title`; without an id it gets one that title and text decide."""
    return Passage(id_ or hashed_id("p", title, text), title, text, document=title)


def distinct(entries: Iterable[Listed]) -> list[Passage]:
    """Return the passages of the entries, each once, in their order."""
    return list(dict.fromkeys(entry.passage for entry in entries))


def ids_of(passages: Iterable[Passage]) -> tuple[str, ...]:
    """Return the different ids of passages, in their order."""
    return tuple(dict.fromkeys(passage.id for passage in passages))


def ranking_of(question: str, entries: Sequence[Listed]) -> list[Ranking]:
    """Rank what a row lists for its question; nothing listed makes no ranking.

    By falling score if every entry has one, else in the order of the file with 1, 1/2, 1/3... for scores. A passage
    listed twice keeps its better place.
    """
    scores = [entry.score for entry in entries if entry.score is not None]
    if len(scores) < len(entries):
        scores = [1 / place for place in range(1, len(entries) + 1)]
    best: dict[str, float] = {}
    for score, entry in sorted(zip(scores, entries, strict=True), key=lambda pair: -pair[0]):
        best.setdefault(entry.passage.id, score)
    return [Ranking(question, RETRIEVER, tuple(best), tuple(best.values()))] if best else []
