"""Training from start to end: stages, rows, preflight, the trainer, the verified adapter. Knows no command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_builders.build import require_built
from data_builders.errors import RagFtError
from data_builders.files import write_json
from data_builders.paths import data_paths
from rag_ft.memory import give_back
from rag_ft.models.adapters import save_checked, saved_weights
from rag_ft.models.load import load_tokenizer
from rag_ft.models.segment_tree import allows_trees
from rag_ft.models.tuned import about_adapter, pin_base, weights_note, with_local_adapter
from rag_ft.models.weights import Weights, record_weights, resolve_model
from rag_ft.prompting.contract import contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.licences import PACKAGED
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder, read_json
from rag_ft.training.assemble import check_start
from rag_ft.training.backends import Backend, ModelJob, open_backend
from rag_ft.training.dataset import TrainingRows, about_rows, needs_data, stage_rows, trained_styles, watched_rows
from rag_ft.training.devices import gathered_state, load_whole_again, prepare_devices
from rag_ft.training.preflight import check_resources, preflight
from rag_ft.training.probe import honours_masks
from rag_ft.training.rows import TokenRow
from rag_ft.training.stages import Stage, planned_stages

Report = Callable[[str], None]
_SUMMED = ("steps", "seconds")


@dataclass(frozen=True)
class Job:
    """What all stages of a training share."""

    recipe: Recipe
    run: RunFolder
    backend: Backend
    weights: Weights
    encoder: Encoder
    report: Report


def train(recipe: Recipe, run: RunFolder, report: Report) -> None:
    """Train the recipe's adapter, or go on where it was stopped; a finished one is left as it is."""
    if os.environ.get("RANK", "0") != "0":  # several processes do the same; one of them says so
        report = _silent
    if saved_weights(run.adapter):
        report(f"train: unchanged, the adapter is in {run.adapter}")
        return
    backend = open_backend(recipe.training.backend)
    prepare_devices(recipe)
    stages = planned_stages(recipe.training, run.training)
    check_start(recipe, stages)
    if needs_data(recipe.training):
        require_built(recipe.data, recipe.seed, run.data)
    weights = resolve_model(recipe.model, run.training)
    if os.environ.get("RANK", "0") == "0":
        record_weights(recipe.model, weights, run.training)
    encoder = Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, recipe.model.chat_template_kwargs)
    job = Job(recipe, run, backend, weights, encoder, report)
    for line in about_adapter(recipe.model, weights, contract_of(encoder, recipe.model.chat_template_kwargs)):
        report(line)
    for stage in stages:
        if stage.summary.is_file() and not stage.last:
            report(f"stage {stage.name}: done")
        else:
            _train_stage(job, stage)
            give_back()


def _train_stage(job: Job, stage: Stage) -> None:
    from transformers import set_seed

    from rag_ft.training.assemble import make_trainer, run_trainer

    recipe = job.recipe
    job.report(f"train stage {stage.name}" if stage.name else "train")
    load_whole_again()
    paths = data_paths(job.run.data).labels
    rows = stage_rows(recipe, stage, paths["train"], job.encoder)
    watched = watched_rows(recipe, stage, paths["validation"], job.encoder).tokens
    stage.folder.mkdir(parents=True, exist_ok=True)
    for line in (*about_rows(rows), *preflight(rows.rows, rows.tokens, job.encoder, stage)):
        job.report(f"  {line}")
    for line in check_resources(recipe, stage, rows.tokens, job.weights):
        job.report(f"  {line}")
    set_seed(recipe.seed)  # a new adapter starts at random
    model = job.backend.model(_model_job(job, stage, rows))
    _check_sharing(model, [*rows.tokens, *watched])
    trainer = make_trainer(job, stage, model, (rows.tokens, watched))
    outcome = run_trainer(job, stage, trainer)
    _finish(job, stage, trainer, _summary(trainer, rows) | outcome)


