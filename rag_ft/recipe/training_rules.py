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


@rule("training.trainer", "data.contexts.passages")
def curriculum_keeps_its_order(recipe: Recipe) -> dict[str, str]:
    """A curriculum is trained in the order its rows are written."""
    name = "train_sampling_strategy"
    strategy = recipe.training.trainer.get(name, "sequential")
    if strategy == "sequential" or not isinstance(recipe.data.contexts.passages, CurriculumCount):
        return {}
    return {name: f'"{strategy}" mixes up the curriculum of data.contexts.passages: remove it or set it to sequential.'}


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
