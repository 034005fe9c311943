"""Which ranked passages count as hard negatives, and the guard against false ones. Composes no context."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_builders.settings import Settings


class NegativesSettings(Settings):
    """Which retrieved passages may stand in a context as hard negatives."""

    rank_low: Annotated[int, Field(ge=1)] = 1
    """First rank of the window hard negatives come from."""
    rank_high: Annotated[int, Field(ge=1)] = 50
    """Last rank of the window."""
    answer_guard: bool = True
    """Leave out passages that contain an alias of the answer (normalised, token-bounded): they may be gold unannotated."""
