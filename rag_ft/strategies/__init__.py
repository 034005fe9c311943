"""How ranked passages become an answer: what is asked, what comes back, and the orders of passages. Answers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_builders.contexts import reordered
from data_builders.records import PoolPassage

Item = TypeVar("Item")

ORDERS: dict[str, Callable[[Sequence[Item]], list[Item]]] = {"concatenate": list, "reorder": reordered}
"""Strategy name -> order of passages that come best first (`reorder`: arXiv 2410.05983, algorithm 2)."""

MARGINAL = ("rag_sequence", "rag_sequence_fast", "rag_token")
"""Strategies that need the model itself: rag_ft/strategies/marginal.py. All others ask an engine: run.py."""


@dataclass(frozen=True)
class Ask:
    """A question over passages that come best first; the strategy arranges them. `key` comes back with the answer."""

    key: str
    question: str
    passages: tuple[PoolPassage, ...]


@dataclass(frozen=True)
class Answered:
    """What a strategy answered.

    Attributes:
        key: the ask's.
        output: the raw text; where generation failed, what there is of it.
        prompt_tokens: of all calls.
        output_tokens: of all calls.
        seconds: wall-clock time of all calls, as the ask's share of its batches.
        confidence: mean log-probability per token of the output; None where the engine does not say.
        route: of self_route, `few` where the first try was answered, `all` where it declined; else empty.
        calls: prompts this answer needed. Asks with equal prompts share them, and each counts them.
        failure: why there is no answer; None where there is one.
    """

    key: str
    output: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    confidence: float | None = None
    route: str = ""
    calls: int = 1
    failure: str | None = None
