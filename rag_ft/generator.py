"""An adapter as an object that answers questions over passages, asked exactly as it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from data_builders.records import Passage
from rag_ft.prompting.parse import Judgement, Quote
from rag_ft.prompting.settings import PromptSettings

PassageLike: TypeAlias = Passage | Mapping[str, Any] | str
"""A passage as users have it: ours, a mapping with `text` and perhaps `title` and `id`, or its bare text."""


@dataclass(frozen=True)
class Answer:
    """What a generator said about a question. Passages are counted from 1, as in the prompt.

    Attributes:
        answer: the short answer; None where it abstained, or wrote none.
        abstained: it said that no passage holds the answer.
        citations: what it says it read, word for word, in which passage.
        relevance: its judgement of each passage it judged.
        analysis: how it came to the answer; empty in styles without one.
        well_formed: the output has the parts that its style asks for.
        output: everything it wrote.
        prompt_tokens: of the prompt; None where a server did not count them.
        output_tokens: of the output; None where a server did not count them.
        seconds: from question to the end of the answer.
    """

    answer: str | None
    abstained: bool
    citations: tuple[Quote, ...]
    relevance: tuple[Judgement, ...]
    analysis: str
    well_formed: bool
    output: str
    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float


class Generator(Protocol):
    """What answers questions over passages: weights loaded here, or a server."""

    settings: PromptSettings
    prompt_hash: str

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question."""
        ...

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions at once, in their order."""
        ...

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output piece by piece as it is written, and at the end the answer read from all of it."""
        ...
