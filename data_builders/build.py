"""The steps from a source to labelled context rows, each cached, resumable and reported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_builders.contexts import ContextsSettings
from data_builders.labels import GoldLabelsSettings, LabelsSettings
from data_builders.negatives import NegativesSettings
from data_builders.retrievers import Bm25Settings, RetrieverSettings
from data_builders.settings import Settings
from data_builders.sources import SourceSettings
from data_builders.sources.invented_world import InventedWorldSettings


class DataSettings(Settings):
    """From documents and questions to training rows."""

    source: SourceSettings = InventedWorldSettings()
    """Where questions and passages come from."""
    retrievers: Annotated[tuple[RetrieverSettings, ...], Field(min_length=1)] = (Bm25Settings(),)
    """Retrievers whose results make the pools."""
    depth: Annotated[int, Field(ge=1)] = 50
    """Passages kept per question and retriever."""
    negatives: NegativesSettings = NegativesSettings()
    """Which retrieved passages may be hard negatives."""
    contexts: ContextsSettings = ContextsSettings()
    """How contexts are composed."""
    labels: LabelsSettings = GoldLabelsSettings()
    """Who writes the labels."""
