"""Settings of the false-negative guard; its code is in guard.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings


class CrossEncoderSettings(Settings):
    """A model that reads question and passage together, to find passages as good as gold that string tests miss."""

    model: str
    """A Hub id or a local folder of a sentence-transformers CrossEncoder with one output, a reranker."""
    revision: str | None = None
    """Revision of a Hub model."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Flags passages that score at least (1 - margin) times what gold scores; larger flags more passages."""
    top: Annotated[int, Field(ge=1)] = 20
    """Passages read per question, best ranked first and gold aside; the time it takes grows with it."""
    max_length: Annotated[int, Field(ge=16)] | None = None
    """Tokens of question and passage that are read; null takes the model's own limit."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Pairs scored at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU if there is one."""


class GuardSettings(Settings):
    """What keeps unannotated gold from being shown as a negative: training on that teaches to ignore the truth."""

    answers: bool = True
    """Leave out passages that hold an accepted answer; switch it off only to show such passages on purpose."""
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = 0.6
    """Leave out passages that share this part of their runs of five words with gold; lower it for rewritten copies."""
    cross_encoder: CrossEncoderSettings | None = None
    """Leave out passages that a reranker finds as good as gold: the surest test and the slowest; null makes none."""
