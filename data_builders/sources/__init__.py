"""Where questions and passages come from: one small module per format, chosen by `kind`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from data_builders.records import Passage, Question
from data_builders.sources.invented_world import InventedWorld, InventedWorldSettings

Split = Literal["train", "validation", "test"]
SourceSettings = InventedWorldSettings  # a union discriminated by `kind` as soon as there is a second source


class Source(Protocol):
    """Passages and annotated questions of each split. Iterating twice gives the same records."""

    def passages(self, split: Split) -> Iterator[Passage]:
        """The retrieval corpus of a split."""
        ...

    def questions(self, split: Split) -> Iterator[Question]:
        """The questions of a split; `Question.gold` names passages of the same split."""
        ...


def open_source(settings: SourceSettings, seed: int) -> Source:
    """Return the source a recipe asks for."""
    return _SOURCES[settings.kind](settings, seed)


_SOURCES = {"invented_world": InventedWorld}
