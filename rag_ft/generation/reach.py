"""Prompts that go beyond a model's positions are failures of their own. Generates nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag_ft.generation import Engine, Generation, Request
from rag_ft.generation.parts import failed


@dataclass(frozen=True)
class Reach:
    """How far a model's positions go.

    Attributes:
        positions: the longest sequence in tokens; None where nothing limits it.
        max_new_tokens: longest answer, for which every prompt must leave room.
    """

    positions: int | None
    max_new_tokens: int

    def refusal(self, length: int) -> str | None:
        """Return why a prompt of `length` tokens cannot be answered; None where it can."""
        if self.positions is None or length + self.max_new_tokens <= self.positions:
            return None
        return (
            f"too long: a prompt of {length} tokens and an answer of up to {self.max_new_tokens} exceed the "
            f"{self.positions} positions of the model (fewer passages, or model.rope_scaling)"
        )


@dataclass(frozen=True)
class WithinReach:
    """An engine that is asked only what its model can reach; the rest fails, before anything is generated."""

    engine: Engine
    reach: Reach

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the failures, then the engine's batches."""
        reasons = [(request, self.reach.refusal(request.length)) for group in groups for request in group]
        if beyond := [failed(request, reason) for request, reason in reasons if reason]:
            yield beyond
        yield from self.engine.generate([within(group, self.reach) for group in groups])


def within(group: Sequence[Request], reach: Reach) -> list[Request]:
    """Return the prompts of a group that can be answered."""
    return [request for request in group if reach.refusal(request.length) is None]
