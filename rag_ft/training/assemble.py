"""The trainer of a stage with its callbacks, run until its end or a signal. Decides nothing about rows or weights."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_ft.models.adapters import naming_a_full_disk
from rag_ft.models.load import dtype_name
from rag_ft.training.rows import TokenRow
from rag_ft.training.stages import Stage

if TYPE_CHECKING:
    from rag_ft.training.run import Job


def make_trainer(job: Job, stage: Stage, model: Any, tokens: tuple[Sequence[TokenRow], Sequence[TokenRow]]) -> Any:
    """Make the trainer of a model for (training rows, validation rows)."""
    import datasets
    from transformers import PrinterCallback
    from transformers.utils import logging

    from rag_ft.training.checkpoints import CheckpointMarker, MetricsFile
    from rag_ft.training.collate import Collator
    from rag_ft.training.optimizer_state import keep_optimizer
    from rag_ft.training.progress import LossGuard, MemoryTrim, PlainProgress
    from rag_ft.training.trainer import SharedContextTrainer, TrainerFacts, sft_config

    recipe = job.recipe
    logging.set_verbosity_error()
    show_bar = sys.stderr.isatty()
    facts = TrainerFacts(
        name=recipe.name,
        seed=recipe.seed,
        dtype=dtype_name(recipe.model.dtype),
        watch=bool(tokens[1]),
        show_bar=show_bar,
        ordered=recipe.data.contexts.passages.kind == "curriculum",
    )
    trainer = SharedContextTrainer(
        model=model,
        args=sft_config(recipe.training, stage, facts),
        train_dataset=datasets.Dataset.from_list([row.columns() for row in tokens[0]]),
        eval_dataset=datasets.Dataset.from_list([row.columns() for row in tokens[1]]) if tokens[1] else None,
        data_collator=Collator(),
        processing_class=job.encoder.tokenizer,
        callbacks=[LossGuard(), MemoryTrim(), CheckpointMarker(), MetricsFile(stage.metrics)],
    )
    keep_optimizer(trainer, stage)
    trainer.remove_callback(PrinterCallback)
    if not show_bar:
        trainer.add_callback(PlainProgress(job.report))
    return trainer


def run_trainer(job: Job, stage: Stage, trainer: Any) -> None:
    """Train until the end of the stage, from its last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the step has ended and a checkpoint is written.
    """
    from rag_ft.training.checkpoints import last_checkpoint

    checkpoint = last_checkpoint(stage.checkpoints)
    if checkpoint is not None:
        job.report(f"  going on from {checkpoint.name}")
    with _saving_on_interrupt(trainer) as interrupted, naming_a_full_disk(stage.folder):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupted:
        raise KeyboardInterrupt


@contextmanager
def _saving_on_interrupt(trainer: Any) -> Iterator[list[int]]:
    """Let the first Ctrl-C end the step, save a checkpoint and stop; a second one stops at once."""
    from rag_ft.training.checkpoints import StopAfterStep

    stop = StopAfterStep()
    trainer.add_callback(stop)

    def handle(number: int, frame: Any) -> None:
        if stop.signals:
            raise KeyboardInterrupt
        stop.signals.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop.signals
    finally:
        signal.signal(signal.SIGINT, before)
