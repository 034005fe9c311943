"""What retrieval found for a question, as composing contexts reads it. Holds no text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that retrieval found for one question. `passage` is its position in the corpus, `rank` counts from 1.

    Attributes:
        retriever: who put it at this rank.
        guard: why it may not be a negative (`gold`, `answer`, `near_duplicate`, `cross_encoder`); empty if it may.
        found: name and rank of every retriever that found it; empty says the same as ((retriever, rank),).
    """

    passage: int
    retriever: str
    rank: int
    score: float
    has_answer: bool
    guard: str = ""
    found: tuple[tuple[str, int], ...] = ()

    def rank_of(self, retriever: str) -> int | None:
        """Return the rank that a retriever gave it, or None if that one did not find it."""
        return dict(self.found or ((self.retriever, self.rank),)).get(retriever)
