"""The trainer of a stage with its callbacks, run until its end or a signal. Decides nothing about rows or weights."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.errors import RagFtError
from rag_ft.models.adapters import naming_a_full_disk
from rag_ft.models.load import dtype_name
from rag_ft.models.lora import kept_in_float32
from rag_ft.models.quantise import quiet_bitsandbytes
from rag_ft.recipe.settings import Recipe
from rag_ft.training.batches import BatchPlan
from rag_ft.training.devices import anywhere, settle_device
from rag_ft.training.rows import TokenRow
from rag_ft.training.stages import Stage

if TYPE_CHECKING:
    from rag_ft.training.run import Job
    from rag_ft.training.trainer import TrainerFacts


def check_start(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Find what would stop a training late, before data and weights are loaded.

    Raises:
        RagFtError: a tracker cannot be used, `training.resume` names no checkpoint to go on from, or `training.trainer`
            holds a value that TRL does not take.
    """
    quiet_bitsandbytes()  # TRL, imported next, imports it
    from rag_ft.training.resume import check_resume
    from rag_ft.training.trackers import check_trackers
    from rag_ft.training.trainer import sft_config
    from rag_ft.training.trainer_values import check_trainer_values

    check_trackers(recipe.training.report_to)
    check_resume(recipe, stages)
    facts = _facts(recipe, watch=bool(recipe.training.validation.keep_best), show_bar=False)

    def make(values: Mapping[str, Any]) -> Any:
        return sft_config(recipe.training.model_copy(update={"trainer": dict(values)}), stages[0], facts)

    check_trainer_values(recipe.training.trainer, make)


def make_trainer(job: Job, stage: Stage, model: Any, tokens: tuple[Sequence[TokenRow], Sequence[TokenRow]]) -> Any:
    """Make the trainer of a model for (training rows, validation rows)."""
    from transformers import PrinterCallback
    from transformers.utils import logging

    from rag_ft.training.optimizer_state import keep_optimizer
    from rag_ft.training.progress import LossGuard, PlainProgress
    from rag_ft.training.trainer import SharedContextTrainer
    from rag_ft.training.validation import validator

    recipe = job.recipe
    logging.set_verbosity_error()
    arguments, limit = _arguments(job, stage, watch=bool(tokens[1]))
    guard = LossGuard(tokens[0])
    with kept_in_float32(model):
        trainer = SharedContextTrainer(
            recipe.training,
            ordered=recipe.data.contexts.passages.kind == "curriculum",
            model=model,
            args=arguments,
            train_dataset=_columns(tokens[0]),
            eval_dataset=_columns(tokens[1]) if tokens[1] else None,
            processing_class=job.encoder.tokenizer,
            callbacks=[guard, *_callbacks(job, stage, tokens[0], limit)],
        )
    refuse_a_second_curriculum(trainer.plan, len(tokens[0]), arguments.max_steps)
    guard.recent = trainer.recent_rows
    trainer.validate = validator(job, stage) if tokens[1] else None
    keep_optimizer(trainer, stage)
    trainer.remove_callback(PrinterCallback)
    if arguments.disable_tqdm:
        trainer.add_callback(PlainProgress(job.report))
    return trainer


