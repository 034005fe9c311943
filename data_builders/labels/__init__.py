"""Labels for context rows: relevance, evidence, analysis, answer."""

from __future__ import annotations

from typing import Literal

from data_builders.settings import Settings


class GoldLabelsSettings(Settings):
    """Labels made of the source's gold annotations: free, exact, no teacher."""

    kind: Literal["gold"] = "gold"
    """Relevance, evidence, analysis and answer come from the annotations."""


LabelsSettings = GoldLabelsSettings  # a union discriminated by `kind` as soon as there is a teacher
