"""Engines that answer prompts, behind one protocol. They know token ids, not questions or passages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from rag_ft.prompting.encode import Ids

Lend: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Gives the model for a moment, to one caller at a time."""


@dataclass(frozen=True)
class Request:
    """A prompt as segments; `key` comes back with the answer. `messages` is the same prompt for a server."""

    key: str
    segments: tuple[Ids, ...]
    messages: tuple[dict[str, str], ...] = ()

    @property
    def length(self) -> int:
        """Prompt length in tokens."""
        return sum(map(len, self.segments))


@dataclass(frozen=True)
class Generation:
    """What the generator wrote.

    Attributes:
        ids: ends before the stop token; empty where a server wrote `text`.
        seconds: this answer's share of its batch's wall time.
        text: what a server wrote; None where `ids` is to be decoded.
        output_tokens: as the server counted them; None takes the length of `ids`.
        confidence: mean log-probability of the tokens written, the stop token among them; None where it is not known.
        failure: why there is no answer; None where there is one.
    """

    key: str
    ids: Ids
    prompt_tokens: int
    seconds: float
    text: str | None = None
    output_tokens: int | None = None
    confidence: float | None = None
    failure: str | None = None


class Engine(Protocol):
    """Answers groups of prompts greedily. A group is what may be computed together: the sweep of one question."""

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers of each batch of groups as it is done; every request is answered exactly once."""
        ...