def refuse_a_second_curriculum(plan: BatchPlan, rows: int, max_steps: int) -> None:
    """Refuse more steps than an epoch of rows in their order has.

    Raises:
        RagFtError: `max_steps` would show the first rows again.
    """
    steps = -(-rows // plan.step)
    if plan.ordered and max_steps > steps:
        raise RagFtError(
            f"training.max_steps={max_steps} would run the curriculum of data.contexts.passages again from its start "
            f"after {steps} steps. Set a higher data.contexts.epochs, or training.max_steps={steps}."
        )


def _columns(tokens: Sequence[TokenRow]) -> Any:
    """Return rows as the trainer's data set; `row` is a row's number, so that a bad batch can be named."""
    import datasets

    return datasets.Dataset.from_list([{**row.columns(), "row": number} for number, row in enumerate(tokens)])


def _facts(recipe: Recipe, *, watch: bool, show_bar: bool) -> TrainerFacts:
    from rag_ft.training.trainer import TrainerFacts

    return TrainerFacts(
        name=recipe.name, seed=recipe.seed, dtype=dtype_name(recipe.model.dtype), watch=watch, show_bar=show_bar
    )


def _arguments(job: Job, stage: Stage, *, watch: bool) -> tuple[Any, int | None]:
    """Return the configuration of a stage, and how many checkpoints to keep, the best among them.

    Raises:
        RagFtError: validation is asked for, and there are no rows for it.
    """
    from rag_ft.training.trainer import sft_config
    from rag_ft.training.validation import no_validation, watched_metric

    settings = job.recipe.training.validation
    wanted = "keep_best" if settings.keep_best else "questions" if settings.questions else None
    if wanted and not watch:
        raise no_validation(f"training.validation.{wanted}")
    arguments = sft_config(job.recipe.training, stage, _facts(job.recipe, watch=watch, show_bar=sys.stderr.isatty()))
    settle_device(arguments)
    limit = arguments.save_total_limit
    # Trackers, the number of checkpoints and when the best is saved are ours: see trackers.py and checkpoints.py.
    arguments.save_total_limit, arguments.report_to = None, []
    arguments.eval_steps = settings.every or job.recipe.training.save_steps
    arguments.restore_callback_states_from_checkpoint = True
    metric = watched_metric(settings.keep_best, stage)
    arguments.load_best_model_at_end = metric is not None
    arguments.metric_for_best_model, arguments.greater_is_better = metric, metric == "accuracy"
    return arguments, limit


def _callbacks(job: Job, stage: Stage, tokens: Sequence[TokenRow], limit: int | None) -> Iterator[Any]:
    from transformers import EarlyStoppingCallback

    from rag_ft.training.checkpoints import BestKeeper, CheckpointKeeper, MetricsFile, Sessions
    from rag_ft.training.progress import MemoryTrim, ValidationLines
    from rag_ft.training.resume import origin_of
    from rag_ft.training.trackers import Trackers

    settings = job.recipe.training.validation
    yield from (MemoryTrim(), CheckpointKeeper(origin_of(job.recipe, stage, tokens), limit))
    yield from (MetricsFile(stage.metrics), Sessions(), Trackers(job, stage), ValidationLines(job.report))
    if settings.keep_best:
        yield BestKeeper()
    if settings.keep_best and settings.patience:
        yield EarlyStoppingCallback(settings.patience)


def run_trainer(job: Job, stage: Stage, trainer: Any) -> dict[str, Any]:
    """Train until the end of the stage, from where `training.resume` says; return what the summary says of it.

    Raises:
        RagFtError: the checkpoint to go on from is of another recipe or other rows.
        KeyboardInterrupt: Ctrl-C, after the step has ended and a checkpoint is written.
    """
    from rag_ft.training import resume
    from rag_ft.training.checkpoints import CheckpointKeeper
    from rag_ft.training.trackers import Trackers

    if trainer.is_world_process_zero():
        resume.begin(job.recipe.training.resume, stage, job.report)
    trainer.accelerator.wait_for_everyone()
    checkpoint = resume.checkpoint_to_resume(stage, _callback(trainer, CheckpointKeeper).origin, job.report)
    if checkpoint is not None:
        job.report(f"  going on from {checkpoint.name}")
        if resume.is_finished(checkpoint):
            _train_no_further(trainer, checkpoint)
    with _saving_on_interrupt(trainer) as interrupted, naming_a_full_disk(stage.folder), naming_full_memory():
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            _callback(trainer, Trackers).close()
    if anywhere(bool(interrupted)):
        raise KeyboardInterrupt(_how_to_go_on(job.recipe.training.resume))
    return _outcome(trainer, stage)


def _how_to_go_on(resume: str) -> str:
    if resume == "auto":
        return ""
    return f"training.resume=auto goes on where this one stopped; with {resume}, as now, the same command does not."


def _callback(trainer: Any, kind: type[Any]) -> Any:
    """Return the callback of a kind; the trainer makes new ones of those whose state a checkpoint holds."""
    return next((one for one in trainer.callback_handler.callbacks if isinstance(one, kind)), None)


def _train_no_further(trainer: Any, checkpoint: Path) -> None:
    """Let the trainer load a checkpoint and end: told to go on, it would take one step more."""
    from transformers.trainer import TRAINER_STATE_NAME, TrainerState

    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    trainer.args.max_steps, trainer.args.num_train_epochs = -1, int(state.epoch)


def _outcome(trainer: Any, stage: Stage) -> dict[str, Any]:
    """Return seconds and peak memory over all sessions, why training stopped and which step is kept."""
    from transformers import EarlyStoppingCallback

    from rag_ft.training.checkpoints import Sessions, checkpoint_step

    state, arguments, sessions = trainer.state, trainer.args, _callback(trainer, Sessions)
    stopper = _callback(trainer, EarlyStoppingCallback)
    patient = stopper is None or stopper.early_stopping_patience_counter < stopper.early_stopping_patience
    outcome = {
        "seconds": round(sessions.seconds, 1),
        "peak_memory_gb": round(sessions.peak_memory_gb, 2),
        "stopped": ("max_steps" if stage.max_steps else "epochs") if patient else "patience",
        "kept_step": state.global_step,
    }
    if arguments.load_best_model_at_end and state.best_model_checkpoint:
        outcome["kept_step"] = checkpoint_step(Path(state.best_model_checkpoint))
        outcome["best"] = {arguments.metric_for_best_model: state.best_metric}
    return outcome


@contextmanager
def naming_full_memory() -> Iterator[None]:
    """Turn a device's lack of memory into one sentence."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RagFtError(
            f"the device's memory ran out ({str(error).splitlines()[0]}). `rag-ft train RECIPE --dry-run` tells what "
            "needs how much; a lower training.batch_size or training.max_length, training.gradient_checkpointing=true "
            "and model.quantisation.kind=nf4 need less."
        ) from error


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
