"""Training from start to end: rows, preflight, the trainer, the verified adapter. Knows no command line."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.build import require_built
from data_builders.errors import RagFtError
from data_builders.files import write_json
from data_builders.paths import data_paths
from data_builders.records import ContextRow
from data_builders.tables import read_context_rows
from rag_ft.models.adapters import naming_a_full_disk, save_checked
from rag_ft.models.load import dtype_name, load_model, load_tokenizer
from rag_ft.models.segment_tree import allows_trees
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.contract import contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.fit import fit_row
from rag_ft.training.preflight import preflight
from rag_ft.training.rows import TokenRow

Report = Callable[[str], None]
MAX_DROPPED_SHARE = 0.01


@dataclass(frozen=True)
class TrainingRows:
    """Rows that fit, as read and as tokens, and what was left out."""

    rows: list[ContextRow]
    tokens: list[TokenRow]
    counts: dict[str, int]


def train(recipe: Recipe, run: RunFolder, report: Report) -> None:
    """Train the recipe's adapter, or go on from its last checkpoint; a finished one is left as it is."""
    if os.environ.get("RANK", "0") != "0":  # several processes do the same; one of them says so
        report = _silent
    if (run.adapter / "adapter_model.safetensors").is_file():
        report(f"train: unchanged, the adapter is in {run.adapter}")
        return
    require_built(recipe.data, recipe.seed, run.data)
    weights = resolve_weights(recipe.model.weights, recipe.model.revision)
    encoder = Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, recipe.model.chat_template_kwargs)
    paths, length = data_paths(run.data).labels, recipe.training.max_length
    train_rows = token_rows(paths["train"], encoder, length)
    watched = token_rows(paths["validation"], encoder, length).tokens
    run.training.mkdir(parents=True, exist_ok=True)
    report("train")
    for line in (*_about(train_rows), *preflight(train_rows.rows, train_rows.tokens, encoder, run.training)):
        report(f"  {line}")
    loaded = load_model(recipe.model, weights), encoder.tokenizer
    _check_sharing(loaded[0], [*train_rows.tokens, *watched])
    trainer = _trainer(recipe, run, loaded, (train_rows.tokens, watched), report)
    began = time.monotonic()
    _run_trainer(trainer, run, report)
    summary = _summary(trainer, train_rows, time.monotonic() - began)
    summary |= {"weights": weights.reference, "revision": weights.revision, "weights_identity": weights.identity}

    def finish(folder: Path) -> None:
        encoder.tokenizer.save_pretrained(folder)
        contract_of(encoder, recipe.model.chat_template_kwargs).write(folder)

    if trainer.is_world_process_zero():
        # The adapter comes last: where it stands, training is done and everything about it is written.
        write_json(run.training / "summary.json", summary)
        report(f"  {save_checked(trainer.accelerator.unwrap_model(trainer.model), run.adapter, finish)}")
    trainer.accelerator.wait_for_everyone()
    report(f"  {summary['steps']} steps in {summary['seconds'] / 60:.1f} min, last loss {summary['loss']:.3f}")


def _check_sharing(model: Any, tokens: Sequence[TokenRow]) -> None:
    """Refuse shared contexts where attention could not keep the questions apart."""
    shared = [len(row.input_ids) for row in tokens if len(row.lengths) > 2]
    if shared and not allows_trees(model.config, max(shared)):
        raise RagFtError(
            "this model's attention (a sliding window, recurrent layers or flash_attention_2) cannot keep the "
            "questions of a shared context apart. Set data.contexts.questions_per_context=1."
        )


def _silent(line: str) -> None:
    """Report nothing."""


