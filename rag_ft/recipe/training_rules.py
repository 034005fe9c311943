"""Rules over training: lengths, stages, what `training.trainer` may hold."""

from __future__ import annotations

from data_builders.passage_counts import CurriculumCount
from rag_ft.recipe.problems import suggestion
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe
from rag_ft.recipe.trainer_fields import FIXED, OWNED, trainer_fields

TRACKERS = ("wandb", "trackio", "tensorboard")


@rule("training.epochs", "data.contexts.passages")
def curriculum_runs_once(recipe: Recipe) -> str | None:
    """A second epoch over the same rows would start the curriculum again."""
    epochs = recipe.training.epochs
    if epochs <= 1 or not isinstance(recipe.data.contexts.passages, CurriculumCount):
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
