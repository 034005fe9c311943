"""`rag-ft check`: all mistakes of a recipe at once, or what it does on one screen. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from rag_ft.evaluation.settings import EvaluationSettings
    from rag_ft.models.settings import ModelSettings
    from rag_ft.recipe.settings import Recipe
    from rag_ft.training.settings import TrainingSettings


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print the whole recipe, defaults included.")] = False,
) -> int:
    """Check a recipe. Lists all its mistakes with file, line and key, or says what the recipe does."""
    from rag_ft.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if resolved:
        typer.echo(resolved_yaml(loaded), nl=False)
        return 0
    for name, text in summary(loaded):
        typer.echo(f"{name:<12}{text}")
    typer.echo(f"\nno mistakes; the whole recipe with defaults: rag-ft check {recipe} --resolved")
    return 0


def resolved_yaml(recipe: Recipe) -> str:
    """Return a recipe with all its defaults as YAML that loads to the same recipe."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def summary(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield what a recipe does, as heading and text, in the order of the run."""
    from data_builders.retrievers import retriever_names

    data, model, training, evaluation = recipe.data, recipe.model, recipe.training, recipe.evaluation
    yield "name", f"{recipe.name} (run folder {recipe.runs_dir}/{recipe.name}, seed {recipe.seed})"
    for number, (source, settings) in enumerate(data.sources.items()):
        yield "sources" if not number else "", f"{source}: {_source(settings)}"
    if data.questions is not None:
        yield "questions", _questions(data.questions)
    yield "retrieval", f"{', '.join(retriever_names(data.retrievers))}, {data.depth} passages deep"
    yield "contexts", _contexts(recipe)
    yield "labels", f"{_labels(data.labels)}, style {model.prompt.style}"
    yield "weights", _weights(model)
    yield from _training(training)
    asked = f"{evaluation.questions:,} questions" if evaluation.questions else "all test questions"
    yield "evaluation", f"{asked}, {_grid(evaluation)}"
    yield "", "systems: " + ", ".join(system.name for system in evaluation.systems)


def _source(settings: Any) -> str:
    """Return what a recipe says of a source, on one line as a recipe may have it."""
    import yaml

    told = {"kind": settings.kind, **settings.model_dump(mode="json", exclude_unset=True)}
    return yaml.safe_dump(told, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 20).strip()


def _questions(questions: Any) -> str:
    """Return who writes questions, and about how many passages."""
    endpoint = questions.endpoint
    passages = f"{questions.passages:,} passages" if questions.passages else "every passage"
    pairs = f", {questions.hops:.0%} of them in pairs" if questions.hops else ""
    return f"{questions.per_passage} of {passages}{pairs}, by {endpoint.model} at {endpoint.base_url}"


def _labels(labels: Any) -> str:
    """Return who writes the labels."""
    if labels.kind == "gold":
        return "gold"
    who = f"{labels.endpoint.model} at {labels.endpoint.base_url}" if labels.kind == "teacher" else labels.weights
    return f"{labels.kind} by {who}, rejected ones: {labels.rejected}"


def _weights(model: ModelSettings) -> str:
    bits = "" if model.quantisation.kind == "none" else f", {model.quantisation.kind}"
    template = f", chat template {model.chat_template}" if model.chat_template else ""
    lora = model.lora
    kinds = [name for name, on in (("rsLoRA", lora.rank_stabilised), ("DoRA", lora.dora)) if on]
    kinds += [] if lora.initialisation == "zero" else [lora.initialisation]
    adapter = f"{' '.join(['LoRA', *kinds])} rank {lora.rank}, alpha {lora.alpha}"
    if model.tuning == "full":
        adapter = "all weights trained"
    elif model.adapter:
        adapter = f"going on from {model.adapter}"
    return f"{model.weights} ({model.dtype}{bits}{template}), {adapter}"


def _training(training: TrainingSettings) -> Iterator[tuple[str, str]]:
    batch = f"{training.batch_size} x {training.gradient_accumulation} rows a step, {training.batching}"
    length = _length(training.epochs, training.max_steps)
    rate = f"learning rate {training.learning_rate:g}"
    yield "training", f"{training.backend}, {length}, {batch}, {rate}, {training.max_length} tokens"
    for stage in training.stages:
        length = _length(stage.epochs or training.epochs, stage.max_steps)
        rate = f"learning rate {stage.learning_rate or training.learning_rate:g}"
        share = f", {stage.data_share:.0%} of the rows" if stage.data_share < 1 else ""
        shown = f", {stage.passages} passages at most" if stage.passages else ""
        yield "", f"stage {stage.name}: loss on {', '.join(stage.spans)}; {length}, {rate}{share}{shown}"
    if training.direct_share:
        yield "", f"{training.direct_share:.0%} of the rows ask for the answer alone"
    if training.chat:
        yield "", f"{training.chat.share:.0%} of the rows are chat data from {training.chat.path}"
    if training.trainer:
        yield "", "trainer: " + ", ".join(f"{key}={value}" for key, value in training.trainer.items())


def _grid(evaluation: EvaluationSettings) -> str:
    """Return what is swept; of further sweeps the axes that they move."""
    if evaluation.suite:
        return f"suite {evaluation.suite}"
    counts = ", ".join(map(str, evaluation.passages))
    told = [
        name if name != "gold" else " and ".join(map(str, values))
        for sweep in evaluation.sweeps
        for name, values in sweep.model_dump(exclude_defaults=True, exclude={"passages", "draws"}).items()
    ]
    more = f"; also {', '.join(dict.fromkeys(told)) or 'other counts'}" if evaluation.sweeps else ""
    return f"{counts} passages, gold {' and '.join(evaluation.gold)}{more}"


def _length(epochs: float, max_steps: int | None) -> str:
    return f"{max_steps} steps" if max_steps else f"{epochs:g} epoch{'s' * (epochs != 1)}"


def _contexts(recipe: Recipe) -> str:
    contexts, shares = recipe.data.contexts, recipe.data.negatives.shares
    total = sum(shares.values())
    passages = " ".join(f"{key} {value}" for key, value in contexts.passages.model_dump().items() if key != "kind")
    order = contexts.order if contexts.gold_position == "uniform" else f"gold {contexts.gold_position}"
    shared = f", {contexts.questions_per_context} questions each" if contexts.questions_per_context > 1 else ""
    return (
        f"{contexts.passages.kind} passage count ({passages}){shared}, {order}, "
        f"gold in {contexts.gold_probability:.0%}, else {contexts.gold_absent}; "
        f"negatives: {', '.join(f'{share / total:.0%} {kind}' for kind, share in shares.items() if share)}"
    )
