"""Our own format: questions with answers and gold, and, where they were retrieved already, their passages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Passage, Question, Ranking
from data_builders.sources.rows import (
    BadRow,
    Files,
    FileSettings,
    Format,
    Mapper,
    Place,
    SourceRecord,
    Split,
    hashed_id,
    parsed_file,
    read_files,
    rows_of,
    setting,
    shown,
    split_files,
    text_of,
    texts_of,
)

_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "development": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


_RETRIEVER = "source"  # the name of rankings whose rows do not say who made them
_LARGEST = 3e38  # of the numbers that 32 bits hold, as rankings are kept; also leaves out NaN and infinity


class JsonlSettings(FileSettings):
    """Our own rows: a question with its answers, gold and passages on each line."""

    kind: Literal["jsonl"]
    """The format to write your own data in."""
    passages: Files | None = None
    """Files of further passages {id, title, text}: the corpus that retrievers search beside what the rows embed."""


@dataclass(frozen=True)
class _Embedded:
    """A passage that stands in the row of a question."""

    passage: Passage
    is_gold: bool
    score: float | None
    retriever: str


class Jsonl:
    """The source itself. With `corpus: shared`, every question searches every passage, whatever split rows name."""

    def __init__(self, settings: JsonlSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._name = name

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream the passages of the extra files, then each question after its own passages.

        Raises:
            RagFtError: a file is missing or unreadable, or a row does not fit and `bad_rows` is `stop`.
        """
        shared = self._settings.corpus == "shared"
        for record in self._all(tally):
            yield replace(record, split="") if shared and isinstance(record, Passage) else record

    def _all(self, tally: Tally) -> Iterator[SourceRecord]:
        settings, key = self._settings, setting(self._name, "passages")
        for _, path in split_files(settings.passages, key) if settings.passages else ():
            yield from parsed_file(PASSAGES, (self._name, path), settings.bad_rows, tally)
        yield from read_files(QUESTIONS, settings, self._name, tally)


