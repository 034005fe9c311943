"""What was trained, found and loaded again: an adapter on its base weights, or all weights. Trains nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_builders.errors import RagFtError
from data_builders.files import write_json
from rag_ft.models.adapters import ADAPTER_FILE
from rag_ft.models.load import load_adapter, load_model
from rag_ft.models.lora import listed_targets
from rag_ft.models.settings import LoraSettings, ModelSettings
from rag_ft.models.weights import Weights
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.prompting.contract import PromptContract

CONFIG_FILE = "adapter_config.json"
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # init_lora_weights of PEFT 0.21
_WANTED = [CONFIG_FILE, ADAPTER_FILE, CONTRACT_FILE]
_ANYWHERE = re.compile(r"package:\w+|[A-Za-z0-9][\w.-]*/[\w.-]+")
_NOTED = ("dtype", "quantisation", "rope_scaling")


def to_load(settings: ModelSettings, weights: Weights, start: str | None) -> tuple[ModelSettings, Weights]:
    """Return what to load before a stage.

    With `tuning: full` those are the weights of the start, where there is one, in float32: an optimizer step is often
    smaller than bfloat16 can add. They are multiplied in `dtype` all the same, since the trainer casts.

    Args:
        settings: the recipe's `model` section.
        weights: the base weights.
        start: what the stage goes on from.
    """
    if settings.tuning == "lora":
        return settings, weights
    if start is not None:
        weights = in_folder(weights, Path(start))
    return settings.model_copy(update={"dtype": "float32"}), weights


def load_tuned(settings: ModelSettings, weights: Weights, folder: Path) -> Any:
    """Load what a training left in `folder`, an adapter or all weights, frozen and in evaluation mode.

    Raises:
        RagFtError: the folder holds neither, or an adapter that does not fit the base weights.
    """
    if settings.tuning == "full" and not (folder / ADAPTER_FILE).is_file():
        return load_model(settings, in_folder(weights, folder)).eval().requires_grad_(False)
    return load_adapter(load_model(settings, weights), folder).requires_grad_(False)


def in_folder(weights: Weights, folder: Path) -> Weights:
    """Return the weights in a folder that came of those resolved."""
    return replace(weights, reference=str(folder), location=str(folder), revision=None, known_identity=None)


def adapter_folder(reference: str, revision: str | None = None) -> Path:
    """Return the folder of an adapter; one on the Hub is downloaded into the Hub's cache, at a commit if one is told.

    Raises:
        RagFtError: there is none, or one that cannot be trained further on unchanged base weights.
    """
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        folder = _from_hub(reference, revision)
    missing = next((name for name in (CONFIG_FILE, ADAPTER_FILE) if not (folder / name).is_file()), None)
    if missing:
        raise RagFtError(
            f"model.adapter={reference}: it has no {missing}, so it holds no adapter. Give the folder that "
            "`rag-ft train` or PEFT's save_pretrained wrote, or its Hub id."
        )
    config = adapter_config(folder)
    if config.get("peft_type") != "LORA":
        raise RagFtError(
            f"model.adapter={reference}: it is of the kind {config.get('peft_type')}, but only LoRA is trained here. "
            "Give a LoRA adapter, or set model.adapter=null to begin a new one."
        )
    if str(config.get("init_lora_weights")).startswith(_CHANGE_THE_BASE):
        raise RagFtError(
            f"model.adapter={reference}: it began with init_lora_weights={config['init_lora_weights']}, which changes "
            "the base weights. Save it again with PEFT's path_initial_model_for_weight_conversion, or set "
            "model.adapter=null."
        )
    return folder


def weights_note(settings: ModelSettings, weights: Weights) -> dict[str, Any]:
    """Return what the prompt contract says of the weights below an adapter, so that it loads on another machine.

    It names no path of this one: `weights` is a Hub id or a package, or None. PEFT's own configuration names what it
    loaded, which for a package is a folder of converted weights in this machine's cache.
    """
    known = portable(weights.reference)
    return {
        "weights": known,
        "revision": weights.revision if known else None,
        "identity": weights.known_identity if known else None,
        **settings.model_dump(mode="json", include=set(_NOTED)),
    }


def noted_settings(note: Mapping[str, Any]) -> ModelSettings:
    """Return how the weights below an adapter are loaded, by a note that may come from anywhere.

    Raises:
        RagFtError: it says what no setting is.
    """
    try:
        return ModelSettings.model_validate_json(json.dumps({key: note[key] for key in _NOTED if key in note}))
    except ValidationError as error:
        first = error.errors()[0]
        raise RagFtError(
            f"{CONTRACT_FILE}: model.{'.'.join(map(str, first['loc']))} is not a setting ({first['msg']}), so the file "
            "is damaged. Fetch the adapter again."
        ) from error


def portable(reference: object) -> str | None:
    """Return a name of weights that means the same on every machine: a Hub id or a package; else None."""
    told = isinstance(reference, str) and _ANYWHERE.fullmatch(reference) and not Path(reference).exists()
    return str(reference) if told else None


def pin_base(folder: Path, weights: Weights, hub_id: str | None = None) -> None:
    """Write what base weights are on the Hub into an adapter's configuration, for whoever loads it with PEFT alone.

    Args:
        folder: of the adapter; one with whole weights is left alone.
        weights: those below it; their commit is written, where they have one.
        hub_id: of weights that were loaded from elsewhere, in place of a folder of this machine's cache.
    """
    told = {"revision": weights.revision, "base_model_name_or_path": hub_id}
    known = {name: value for name, value in told.items() if value}
    if known and (folder / CONFIG_FILE).is_file():
        write_json(folder / CONFIG_FILE, {**adapter_config(folder), **known})


def with_local_adapter(settings: ModelSettings, weights: Weights) -> ModelSettings:
    """Return the settings with `adapter` as a folder, at the commit resolved."""
    if settings.adapter is None:
        return settings
    return settings.model_copy(update={"adapter": str(adapter_folder(settings.adapter, weights.adapter_revision))})


def _from_hub(reference: str, revision: str | None) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wrong = f"model.adapter={reference}: no such folder"
    if reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise RagFtError(f"{wrong}. Give the folder or the Hub id (organisation/name) of an adapter.")
    try:
        return Path(snapshot_download(reference, revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, HTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise RagFtError(
            f"{wrong}, and the Hub does not give it ({str(error).splitlines()[0]}). Check the name, your network and, "
            "for a private adapter, `hf auth login`."
        ) from error


def adapter_config(folder: Path) -> dict[str, Any]:
    """Return the PEFT configuration saved with an adapter.

    Raises:
        RagFtError: it is damaged.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise RagFtError(f"{folder / CONFIG_FILE} is damaged. Set model.adapter to a complete adapter.")
    return config


