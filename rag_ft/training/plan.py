"""What a training would do and cost: rows, tokens, memory, disk, steps, time. Trains nothing, writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_builders.build import require_built
from data_builders.errors import RagFtError
from data_builders.paths import data_paths
from rag_ft.models.load import load_config, load_tokenizer
from rag_ft.models.weights import Weights, resolve_model
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.assemble import check_start
from rag_ft.training.dataset import TrainingRows, about_rows, needs_data, stage_rows
from rag_ft.training.memory_estimate import (
    NEAR,
    Demand,
    NoEstimateError,
    Rows,
    advice,
    changes_to_fit,
    compute_dtype,
    memory_estimate,
    recomputes,
    verdict,
)
from rag_ft.training.model_shape import ModelShape, model_shape
from rag_ft.training.places import Place, card, place_at_hand
from rag_ft.training.run import Report
from rag_ft.training.stage_plan import (
    StagePlan,
    checkpoint_bytes,
    checkpoints_kept,
    labelled,
    plan_stage,
    rows_in_memory,
)
from rag_ft.training.stages import Stage, planned_stages
from rag_ft.training.time_estimate import TimeEstimate, product_rate, time_estimate

CARDS = (16, 24, 40, 80)
SUPPOSED_LABEL = 256  # tokens with loss in a row that nobody has seen yet
_FITS = {"fits": "yes", "near": "just", "over": "no", "refused": "no"}


@dataclass(frozen=True)
class _Plan:
    """What all stages of a plan share."""

    recipe: Recipe
    run: RunFolder
    encoder: Encoder
    shape: ModelShape
    place: Place
    built: bool


def dry_run(recipe: Recipe, run: RunFolder, report: Report, accelerate: str | None = None) -> None:
    """Report the plan of a training: from the rows where they are built, else from `training.max_length`.

    Args:
        recipe: what to train.
        run: its folder; nothing is written into it.
        report: takes the lines.
        accelerate: the configuration of accelerate it would be trained under.

    Raises:
        RagFtError: what would stop the training before its first step: neither weights nor their configuration can be
            reached, a setting that cannot be used, rows that cannot be trained on.
    """
    report(f"plan of {recipe.name} in {run.root}")
    stages = planned_stages(recipe.training, run.training)
    check_start(recipe, stages)
    place = place_at_hand(accelerate)
    weights = resolve_model(recipe.model)
    shape = model_shape(recipe.model, load_config(recipe.model, weights, recipe.training.max_length))
    encoder = Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, recipe.model.chat_template_kwargs)
    not_built = _not_built(recipe, run)
    plan = _Plan(recipe, run, encoder, shape, place, built=not_built is None)
    for line in _about_model(plan, weights):
        report(line)
    if not_built:
        report(f"rows: {not_built}\nTo count them: rag-ft build RECIPE. Until then every row is supposed to be full.")
    planned = [_stage(plan, stage, report) for stage in stages]
    largest = max((demand for demand, _ in planned), key=lambda demand: demand.rows.longest)
    for line in (*_about_memory(largest), *_about_disk(plan, len(stages)), *_about_time(planned)):
        report(line)


def _not_built(recipe: Recipe, run: RunFolder) -> str | None:
    """Return why there are no rows yet; None where there are."""
    if not needs_data(recipe.training):
        return None
    try:
        require_built(recipe.data, recipe.seed, run.data)
    except RagFtError as error:
        return str(error)
    return None


def _about_model(plan: _Plan, weights: Weights) -> Iterator[str]:
    recipe, shape, place = plan.recipe, plan.shape, plan.place
    told = recipe.model.quantisation
    stored = recipe.model.dtype if recipe.model.dtype != "auto" else f"{place.dtype} on {place.device}"
    kind = {"none": "", "int8": ", linear layers in int8"}.get(
        told.kind, f", linear layers in {told.kind}{' with double quantisation' if told.double else ''}"
    )
    at = f" at {weights.revision}" if weights.revision else ""
    yield f"weights: {weights.reference}{at}, {shape.total / 1e9:.2f} B parameters in {stored}{kind}"
    yield f"trained: {_trained(recipe)}, {_count(shape.trained)} parameters ({shape.trained / shape.total:.2%})"
    shared = {"none": "", "optimizer": ", optimizer shared out", "weights": ", weights shared out"}[place.sharding]
    yield (
        f"backend: {recipe.training.backend}, {place.processes} process{'es' if place.processes > 1 else ''}{shared}; "
        f"batches {recipe.training.batching}{', by length' if recipe.training.group_by_length else ''}"
    )


def _trained(recipe: Recipe) -> str:
    model = recipe.model
    if model.tuning == "full":
        return "all weights, in float32"
    if model.adapter:
        return f"the adapter {model.adapter}"
    targets = model.lora.target_modules
    named = targets if isinstance(targets, str) else ", ".join(targets)
    extra = [name for name, on in (("DoRA", model.lora.dora), ("embeddings", model.lora.train_embeddings)) if on]
    return " + ".join([f"LoRA of rank {model.lora.rank} on {named}", *extra])


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters < 1e9 else f"{parameters / 1e9:.2f} B"


def _stage(plan: _Plan, stage: Stage, report: Report) -> tuple[Demand, TimeEstimate | None]:
    """Report one stage; return what its memory follows from and how long it takes."""
    recipe = plan.recipe
    report(f"stage {stage.name}: loss on {', '.join(stage.spans)}" if stage.name else "training:")
    if not plan.built:
        demand = _demand(plan, _supposed(recipe))
        steps = f"{stage.max_steps} steps" if stage.max_steps else "steps: known when rows are built"
        report(f"  {steps}; rows of up to {recipe.training.max_length} tokens; learning rate {stage.learning_rate:g}")
        return demand, None
    path = data_paths(plan.run.data).labels["train"]
    rows = stage_rows(recipe, stage, path, plan.encoder)
    if not rows.tokens:
        raise RagFtError("there is no training row. See what `rag-ft build RECIPE` left out.")
    counted = plan_stage(recipe, stage, rows.tokens, plan.place.processes)
    for line in (*about_rows(rows), *_about_counts(recipe, stage, rows, counted)):
        report(f"  {line}")
    demand = _demand(plan, rows_in_memory(rows.tokens))
    pairs = [(len(row.input_ids), labelled(row)) for row in rows.tokens]
    rate = product_rate(demand)
    return demand, time_estimate(demand, pairs, counted.epochs, rate)


def _demand(plan: _Plan, rows: Rows) -> Demand:
    return Demand(plan.recipe.model, plan.recipe.training, plan.shape, rows, plan.place)


def _supposed(recipe: Recipe) -> Rows:
    """Return rows as long as they may be."""
    longest = recipe.training.max_length
    several = recipe.data.contexts.questions_per_context > 1 and needs_data(recipe.training)
    return Rows(longest, SUPPOSED_LABEL, longest * recipe.training.batch_size, several)


def _about_counts(recipe: Recipe, stage: Stage, rows: TrainingRows, counted: StagePlan) -> Iterator[str]:
    training = recipe.training
    lengths = sorted(len(row.input_ids) for row in rows.tokens)
    yield (
        f"tokens: {counted.tokens} in all, {counted.labelled} carry loss; a row has {lengths[len(lengths) // 2]} "
        f"(median) to {lengths[-1]}"
    )
    yield f"padding: {counted.padding:.1%} of what is computed"
    yield (
        f"steps: {counted.steps} of {training.batch_size} x {training.gradient_accumulation} rows a process, "
        f"{counted.epochs:.2f} epochs, learning rate {stage.learning_rate:g}"
    )


def _about_memory(demand: Demand) -> Iterator[str]:
    """Yield the table of a device, whether it fits, and where there is no GPU, which cards would do."""
    place = demand.place
    try:
        estimate = memory_estimate(demand)
    except NoEstimateError as error:
        yield f"memory: not estimated, since {error}"
        return
    yield f"memory of {place.device}, {_conditions(demand)}:"
    yield f"  {estimate.line()}, of {place.memory:.1f} GB"
    judged = verdict(estimate.total, place.memory)
    if judged != "fits":
        todo = advice(changes_to_fit(demand, NEAR * place.memory), place.memory)
        yield f"  {'this is tight' if judged == 'near' else 'this does not fit'}: {todo}"
    if place.kind == "cpu":
        yield from _about_cards(demand)


def _about_cards(demand: Demand) -> Iterator[str]:
    too_small: list[Demand] = []
    for size in CARDS:
        on_card = demand.having(place=card(size, demand.place))
        estimate = memory_estimate(on_card)
        fits = _FITS[verdict(estimate.total, size)]
        yield f"  fits {on_card.place.device}: {fits}, {estimate.total:.1f} GB ({_conditions(on_card)})"
        too_small += [on_card] if fits == "no" else []
    if too_small:
        last, memory = too_small[-1], too_small[-1].place.memory
        yield f"  for {last.place.device}: {advice(changes_to_fit(last, NEAR * memory), memory)}"


def _conditions(demand: Demand) -> str:
    again = "activations computed again" if recomputes(demand) else "activations kept"
    return f"{compute_dtype(demand)}, {again}"


def _about_disk(plan: _Plan, stages: int) -> Iterator[str]:
    size, kept = checkpoint_bytes(plan.shape, plan.recipe.training) / 1e9, checkpoints_kept(plan.recipe.training)
    free = shutil.disk_usage(existing(plan.run.root)).free / 1e9
    yield f"disk: {kept * stages} checkpoints of {size:.2f} GB at most; {free:.0f} GB are free"


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _about_time(planned: list[tuple[Demand, TimeEstimate | None]]) -> Iterator[str]:
    known = [time.seconds for _, time in planned if time is not None]
    device = planned[0][0].place.device if planned[0][0].place.kind == "cuda" else "this CPU"
    if len(known) < len(planned):
        yield "time: known when rows are built"
    else:
        yield f"time: {TimeEstimate(sum(known)).text()} on {device}, without validation"
