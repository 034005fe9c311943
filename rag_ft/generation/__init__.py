"""Engines that answer prompts, behind one protocol. They know token ids, not questions or passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rag_ft.prompting.encode import Ids


@dataclass(frozen=True)
class Request:
    """A prompt as segments; `key` comes back with the answer."""

    key: str
    segments: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Prompt length in tokens."""
        return sum(map(len, self.segments))


@dataclass(frozen=True)
class Generation:
    """What the generator wrote.

    `seconds` is this answer's share of its batch's wall time. `ids` ends before the stop token.
    """

    key: str
    ids: Ids
    prompt_tokens: int
    seconds: float


class Engine(Protocol):
    """Answers groups of prompts greedily. A group is what may be computed together: the sweep of one question."""

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers of each batch of groups as it is done; every request is answered exactly once."""
        ...