def parse_question(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield a row's passages, its question, and a ranking of the passages with a score for each retriever they name."""
    split = split_of(row)
    embedded = [_embedded(item, number) for number, item in enumerate(_optional_rows(row, "passages"))]
    for passage in dict.fromkeys(item.passage for item in embedded):
        yield replace(passage, split=passage.split or split)
    question = _question(row, embedded, place.source)
    yield question
    yield from _rankings(question.id, embedded)


def parse_passage(row: dict[str, Any], place: Place) -> Iterator[Passage]:
    """Yield the passage of a corpus row; its title is its document unless the row names another."""
    title, text = optional_text(row, "title"), text_of(row, "text")
    yield Passage(
        id=optional_text(row, "id") or hashed_id("p", title, text),
        title=title,
        text=text,
        document=optional_text(row, "document") or title,
        page=_page(row),
        split=split_of(row),
    )


QUESTIONS = Format(
    kind="jsonl",
    example={
        "id": "q1",
        "question": "When was the Aldern bridge opened?",
        "answers": ["1932", "in 1932"],
        "split": "train",
        "passages": [
            {"id": "p7", "title": "Aldern bridge", "text": "It was opened in 1932.", "is_gold": True, "score": 9.1},
            {"id": "p9", "title": "Aldern", "text": "Aldern lies on the Ruhne.", "score": 7.4, "retriever": "bm25"},
        ],
    },
    parse=parse_question,
)
PASSAGES = Format(
    kind="jsonl (passages)",
    example={"id": "p7", "title": "Aldern bridge", "text": "It was opened in 1932.", "document": "Bridges", "page": 3},
    parse=parse_passage,
)


def split_of(row: dict[str, Any]) -> Split | Literal[""]:
    """Return the split a row names, `dev` and the like under our name; empty where it names none."""
    given = optional_text(row, "split")
    if given and not split_name(given):
        raise BadRow("split", f"is {shown(given)}, not train, validation or test")
    return split_name(given)


def split_name(given: str) -> Split | Literal[""]:
    """Return our name of a split (`dev` is validation); empty for any other word."""
    return _SPLITS.get(given.strip().lower(), "")


def optional_text(row: dict[str, Any], field: str) -> str:
    """Return a field that may be missing or null (then empty) and otherwise holds a text."""
    return "" if row.get(field) is None else text_of(row, field)


def answers_of(row: dict[str, Any]) -> tuple[str, ...] | None:
    """Return `answer` and then `answers`, each once; None where a row has neither."""
    given = [field for field in ("answer", "answers") if row.get(field) is not None]
    answers = tuple(dict.fromkeys(answer for field in given for answer in _texts(row, field)))
    if not all(answer.strip() for answer in answers):
        raise BadRow(given[0], 'holds an empty text: write "answers": [] where the passages have no answer')
    return answers if given else None


def _texts(row: dict[str, Any], field: str) -> tuple[str, ...]:
    return texts_of(row, field) if isinstance(row[field], list) else (text_of(row, field),)


def _question(row: dict[str, Any], embedded: list[_Embedded], source: str) -> Question:
    text, answers, gold = text_of(row, "question"), answers_of(row), _gold(row, embedded)
    if not text.strip():
        raise BadRow("question", "is empty")
    evidence = tuple(_evidence(item, number, embedded) for number, item in enumerate(_optional_rows(row, "evidence")))
    answerable = _flag(row, "answerable", True)
    if answers is None and answerable:
        raise BadRow("answers", "is missing")
    if not answerable:  # what stands there nevertheless is plausible, not right (SQuAD 2.0)
        answers, gold, evidence = (), (), ()
    return Question(
        id=optional_text(row, "id") or hashed_id("q", text, *(answers or ())),
        question=text,
        answers=answers or (),
        gold=gold or tuple(dict.fromkeys(item.passage_id for item in evidence)),
        evidence=evidence,
        analysis=optional_text(row, "analysis"),
        source=source,
        group=optional_text(row, "group"),
        split=split_of(row),
        alternatives=texts_of(row, "alternatives") if row.get("alternatives") is not None else (),
    )


def _gold(row: dict[str, Any], embedded: list[_Embedded]) -> tuple[str, ...]:
    named = texts_of(row, "gold") if row.get("gold") is not None else ()
    return tuple(dict.fromkeys([*named, *(item.passage.id for item in embedded if item.is_gold)]))


def _evidence(item: dict[str, Any], number: int, embedded: list[_Embedded]) -> GoldEvidence:
    with within(f"evidence.{number}"):
        quote = text_of(item, "quote")
        if not quote.strip():
            raise BadRow("quote", "is empty")
        return GoldEvidence(_cited(item, embedded), quote, optional_text(item, "reason"))


def _cited(item: dict[str, Any], embedded: list[_Embedded]) -> str:
    """Return the id of the passage cited: `passage_id`, or `passage`, which is its place (from 0) or its id."""
    place = item.get("passage")
    if item.get("passage_id") is not None or place is None:
        return text_of(item, "passage_id")
    if isinstance(place, bool) or not isinstance(place, int):
        return text_of(item, "passage")
    if not 0 <= place < len(embedded):
        raise BadRow("passage", f"is {place}, but the row has {len(embedded)} passages, counted from 0")
    return embedded[place].passage.id


def _embedded(item: dict[str, Any], number: int) -> _Embedded:
    with within(f"passages.{number}"):
        (passage,) = parse_passage(item, Place("", "", 0))
        return _Embedded(
            passage, _flag(item, "is_gold", False), _score(item), optional_text(item, "retriever") or _RETRIEVER
        )


def _rankings(question: str, embedded: list[_Embedded]) -> Iterator[Ranking]:
    for retriever in dict.fromkeys(item.retriever for item in embedded if item.score is not None):
        own = [(item.passage.id, item.score) for item in embedded if item.retriever == retriever]
        scores: dict[str, float] = {}
        for passage, score in sorted(((p, s) for p, s in own if s is not None), key=lambda pair: -pair[1]):
            scores.setdefault(passage, score)  # a passage named twice keeps its best place
        yield Ranking(question, retriever, tuple(scores), tuple(scores.values()))


def _score(item: dict[str, Any]) -> float | None:
    score = item.get("score")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not abs(score) < _LARGEST:
        raise BadRow("score", f"is {shown(score)}, not a number")
    return float(score)


def _page(row: dict[str, Any]) -> int:
    page = row.get("page")
    if page is None:
        return 0
    if isinstance(page, bool) or not isinstance(page, int) or not 0 <= page < 2**31:
        raise BadRow("page", f"is {shown(page)}, not a whole number from 1")
    return page


def _flag(row: dict[str, Any], field: str, default: bool) -> bool:
    value = row.get(field)
    if value is not None and value not in (True, False):
        raise BadRow(field, f"is {shown(value)}, not true or false")
    return default if value is None else bool(value)


def _optional_rows(row: dict[str, Any], field: str) -> list[dict[str, Any]]:
    return [] if row.get(field) is None else rows_of(row, field)


@contextmanager
def within(prefix: str) -> Iterator[None]:
    """Name the field of a `BadRow` from the row's top: `text` becomes `passages.0.text`."""
    try:
        yield
    except BadRow as error:
        raise BadRow(f"{prefix}.{error.field}", error.problem) from error