def _model_job(job: Job, stage: Stage, rows: TrainingRows) -> ModelJob:
    from rag_ft.training.trainer import recomputes

    recipe = job.recipe
    return ModelJob(
        settings=recipe.model,
        weights=job.weights,
        start=_start(job, stage),
        folder=stage.folder,
        max_length=recipe.training.max_length,
        gradient_checkpointing=recomputes(recipe.training),
        masked=recipe.training.batching != "padded" or any(len(row.lengths) > 2 for row in rows.tokens),
        seed=recipe.seed,
    )


def _start(job: Job, stage: Stage) -> str | None:
    """Return the folder of what a stage goes on from; None begins a new adapter."""
    if stage.before:
        return str(stage.before.result)
    return with_local_adapter(job.recipe.model, job.weights).adapter


def _check_sharing(model: Any, tokens: Sequence[TokenRow]) -> None:
    """Refuse shared contexts where attention could not keep the questions apart."""
    shared = [len(row.input_ids) for row in tokens if len(row.lengths) > 2]
    if shared and not (allows_trees(model.config, max(shared)) and honours_masks(model)):
        raise RagFtError(
            "this model's attention (a sliding window, recurrent layers, flash_attention_2 or a backend that ignores "
            "masks) cannot keep the questions of a shared context apart. Set data.contexts.questions_per_context=1."
        )


def _finish(job: Job, stage: Stage, trainer: Any, summary: dict[str, Any]) -> None:
    """Save what a stage has learned. The adapter of the last comes last: where it stands, everything is written."""
    folder = job.run.adapter if stage.last else stage.result

    def finish(folder: Path) -> None:
        job.encoder.tokenizer.save_pretrained(folder)
        styles = trained_styles(job.recipe.training)
        contract = contract_of(job.encoder, job.recipe.model.chat_template_kwargs, styles)
        replace(contract, model=weights_note(job.recipe.model, job.weights)).write(folder)
        pin_base(folder, job.weights, PACKAGED.get(job.weights.reference))

    state = gathered_state(trainer)  # every process hands over its share
    if trainer.is_world_process_zero():
        if stage.last:
            write_json(job.run.training / "summary.json", _of_all_stages(job, stage, summary))
        job.report(f"  {save_checked(trainer.accelerator.unwrap_model(trainer.model), folder, finish, state)}")
        if stage.name:
            write_json(stage.summary, summary)
    trainer.accelerator.wait_for_everyone()
    job.report(f"  {summary['steps']} steps in {summary['seconds'] / 60:.1f} min, last loss {summary['loss']:.3f}")


def _of_all_stages(job: Job, last: Stage, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of the whole training: the last stage's, with steps, seconds and peak memory of all."""
    weights = job.weights
    total = {**summary, "weights": weights.reference, "revision": weights.revision}
    total["weights_identity"] = weights.identity
    for name, commit in (("chat_template", weights.template_revision), ("adapter", weights.adapter_revision)):
        if commit:
            total[f"{name}_revision"] = commit
    if not last.name:
        return total
    before = [read_json(stage.summary, "rag-ft train RECIPE --restart") for stage in _earlier(last)]
    summaries = [*before, summary]
    names = [stage.name for stage in (*_earlier(last), last)]
    total["stages"] = [{"name": name, **each} for name, each in zip(names, summaries, strict=True)]
    total["peak_memory_gb"] = max(each["peak_memory_gb"] for each in summaries)
    return total | {name: round(sum(each[name] for each in summaries), 1) for name in _SUMMED}


def _earlier(stage: Stage) -> list[Stage]:
    return [] if stage.before is None else [*_earlier(stage.before), stage.before]


def _silent(line: str) -> None:
    """Report nothing."""


def _summary(trainer: Any, rows: TrainingRows) -> dict[str, Any]:
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    trainable = sum(getattr(p, "ds_numel", p.numel()) for p in trainer.model.parameters() if p.requires_grad)
    return {
        "steps": trainer.state.global_step,
        "loss": losses[-1] if losses else trainer.state.log_history[-1]["train_loss"],
        "trainable_parameters": trainable,
        "learning_rate": trainer.args.learning_rate,
        "rows_per_step": trainer.plan.step,
        **rows.counts,
    }
