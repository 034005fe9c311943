"""Between a question on the demo page and its answer: search, order, who answers and how. Knows no browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from data_builders.contexts import reordered
from data_builders.errors import RagFtError
from rag_ft.app import Found
from rag_ft.app.demo_sessions import Session, Sessions
from rag_ft.app.demo_talk import Pieces, Turn, streamed, talk
from rag_ft.app.language import AnswerLanguage, in_language
from rag_ft.app.routing import SelfRouting
from rag_ft.generator import Generator

MOST_CHARACTERS = 2000
"""Of a question."""


@dataclass(frozen=True)
class Options:
    """How one question is to be answered.

    Attributes:
        compare: by the base model too.
        route: from few passages first, from all where those do not say.
        language: of the answer.
    """

    compare: bool = False
    route: bool = False
    language: AnswerLanguage = "as_asked"


@dataclass(frozen=True)
class Desk:
    """Everything that answers a visitor.

    Attributes:
        sessions: of all visitors.
        tuned: answers every question.
        base: answers beside it where a visitor wants to compare; None where there is none.
        passages: found for each question.
        megabytes: the most that an uploaded file may have.
        shared: names of the documents that everyone may search.
    """

    sessions: Sessions
    tuned: Generator
    base: Generator | None = None
    passages: int = 10
    megabytes: int = 20
    shared: tuple[str, ...] = ()

    def ask(self, session: Session, question: str, options: Options) -> Iterator[Turn]:
        """Answer a question; the session's current turn is always the one that was yielded last.

        It ends early where that is not so any more: somebody else has changed the session.

        Raises:
            RagFtError: it cannot be asked; the message is a key of the page's words.
        """
        question = " ".join(question.split())
        if problem := self.refusal(session, question):
            raise RagFtError(problem)
        session.put_by()
        found = self.sessions.search(session, question, self.passages)
        if not found:
            raise RagFtError("nothing_found")
        # Self-Route takes the best from the front, so its passages come best first (arXiv 2407.16833, section 4)
        ordered = found if options.route else reordered(found)
        shown = None
        for turn in talk(question, ordered, self._speakers(question, ordered, options)):
            if session.current is not shown:  # it was stopped, deleted, or something else was asked
                return
            session.current = shown = turn
            yield turn

    def refusal(self, session: Session, question: str) -> str:
        """Return the key of the sentence why a question cannot be asked; empty if it can."""
        if not question:
            return "empty_question"
        if len(question) > MOST_CHARACTERS:
            return "long_question"
        return "" if self.sessions.has_documents(session) else "nothing_to_ask"

    def _speakers(self, question: str, found: list[Found], options: Options) -> Mapping[str, Callable[[], Pieces]]:
        asked = {"tuned": self.tuned} | ({"base": self.base} if options.compare and self.base else {})
        return {name: streamed(_asked_by(generator, options), question, found) for name, generator in asked.items()}


def _asked_by(generator: Generator, options: Options) -> Generator:
    """Return a generator as the options want it asked."""
    wished = in_language(generator, options.language)
    return SelfRouting(wished) if options.route else wished
