"""A world of invented people, places, organisations and works, so that no model knows it and every label is exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from data_builders.records import Passage, Question
from data_builders.settings import Settings


class QuestionCounts(Settings):
    """How many questions each split gets; the number of entities follows from it."""

    train: Annotated[int, Field(ge=0)] = 2000
    """Questions to train on."""
    validation: Annotated[int, Field(ge=0)] = 200
    """Questions to watch while training."""
    test: Annotated[int, Field(ge=1)] = 200
    """Questions to evaluate on."""


class InventedWorldSettings(Settings):
    """Passages and questions about people, places, organisations and works that do not exist."""

    kind: Literal["invented_world"] = "invented_world"
    """An embedded source: needs no file and no network."""
    questions: QuestionCounts = QuestionCounts()
    """Questions per split; entities of different splits are disjoint."""
    words: tuple[Annotated[int, Field(ge=40, le=120)], Annotated[int, Field(ge=40, le=120)]] = (40, 120)
    """Shortest and longest passage, in words."""
    two_hop_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of questions that need two passages."""


class InventedWorld:
    """Placeholder replaced by the generator."""

    def __init__(self, settings: InventedWorldSettings, seed: int) -> None:
        raise NotImplementedError

    def passages(self, split: str) -> Iterator[Passage]:
        raise NotImplementedError

    def questions(self, split: str) -> Iterator[Question]:
        raise NotImplementedError
