"""Answers in a language of one's choice, over any generator. A departure from the prompt it was trained with.

The prompt contract has no language: nothing was trained with one, and a field for it would change every hash. So the
wish is added to the question, which the contract leaves free, and everything else stays word for word: the instruction,
the passages, the parts that the style asks for. The words are still none that were trained, so `prompt_hash` is
another, `notice` says so, and nobody has measured what it does to a model that was tuned on one language.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from rag_ft.generator import Answer, Generator, PassageLike
from rag_ft.prompting.settings import PromptSettings

AnswerLanguage = Literal["as_asked", "english", "korean"]
_NAMES = {"english": "English", "korean": "Korean"}


def in_language(generator: Generator, language: AnswerLanguage) -> Generator:
    """Return a generator that is asked to answer in a language; `as_asked` returns it as it is.

    Raises:
        RagFtError: there is no such choice.
    """
    if language == "as_asked":
        return generator
    if language not in _NAMES:
        raise RagFtError(f"language={language!r}: no such choice. Give as_asked, {' or '.join(_NAMES)}.")
    return InLanguage(generator, _NAMES[language])


@dataclass(frozen=True)
class InLanguage:
    """A generator whose questions end in a wish. Passages, citations and judgements stay in their own language."""

    generator: Generator
    language: str

    @property
    def settings(self) -> PromptSettings:
        """How its prompts are written."""
        return self.generator.settings

    @property
    def prompt_hash(self) -> str:
        """Another hash than the generator's: it was not trained with these words."""
        return content_hash([self.generator.prompt_hash, self.wish(1)])

    @property
    def notice(self) -> str:
        """What is to be shown beside its answers."""
        return f'The prompt departs from the one in training: "{self.wish(1)}" is added to the question.'

    def wish(self, passages: int) -> str:
        """Return what is added to a question. It repeats how to decline, for that sentence is looked for as it is."""
        wish = f"Write the answer in {self.language}."
        return f"{wish} When no passage holds it, reply: {self.settings.abstention}" if passages else wish

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question."""
        return self.generator.answer(*self._asked(question, passages))

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions."""
        return self.generator.answers([self._asked(*one) for one in asked])

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output as it is written, then the answer."""
        return self.generator.stream(*self._asked(question, passages))

    def _asked(self, question: str, passages: Sequence[PassageLike]) -> tuple[str, Sequence[PassageLike]]:
        question = question.strip()
        return (f"{question} {self.wish(len(passages))}" if question else question), passages
