"""What a recipe may say about the exported adapter."""

from __future__ import annotations

from data_builders.settings import Settings


class ExportSettings(Settings):
    """What the model card says beyond what was measured."""

    licence: str = "apache-2.0"
    """Licence of the adapter, as the Hub spells it."""
    language: tuple[str, ...] = ("en",)
    """Languages of the training data, ISO 639-1."""
