"""A label that was written but not yet let through, and why one was turned away. Checks nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_builders.records import ContextQuestion, Label, Passage


@dataclass(frozen=True)
class Candidate:
    """A written label beside all that it is judged by.

    Attributes:
        passages: as shown, in that order.
        asked: the question, its accepted answers and where its gold stands; its own label is not looked at.
        style: what was to be written.
        label: what was read, passages counted from 0; an index may be that of no passage.
        raw: the output as it came.
        problems: what could not be read, a sentence each.
    """

    passages: tuple[Passage, ...]
    asked: ContextQuestion
    style: Literal["reasoning", "self_reasoning"]
    label: Label
    raw: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejection:
    """Which gate turned a label away, and why: one sentence for a reader."""

    gate: str
    why: str


def numbers(indices: tuple[int, ...] | list[int]) -> str:
    """Write passages as the teacher and the student see them: counted from 1, in brackets, each once, in order."""
    return ", ".join(f"[{index + 1}]" for index in sorted(set(indices)))
