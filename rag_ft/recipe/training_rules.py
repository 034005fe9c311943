"""Rules over training: lengths, stages, what `training.trainer` may hold."""

from __future__ import annotations

from data_builders.passage_counts import CurriculumCount
from data_builders.sources.invented_world import InventedWorldSettings
from rag_ft.recipe.problems import suggestion
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe
from rag_ft.recipe.trainer_fields import FIXED, OWNED, trainer_fields

_PLACES = ("auto", "never")
TRACKERS = ("wandb", "trackio", "tensorboard")


@rule("training.epochs", "data.contexts.passages")
def curriculum_runs_once(recipe: Recipe) -> str | None:
    """A second epoch over the same rows would start the curriculum again."""
    epochs = recipe.training.epochs
    if not isinstance(recipe.data.contexts.passages, CurriculumCount) or recipe.training.max_steps or epochs <= 1:
        return None
    return (
        f"{epochs:g} epochs would run the curriculum of data.contexts.passages again from its start: set "
        f"training.epochs=1 and data.contexts.epochs={round(epochs)}, which composes that many contexts of a question."
    )


@rule("model.attention", "data.contexts.questions_per_context")
def flash_attention_takes_no_tree(recipe: Recipe) -> str | None:
    """Its kernels know where a row begins, and no other mask."""
    if recipe.model.attention != "flash_attention_2" or recipe.data.contexts.questions_per_context == 1:
        return None
    return (
        '"flash_attention_2" cannot keep the questions of a shared context apart: set model.attention=auto, or set '
        "data.contexts.questions_per_context=1."
    )


@rule("training.report_to")
def trackers_are_known(recipe: Recipe) -> str | None:
    """Trackers that the tracking extra installs."""
    unknown = next((name for name in recipe.training.report_to if name not in TRACKERS), None)
    return None if unknown is None else f'"{unknown}" is not a tracker: {suggestion(unknown, TRACKERS)}'


@rule("training.trainer")
def trainer_sets_only_free_fields(recipe: Recipe) -> dict[str, str]:
    """`training.trainer` holds fields of SFTConfig that no setting and no contract owns."""
    return {name: message for name in recipe.training.trainer if (message := _trainer_problem(name))}


def _trainer_problem(name: str) -> str | None:
    if name in OWNED:
        return f"the recipe sets this itself: use {OWNED[name]}."
    if name in FIXED:
        return f"this cannot be set: {FIXED[name]}."
    known = trainer_fields()
    if not known or name in known:
        return None
    near = suggestion(name, known - OWNED.keys() - FIXED.keys())
    return f"trl.SFTConfig has no such field: {near if near.startswith('did') else 'see its documentation'}"


@rule("model.tuning", "training.backend")
def unsloth_trains_adapters(recipe: Recipe) -> str | None:
    """The Unsloth backend makes adapters only."""
    if recipe.model.tuning == "lora":
        return None
    return _not_with_unsloth(recipe, '"full" trains all weights, the unsloth backend adapters', "model.tuning=lora")


@rule("model.attention", "training.backend")
def unsloth_chooses_its_attention(recipe: Recipe) -> str | None:
    """Its layers compute attention themselves."""
    attention = recipe.model.attention
    if attention == "auto":
        return None
    return _not_with_unsloth(recipe, f'"{attention}", but Unsloth chooses its attention itself', "model.attention=auto")


@rule("model.rope_scaling", "training.backend")
def unsloth_keeps_positions(recipe: Recipe) -> str | None:
    """It takes some kinds of scaling only, and ignores the others without an error."""
    if recipe.model.rope_scaling is None:
        return None
    return _not_with_unsloth(recipe, "Unsloth ignores some ways to stretch positions", "model.rope_scaling=null")


@rule("model.quantisation", "training.backend")
def unsloth_quantises_in_one_way(recipe: Recipe) -> str | None:
    """Its nf4 is fixed: double, and multiplied in the model's dtype."""
    told = recipe.model.quantisation
    if told.kind != "nf4" or (told.double and told.compute_dtype in ("auto", recipe.model.dtype)):
        return None
    fix = "model.quantisation.double=true and model.quantisation.compute_dtype=auto"
    return _not_with_unsloth(recipe, "Unsloth's nf4 is always double and multiplied in model.dtype", fix)


@rule("training.liger", "training.backend")
def unsloth_replaces_liger(recipe: Recipe) -> str | None:
    """Both put kernels of their own into the same layers."""
    if not recipe.training.liger:
        return None
    return _not_with_unsloth(recipe, "Liger and Unsloth replace the same layers", "training.liger=false")


def _not_with_unsloth(recipe: Recipe, why: str, fix: str) -> str | None:
    if recipe.training.backend != "unsloth":
        return None
    return f"{why}: set {fix}, or training.backend=transformers."


@rule("training.validation.keep_best", "training.validation.questions")
def best_accuracy_needs_answers(recipe: Recipe) -> str | None:
    """Accuracy is measured on answers."""
    watched = recipe.training.validation
    if watched.keep_best != "accuracy" or watched.questions:
        return None
    return "accuracy is measured on answered questions: set training.validation.questions=100, or keep_best to loss."


@rule("training.validation.patience", "training.validation.keep_best")
def patience_needs_a_measure(recipe: Recipe) -> str | None:
    """Who stops late and keeps the last checkpoint keeps one that got worse for as long as patience lasted."""
    watched = recipe.training.validation
    if watched.patience is None or watched.keep_best:
        return None
    return "there is no best to wait for: set training.validation.keep_best to loss or accuracy."


@rule("training.validation.passages", "training.validation.questions", "data.depth")
def validation_shows_what_is_kept(recipe: Recipe) -> str | None:
    """Only passages that are kept can be shown."""
    watched, depth = recipe.training.validation, recipe.data.depth
    if not watched.questions or watched.passages <= depth:
        return None
    return (
        f"{watched.passages} passages are more than the pools hold (data.depth is {depth}): "
        f"set training.validation.passages={depth} or raise data.depth."
    )


@rule("training.validation", "data.sources")
def validation_needs_questions(recipe: Recipe) -> str | None:
    """What the invented worlds will hold is known before they are made."""
    watched, sources = recipe.training.validation, recipe.data.sources
    worlds = {name: one for name, one in sources.items() if isinstance(one, InventedWorldSettings)}
    if not (watched.questions or watched.keep_best) or len(worlds) < len(sources):
        return None
    if any(world.questions.validation for world in worlds.values()):
        return None
    return (
        f"there is no validation question to watch: set data.sources.{next(iter(worlds))}.questions.validation, "
        "or leave questions and keep_best out."
    )


@rule("training.resume")
def resume_names_a_place(recipe: Recipe) -> str | None:
    """A slip in `auto` or `never` would be taken for a path."""
    told = recipe.training.resume
    if told in _PLACES or "/" in told or "checkpoint" in told:
        return None
    return f'"{told}" is no place to go on from: write auto, never or the path of a checkpoint.'