def token_rows(path: Path, encoder: Encoder, max_length: int) -> TrainingRows:
    """Read labelled rows, fit them to `max_length` and tokenise them.

    Raises:
        RagFtError: more than 1 % of the rows are too long even without negatives.
    """
    rows, tokens = [], []
    counts = {"rows": 0, "questions": 0, "dropped_passages": 0, "dropped_questions": 0, "dropped_rows": 0}
    for row in read_context_rows(path):
        if not row.questions:
            continue
        fitted = fit_row(row, encoder, max_length)
        if fitted is None:
            counts["dropped_rows"] += 1
            continue
        rows.append(fitted.row)
        tokens.append(fitted.tokens)
        counts["rows"] += 1
        counts["questions"] += len(fitted.row.questions)
        counts["dropped_passages"] += fitted.dropped_passages
        counts["dropped_questions"] += fitted.dropped_questions
    total = counts["rows"] + counts["dropped_rows"]
    if counts["dropped_rows"] > MAX_DROPPED_SHARE * total:
        raise RagFtError(
            f"{counts['dropped_rows']} of {total} rows are longer than training.max_length={max_length} even without "
            "negatives. Raise training.max_length, or split passages into shorter ones."
        )
    return TrainingRows(rows, tokens, counts)


def _about(rows: TrainingRows) -> Iterator[str]:
    counts = rows.counts
    yield f"rows: {counts['rows']} contexts with {counts['questions']} questions"
    if counts["dropped_passages"] or counts["dropped_questions"] or counts["dropped_rows"]:
        yield (
            f"to fit the length: {counts['dropped_passages']} negatives, {counts['dropped_questions']} questions and "
            f"{counts['dropped_rows']} rows were left out (training.max_length)"
        )


def _trainer(
    recipe: Recipe,
    run: RunFolder,
    loaded: tuple[Any, Any],
    tokens: tuple[Sequence[TokenRow], Sequence[TokenRow]],
    report: Report,
) -> Any:
    """Make the trainer of a model and its tokenizer for (training rows, validation rows)."""
    import datasets
    from transformers import PrinterCallback
    from transformers.utils import logging

    from rag_ft.training.checkpoints import CheckpointMarker, MetricsFile
    from rag_ft.training.collate import Collator
    from rag_ft.training.progress import LossGuard, MemoryTrim, PlainProgress
    from rag_ft.training.trainer import SharedContextTrainer, TrainerFacts, lora_config, sft_config

    logging.set_verbosity_error()
    show_bar = sys.stderr.isatty()
    facts = TrainerFacts(
        name=recipe.name,
        folder=run.training / "checkpoints",
        seed=recipe.seed,
        dtype=dtype_name(recipe.model.dtype),
        watch=bool(tokens[1]),
        show_bar=show_bar,
        ordered=recipe.data.contexts.passages.kind == "curriculum",
    )
    trainer = SharedContextTrainer(
        model=loaded[0],
        args=sft_config(recipe.training, facts),
        train_dataset=datasets.Dataset.from_list([row.columns() for row in tokens[0]]),
        eval_dataset=datasets.Dataset.from_list([row.columns() for row in tokens[1]]) if tokens[1] else None,
        data_collator=Collator(),
        peft_config=lora_config(recipe.model.lora),
        processing_class=loaded[1],
        callbacks=[LossGuard(), MemoryTrim(), CheckpointMarker(), MetricsFile(run.training / "metrics.jsonl")],
    )
    trainer.remove_callback(PrinterCallback)
    if not show_bar:
        trainer.add_callback(PlainProgress(report))
    return trainer


def _run_trainer(trainer: Any, run: RunFolder, report: Report) -> None:
    from rag_ft.training.checkpoints import last_checkpoint

    checkpoint = last_checkpoint(run.training / "checkpoints")
    if checkpoint is not None:
        report(f"  going on from {checkpoint.name}")
    with _saving_on_interrupt(trainer) as interrupted, naming_a_full_disk(run.training):
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


def _summary(trainer: Any, rows: TrainingRows, seconds: float) -> dict[str, Any]:
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return {
        "steps": trainer.state.global_step,
        "seconds": round(seconds, 1),
        "loss": losses[-1] if losses else float("nan"),
        "trainable_parameters": trainable,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        **rows.counts,
    }
