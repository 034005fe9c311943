"""The `data` section of a recipe: it composes the settings of the rooms. Builds nothing."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from data_builders.contexts import ContextsSettings
from data_builders.guard_settings import GuardSettings
from data_builders.hygiene.settings import HygieneSettings, SplitsSettings
from data_builders.labels.settings import GoldLabelsSettings, LabelsSettings
from data_builders.negatives import NegativesSettings
from data_builders.ranking import InterleaveSettings, RankingSettings
from data_builders.retrievers import retriever_names
from data_builders.retrievers.settings import Bm25Settings, RetrieverSettings
from data_builders.settings import Settings
from data_builders.sources import SourceSettings
from data_builders.sources.invented_world import InventedWorldSettings
from data_builders.sources.rows import Split
from data_builders.synthesis.settings import TeacherQuestionsSettings

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class DataSettings(Settings):
    """From documents and questions to training rows."""

    sources: Annotated[dict[Annotated[str, Field(pattern=f"^{_NAME}$")], SourceSettings], Field(min_length=1)] = {
        "invented_world": InventedWorldSettings()
    }
    """Where questions and passages come from: a name of your choice -> a source. All share one corpus and one mix."""
    questions: TeacherQuestionsSettings | None = None
    """Who writes questions about the passages, for documents that come without; null asks what the sources bring."""
    splits: SplitsSettings = SplitsSettings()
    """Which questions train, validate and test, where the sources do not say."""
    sample: dict[Split, Annotated[int, Field(ge=0)]] | None = None
    """At most this many questions of a split, drawn by the seed; null takes all."""
    gold: Literal["annotated", "answer_match"] = "annotated"
    """Questions without an annotated gold passage: leave them out, or take the best passage that holds the answer."""
    hygiene: HygieneSettings = HygieneSettings()
    """What counts as the same question and the same passage."""
    decontaminate: dict[Annotated[str, Field(pattern=f"^{_NAME}$")], SourceSettings] = {}
    """Evaluation sets that must not be trained on: a name of your choice -> a source."""
    retrievers: Annotated[tuple[RetrieverSettings, ...], Field(min_length=1)] = (Bm25Settings(),)
    """Retrievers whose results make the pools; negatives of several teach what no single one can."""
    depth: Annotated[int, Field(ge=1)] = 50
    """Passages kept per question and retriever."""
    ranking: RankingSettings = InterleaveSettings()
    """How the results of several retrievers become one ranking."""
    guard: GuardSettings = GuardSettings()
    """Which retrieved passages may not be negatives, since they may hold the answer."""
    negatives: NegativesSettings = NegativesSettings()
    """Which of the other passages are shown as negatives."""
    contexts: ContextsSettings = ContextsSettings()
    """How contexts are composed."""
    labels: LabelsSettings = GoldLabelsSettings()
    """Who writes the labels."""
    executor: Literal["processes", "ray"] = "processes"
    """Who runs the parts of a step: processes of this machine, or the Ray cluster that RAY_ADDRESS names."""
    processes: Annotated[int, Field(ge=1)] | None = None
    """How many at once; null takes every core. Changes how long a build takes and how much memory, never its bytes."""

    @field_validator("retrievers")
    @classmethod
    def _names_make_folders(cls, retrievers: tuple[RetrieverSettings, ...]) -> tuple[RetrieverSettings, ...]:
        wrong = next((name for name in retriever_names(retrievers) if not re.fullmatch(_NAME, name)), None)
        if wrong is not None:
            raise ValueError(f'"{wrong}" cannot name a retriever: use letters, digits, dots, dashes and underscores')
        return retrievers
