"""The recipe: one settings class per section, each from the room that uses it. Composes only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_builders.data_settings import DataSettings
from data_builders.settings import Settings
from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.export.settings import ExportSettings
from rag_ft.models.settings import ModelSettings
from rag_ft.training.settings import TrainingSettings


class Recipe(Settings):
    """All that a run depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run folder below `runs_dir`."""
    seed: int = 1
    """Seed of everything random."""
    runs_dir: str = "runs"
    """Folder that run folders are made in."""
    data: DataSettings = DataSettings()
    """From documents and questions to training rows."""
    model: ModelSettings = ModelSettings()
    """Weights, adapter, prompt."""
    training: TrainingSettings = TrainingSettings()
    """How the adapter is trained."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured."""
    export: ExportSettings = ExportSettings()
    """What the card says, and how models are exported."""
