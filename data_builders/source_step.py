"""Writes what a source gives, checked: nothing from outside is trusted. Knows no source by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.pools import Corpus
from data_builders.records import Passage, Question, write_records
from data_builders.sources import Source, Split
from data_builders.text import answer_tokens

Entry = TypeVar("Entry", Passage, Question)


def write_split(source: Source, split: Split, passages: Path, questions: Path, tally: Tally) -> None:
    """Write the passages and questions of one split; questions that cannot be used are counted and left out.

    Raises:
        RagFtError: two passages or two questions share an id.
    """
    measured = _measured(_unique(source.passages(split), split), tally)
    tally.rows[passages.name] = write_records(passages, Passage, measured)
    corpus = Corpus.read(passages)
    usable = _usable(_unique(source.questions(split), split), corpus, tally)
    tally.rows[questions.name] = write_records(questions, Question, usable)


def _unique(records: Iterable[Entry], split: str) -> Iterator[Entry]:
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise RagFtError(
                f"the {split} split has two {type(record).__name__.lower()}s with id {record.id}, "
                "so gold annotations are ambiguous: give every one its own id in the source's data."
            )
        seen.add(record.id)
        yield record


def _measured(passages: Iterable[Passage], tally: Tally) -> Iterator[Passage]:
    for passage in passages:
        tally.measure("words per passage", len(passage.text.split()))
        yield passage


def _usable(questions: Iterable[Question], corpus: Corpus, tally: Tally) -> Iterator[Question]:
    for question in questions:
        problem = _problem(question, corpus)
        if problem:
            tally.drop(problem, 1, question.id)
            continue
        tally.measure("gold passages per question", len(question.gold))
        yield question


def _problem(question: Question, corpus: Corpus) -> str | None:
    if not question.answers or not answer_tokens(question.answers[0]):
        return "questions without an answer in words"
    if not question.gold:
        return "questions without a gold passage"
    if any(corpus.position(passage) is None for passage in question.gold):
        return "questions whose gold passage is not in the corpus of their split"
    for item in question.evidence:
        position = corpus.position(item.passage_id)
        if item.passage_id not in question.gold or position is None or item.quote not in corpus[position].text:
            return "questions with a quote that is not in their gold passage"
    return None
