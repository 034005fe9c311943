"""Whether vLLM takes an adapter, told from its configuration alone; vLLM need not be installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, TypeAlias

from rag_ft.export.trained import TEMPLATE_FILE, hub_id
from rag_ft.generation.vllm import RANKS
from rag_ft.models.settings import ModelSettings
from rag_ft.recipe.settings import Recipe

Check: TypeAlias = Callable[[Mapping[str, Any], ModelSettings], str | None]
_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
_CHECKS: list[Check] = []


def vllm_lines(recipe: Recipe, config: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the command that serves an exported adapter with vLLM, or why there is none and what to do instead.

    Args:
        recipe: what it was trained from.
        config: its adapter_config.json, as exported.
        folder: where it lies.
    """
    reasons = vllm_refuses(config, recipe.model)
    if reasons:
        return [
            f"vLLM: no, {'; '.join(reasons)}. Take `rag-ft export RECIPE merged`, whose folder vLLM serves as it is."
        ]
    base, revision = config["base_model_name_or_path"], config.get("revision")
    if hub_id(recipe.model.weights) is None:
        base = recipe.model.weights
    words = ["vllm", "serve", base, *(["--revision", revision] if revision else [])]
    words += ["--enable-lora", "--max-lora-rank", str(_least_rank(config))]
    words += ["--lora-modules", f"{recipe.name}={folder}", "--chat-template", str(folder / TEMPLATE_FILE)]
    return ["vLLM: yes, start it with", f"  {' '.join(map(quote, words))}"]


def vllm_refuses(config: Mapping[str, Any], settings: ModelSettings) -> list[str]:
    """Return every reason for which vLLM cannot serve an adapter on its base weights; none where it can.

    The rules are those of vllm/lora/peft_helper.py and vllm/config/lora.py, 0.33.

    Args:
        config: its adapter_config.json.
        settings: the recipe's `model` section, for what the base is.
    """
    return [reason for check in _CHECKS if (reason := check(config, settings))]


def _check(function: Check) -> Check:
    _CHECKS.append(function)
    return function


def _rank(config: Mapping[str, Any]) -> int:
    return max([config["r"], *(config.get("rank_pattern") or {}).values()])


def _least_rank(config: Mapping[str, Any]) -> int:
    return min(rank for rank in RANKS if rank >= _rank(config))


@_check
def _kind(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    kind = config.get("peft_type")
    return None if kind == "LORA" else f"it takes LoRA only, and this is {kind}"


@_check
def _too_high(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    rank = _rank(config)
    if rank <= RANKS[-1]:
        return None
    of_pissa = " (PiSSA saves twice the rank it trains)" if settings.lora.initialisation == "pissa" else ""
    return f"it takes a rank of {RANKS[-1]} at most, and this has {rank}{of_pissa}"


@_check
def _dora(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    return "it does not take DoRA" if config.get("use_dora") else None


@_check
def _whole_modules(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    whole = config.get("modules_to_save")
    if whole:
        return f"it takes no module trained in full, and this has {', '.join(whole)} (model.lora.train_embeddings)"
    return "it takes no trained tokens (trainable_token_indices)" if config.get("trainable_token_indices") else None


@_check
def _bias(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    with_bias = config.get("bias", "none") != "none" or config.get("lora_bias")
    return "it takes no trained bias" if with_bias else None


@_check
def _patterns(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    uneven = [name for name in ("rank_pattern", "alpha_pattern") if config.get(name)]
    return f"it reads one rank and one alpha for all layers, and this has a {uneven[0]}" if uneven else None


@_check
def _targets(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    targets = config.get("target_modules")
    if isinstance(targets, str):
        return "it wants the adapted modules by name, and this names them by a regular expression"
    odd = sorted({name.rpartition(".")[2] for name in targets or ()} - _LAYERS)
    return f"it adapts attention and feed-forward layers, and this adapts {', '.join(odd)}" if odd else None


@_check
def _base_weights(config: Mapping[str, Any], settings: ModelSettings) -> str | None:
    if settings.rope_scaling is not None:
        return "it would load the base without model.rope_scaling, with which this was trained"
    return "it serves no adapter on a .gguf file" if settings.weights.endswith(".gguf") else None
