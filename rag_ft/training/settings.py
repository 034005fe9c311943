"""What a recipe may say about training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from data_builders.settings import Settings

SpanName: TypeAlias = Literal["relevance", "evidence", "analysis", "answer", "end"]


class StageSettings(Settings):
    """One phase of gradual training (arXiv 2407.19813). Weights go on from the stage before; null takes what
    `training` says.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Name of the stage and of its folder below `training/`."""
    spans: Annotated[tuple[SpanName, ...], Field(min_length=1)] = ("relevance", "evidence", "analysis", "answer", "end")
    """Spans of the label that carry loss; the others are read but not learned. `end` is the end of the turn."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the stage."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the rows of the stage."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop the stage after this many optimizer steps."""
    passages: Annotated[int, Field(ge=1)] | None = None
    """Show at most this many passages: rows lose their lowest-ranked negatives; null shows all."""
    data_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the rows this stage trains on, drawn by seed and row id."""
    keep_optimizer: bool = False
    """Take over the optimizer's state from the stage before instead of starting it anew."""


class ChatSettings(Settings):
    """General chat data mixed in, so that the model does not forget how to do anything else (replay)."""

    path: str | tuple[str, ...]
    """JSON Lines, JSON or Parquet files with rows of `messages`, or of `question` and `answer`."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of chat rows among all rows; 1 trains on them alone: plain instruction tuning, without passages."""


class ValidationSettings(Settings):
    """What is watched on the validation questions while training."""

    every: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between validations; null takes `save_steps`."""
    questions: Annotated[int, Field(ge=0)] = 0
    """Validation questions answered each time and scored as in the evaluation; 0 computes the loss alone."""
    passages: Annotated[int, Field(ge=1)] = 10
    """Top passages shown with each of them."""
    keep_best: Literal["loss", "accuracy"] | None = None
    """Keep the checkpoint that is best by this instead of the last."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many validations in a row without a better one (`keep_best` says by what); null never does."""


class TrainingSettings(Settings):
    """Supervised fine-tuning of an adapter through TRL."""

    backend: Literal["transformers", "unsloth"] = "transformers"
    """Whose layers compute: transformers, or Unsloth's faster ones on one GPU. Rows, labels and loss are the same."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training rows."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps, in each stage that says nothing else; null trains all epochs."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Rows per device and forward pass."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 8
    """Forward passes per optimizer step."""
    max_length: Annotated[int, Field(ge=64)] = 4096
    """Longest row in tokens. Longer rows lose their lowest-ranked negatives, never the question, gold or target."""
    batching: Literal["padded", "padding_free", "packed"] = "padded"
    """How rows become a batch: padded to the longest; laid end to end without padding; or laid end to end in bins of
    `max_length` tokens, as many as fit, with `batch_size` counting bins. Rows never see each other."""
    group_by_length: bool = True
    """Put rows of like length into one optimizer step and so into its batches, which saves padding; the order of steps
    stays random, and a curriculum keeps its own."""
    gradient_checkpointing: bool | None = None
    """Compute activations again in the backward pass, which saves memory and costs a third more time; null does so on
    CUDA."""
    liger: bool = False
    """Liger's fused kernels for norms, positions and feed-forward layers (CUDA, package liger-kernel): less memory,
    somewhat faster. The loss is computed as ever."""
    stages: tuple[StageSettings, ...] = ()
    """Gradual training: phases with spans, learning rate and data of their own; none trains everything at once."""
    direct_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Hybrid training: share of rows asked for the answer alone; the others write what `model.prompt.style` says."""
    chat: ChatSettings | None = None
    """General chat data to mix in."""
    validation: ValidationSettings = ValidationSettings()
    """Watching the validation questions."""
    save_steps: Annotated[int, Field(ge=1)] = 50
    """Optimizer steps between checkpoints; a run that was stopped goes on from the last."""
    resume: str = "auto"
    """Where to go on: `auto` takes the last complete checkpoint, `never` starts anew and moves older ones aside, else
    the path of a checkpoint, of which a copy is gone on from."""
    report_to: tuple[str, ...] = ()
    """Trackers: wandb, trackio, tensorboard. metrics.jsonl is always written."""
    trainer: dict[str, Any] = {}
    """Any other field of trl.SFTConfig, by its name."""
