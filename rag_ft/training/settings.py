"""What a recipe may say about training."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from data_builders.settings import Settings


class TrainingSettings(Settings):
    """Supervised fine-tuning of an adapter through TRL."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training rows."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps; null trains all epochs."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Rows per device and forward pass."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 8
    """Forward passes per optimizer step."""
    max_length: Annotated[int, Field(ge=64)] = 4096
    """Longest row in tokens. Longer rows lose their lowest-ranked negatives, never the question, gold or target."""
    save_steps: Annotated[int, Field(ge=1)] = 50
    """Optimizer steps between checkpoints; a run that was stopped goes on from the last."""
    report_to: tuple[str, ...] = ()
    """Trackers: wandb, trackio, tensorboard. metrics.jsonl is always written."""
    trainer: dict[str, Any] = {}
    """Any other field of trl.SFTConfig, by its name."""
