"""Counts of a stage that follow from its rows and settings: batches, padding, steps, checkpoints. Trains nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rag_ft.recipe.settings import Recipe
from rag_ft.training.batches import BatchPlan, epoch_batches
from rag_ft.training.memory_estimate import Rows, state_bytes
from rag_ft.training.model_shape import ModelShape
from rag_ft.training.rows import IGNORED, TokenRow
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stages import Stage


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do.

    Attributes:
        tokens: of all rows, each once; labelled: those with loss.
        padding: share of the tokens computed that are padding.
        steps: optimizer steps.
        epochs: passes over the rows that these steps make, where `max_steps` ends them early too.
    """

    tokens: int
    labelled: int
    padding: float
    steps: int
    epochs: float


def plan_stage(recipe: Recipe, stage: Stage, rows: Sequence[TokenRow], processes: int) -> StagePlan:
    """Count what the trainer would do with rows, one at least."""
    lengths = [len(row.input_ids) for row in rows]
    batches = epoch_batches(lengths, batch_plan(recipe, processes), 0)
    computed = sum(lengths)
    if recipe.training.batching == "padded":
        computed = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    per_epoch = steps_of_epoch(len(batches), recipe.training, processes)
    steps = stage.max_steps or math.ceil(stage.epochs * per_epoch)
    return StagePlan(
        tokens=sum(lengths),
        labelled=sum(map(labelled, rows)),
        padding=1 - sum(lengths) / computed,
        steps=steps,
        epochs=steps / per_epoch,
    )


def batch_plan(recipe: Recipe, processes: int) -> BatchPlan:
    """Return how the trainer makes batches."""
    training = recipe.training
    return BatchPlan(
        batch_size=training.batch_size,
        processes=processes,
        accumulation=training.gradient_accumulation,
        seed=recipe.seed,
        grouped=training.group_by_length,
        ordered=recipe.data.contexts.passages.kind == "curriculum",
        capacity=training.max_length if training.batching == "packed" else None,
    )


def steps_of_epoch(batches: int, training: TrainingSettings, processes: int) -> int:
    """Return the optimizer steps of an epoch: every process has its share of the batches, the last step may be short.

    As accelerate's BatchSamplerShard and transformers' Trainer.set_initial_training_values count them.
    """
    return max(1, math.ceil(math.ceil(batches / processes) / training.gradient_accumulation))


def labelled(row: TokenRow) -> int:
    """Return how many tokens of a row carry loss."""
    return sum(label != IGNORED for label in row.labels)


def rows_in_memory(rows: Sequence[TokenRow]) -> Rows:
    """Return what of the rows, one at least, costs memory."""
    return Rows(
        longest=max(len(row.input_ids) for row in rows),
        labelled=max(map(labelled, rows)),
        all_tokens=sum(len(row.input_ids) for row in rows),
        several=any(len(row.lengths) > 2 for row in rows),
    )


def checkpoint_bytes(shape: ModelShape, training: TrainingSettings) -> float:
    """Return the bytes of one checkpoint: what is trained, in float32, with the states of the optimizer."""
    return shape.trained * (4 + state_bytes(training))


def checkpoints_kept(training: TrainingSettings) -> int:
    """Return how many checkpoints lie on the disk at once: those kept, and the one being written.

    Where all are kept (save_total_limit null or 0) there is no such number; two is the least that training needs.
    """
    kept = int(training.trainer.get("save_total_limit", 2) or 2)
    return max(kept, 2 if training.validation.keep_best else 1) + 1