def about_adapter(settings: ModelSettings, weights: Weights, contract: PromptContract) -> list[str]:
    """Return lines that say what `model.adapter` brings along that the recipe says otherwise; none where it is null.

    Args:
        settings: the recipe's `model` section.
        weights: what was resolved of it.
        contract: how the recipe asks.

    Raises:
        RagFtError: it holds no adapter to go on from.
    """
    if settings.adapter is None:
        return []
    folder = adapter_folder(settings.adapter, weights.adapter_revision)
    lines = [f"going on from the adapter {settings.adapter}"]
    other = _differences(settings.lora, adapter_config(folder))
    if other:
        lines.append(f"its own settings win over model.lora: {', '.join(other)}")
    return [*lines, *_about_contract(folder, contract)]


def _differences(told: LoraSettings, config: dict[str, Any]) -> list[str]:
    """Name each setting that the adapter has otherwise."""
    pairs: dict[str, tuple[Any, Any]] = {
        "rank": (told.rank, config.get("r")),
        "alpha": (told.alpha, config.get("lora_alpha")),
        "dropout": (told.dropout, config.get("lora_dropout")),
        "rank_stabilised": (told.rank_stabilised, config.get("use_rslora", False)),
        "dora": (told.dora, config.get("use_dora", False)),
        "train_embeddings": (told.train_embeddings, bool(config.get("modules_to_save"))),
    }
    if listed := listed_targets(told):
        # PEFT writes out what all-linear found, layer by layer
        pairs["target_modules"] = (_last_parts(listed), _last_parts(config.get("target_modules") or ()))
    return [f"{name} {of_it}, not {ours}" for name, (ours, of_it) in pairs.items() if ours != of_it]


def _last_parts(modules: str | Iterable[str]) -> list[str]:
    """Return the names of modules without where they stand; a text is a regular expression of PEFT's."""
    return [modules] if isinstance(modules, str) else sorted({name.rpartition(".")[2] for name in modules})


def _about_contract(folder: Path, contract: PromptContract) -> list[str]:
    try:
        trained = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [f"it has no {CONTRACT_FILE}: nobody knows how it was asked before"]
    known = {"prompt_hash": [trained.get("prompt_hash"), *trained.get("prompt_hashes", {}).values()]}
    known["chat_template_hash"] = [trained.get("chat_template_hash")]
    other = [name for name, hashes in known.items() if getattr(contract, name) not in hashes]
    if not other:
        return []
    return [
        f"warning: it was trained with another prompt ({', '.join(other)} in {CONTRACT_FILE}) than model.prompt says"
    ]
