"""Answers that went round in circles: greedily chosen, they hardly ever leave them before the last token allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PERIOD = 64
"""The longest stretch of tokens looked for that is written over and over."""
TIMES, LEAST = 4, 128
"""How often it must stand there, one behind the other, and on how many tokens at least."""
EVERY = 32
"""Tokens between two looks: what a caller cuts off does not depend on how many it takes at once."""


def loops(ids: Sequence[int]) -> bool:
    """Tell whether an answer so far ends in one stretch of tokens over and over. Looks at every 32nd token only."""
    if len(ids) < LEAST or len(ids) % EVERY:
        return False
    return any(_repeats(ids, period) for period in range(1, PERIOD + 1))


def _repeats(ids: Sequence[int], period: int) -> bool:
    tail = ids[-max(LEAST, TIMES * period) :]
    return len(tail) >= TIMES * period and tail[period:] == tail[:-period]


def until_loop(tokens: Iterator[int]) -> Iterator[int]:
    """Yield the tokens of one answer as they come, up to where it has gone round in circles."""
    taken: list[int] = []
    for token in tokens:
        yield token
        taken.append(token)
        if loops(taken):
            return
