"""Where questions and passages come from: one small module per format, chosen by `kind`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Protocol

from pydantic import Field

from data_builders.manifest import Tally
from data_builders.sources.beir import Beir, BeirSettings
from data_builders.sources.documents import Documents
from data_builders.sources.documents_settings import DocumentsSettings
from data_builders.sources.files import FORMATS, FileSource, FileSourceSettings
from data_builders.sources.hub import Hub, HubSettings
from data_builders.sources.invented_world import InventedWorld, InventedWorldSettings
from data_builders.sources.jsonl import Jsonl, JsonlSettings
from data_builders.sources.rows import Mapper, SourceRecord

SourceSettings = Annotated[
    JsonlSettings | DocumentsSettings | FileSourceSettings | BeirSettings | HubSettings | InventedWorldSettings,
    Field(discriminator="kind"),
]


class Source(Protocol):
    """Passages, annotated questions and rankings of one data set. Iterating twice gives the same records."""

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream everything, in any order; `Question.gold` and rankings name passages by id.

        A passage may come again with the same text (counted later). Ids need to be unique within the source only.
        `split` is set where the source knows it. What is left out is told to the tally. `mapper` maps in order and
        may do so over processes; only sources that parse for long use it.
        """
        ...


def open_source(name: str, settings: Any, seed: int) -> Source:
    """Return the source a recipe asks for, under the name the recipe gives it."""
    return _SOURCES[settings.kind](settings, name, seed)


_SOURCES: dict[str, Callable[[Any, str, int], Source]] = {
    "beir": Beir,
    "documents": Documents,
    "hub": Hub,
    "invented_world": InventedWorld,
    "jsonl": Jsonl,
    **dict.fromkeys(FORMATS, FileSource),
}
