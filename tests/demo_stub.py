"""A demo page without models: a library that finds words in text files, a generator that quotes what it finds."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from data_builders.documents.read import chunk_document, read_document
from data_builders.records import Passage
from data_builders.sources.documents_settings import DocumentsSettings
from rag_ft.app import Added, Found
from rag_ft.app.demo import Backing, DemoSettings, serving
from rag_ft.generator import Answer
from rag_ft.prompting.parse import parse_output
from rag_ft.prompting.settings import PromptSettings

WORD = re.compile(r"\w+")


class WordLibrary:
    """Documents read by the project's own readers and searched by the share of a question's words they hold."""

    def __init__(self) -> None:
        self.passages: dict[str, list[Passage]] = {}
        self.closed = False

    def add_file(self, path: Path, name: str) -> Added:
        settings = DocumentsSettings(kind="documents", path=str(path.parent), min_words=0)
        document = read_document(path, name, settings)
        chunks, _ = chunk_document(document, settings, frozenset())
        self.passages.pop(name, None)
        if chunks:
            self.passages[name] = [chunk.passage for chunk in chunks]
        refused = () if chunks else ((name, f"{next(iter(document.report.dropped), 'no text')}."),)
        return Added((name,), (), (), refused, sum(map(len, self.passages.values())))

    def search(self, question: str, k: int) -> list[Found]:
        wanted = set(WORD.findall(question.lower()))
        found = [
            Found(one, name, one.page or None, len(wanted & set(WORD.findall(one.text.lower()))) / len(wanted))
            for name, passages in self.passages.items()
            for one in passages
        ]
        return sorted(found, key=lambda one: -one.score)[:k]

    def close(self) -> None:
        self.passages, self.closed = {}, True


class Quoting:
    """Writes in the style self_reasoning: the sentence that shares most words with the question, and its last word."""

    settings = PromptSettings(style="self_reasoning")
    prompt_hash = "stub"

    def __init__(self, *, says: str | None = None, together: int = 1, echo: bool = False) -> None:
        """Begin.

        Args:
            says: written as it is instead.
            echo: writes the question it is asked instead.
            together: no answer ends before so many have been under way at once.
        """
        self._says, self._together, self._echo = says, together, echo
        self._under_way, self.most = 0, 0
        self._changed = threading.Condition()

    def answer(self, question: str, passages: Sequence[Any]) -> Answer:
        return next(piece for piece in self.stream(question, passages) if isinstance(piece, Answer))

    def answers(self, asked: Sequence[tuple[str, Sequence[Any]]]) -> list[Answer]:
        return [self.answer(*one) for one in asked]

    def stream(self, question: str, passages: Sequence[Any]) -> Iterator[str | Answer]:
        output = f"Answer: {question}" if self._echo else self._says or written(question, passages)
        self._count(1)
        try:
            yield from re.findall(r"\S+\s*", output)
            with self._changed:
                assert self._changed.wait_for(lambda: self.most >= self._together, timeout=30)
        finally:
            self._count(-1)
        parsed = parse_output(output, self.settings)
        yield Answer(
            answer=parsed.answer,
            abstained=parsed.abstained,
            citations=parsed.evidence,
            relevance=parsed.relevance,
            analysis=parsed.analysis,
            well_formed=parsed.well_formed,
            output=output,
            prompt_tokens=None,
            output_tokens=None,
            seconds=0.5,
        )

    def _count(self, change: int) -> None:
        with self._changed:
            self._under_way += change
            self.most = max(self.most, self._under_way)
            self._changed.notify_all()


class Failing:
    """Fails in the middle of an answer."""

    settings = PromptSettings()
    prompt_hash = "stub"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def answer(self, question: str, passages: Sequence[Any]) -> Answer:
        raise self._error

    def answers(self, asked: Sequence[tuple[str, Sequence[Any]]]) -> list[Answer]:
        raise self._error

    def stream(self, question: str, passages: Sequence[Any]) -> Iterator[str | Answer]:
        yield "It is "
        raise self._error


def written(question: str, passages: Sequence[Any]) -> str:
    """Return an output in the style self_reasoning, made of the best sentence for the question."""
    wanted = {word for word in WORD.findall(question.lower()) if len(word) > 3}
    sentences = [
        (len(wanted & set(WORD.findall(sentence.lower()))), number, sentence.strip())
        for number, passage in enumerate(passages, start=1)
        for sentence in re.split(r"(?<=[.!?])\s+", passage.text)
    ]
    best, cited, sentence = max(sentences, key=lambda one: (one[0], -one[1]))
    relevance = "\n".join(
        f"[{number}] {'yes' if number == cited else 'no'}: it {'has' if number == cited else 'has not'} what is asked."
        for number in range(1, len(passages) + 1)
    )
    if not best:
        return f"Relevance:\n{relevance}\nEvidence:\nAnalysis: Nothing is said of it.\nAnswer: The passages do not say."
    return (
        f'Relevance:\n{relevance}\nEvidence:\n[{cited}] "{sentence}": it answers the question.\n'
        f"Analysis: Passage {cited} says it in so many words.\nAnswer: {sentence} [{cited}]"
    )


def demo(
    tuned: Any | None = None, base: Any | None = None, settings: DemoSettings | None = None, **more: Any
) -> AbstractContextManager[str]:
    """Serve the page over stubs, at a free port."""
    backing = Backing(tuned or Quoting(), base, more.pop("open_library", WordLibrary), **more)
    return serving(settings or DemoSettings(port=0), backing)
