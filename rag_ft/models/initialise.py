"""Where a new adapter starts other than at no change: PiSSA and LoftQ. Trains nothing."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import write_json
from rag_ft.models.settings import LoraSettings
from rag_ft.models.sharding import sharding

FACTORS = "initial_adapter"
FACTORS_FILE = "factors.safetensors"
_MADE_FROM = "made_from.json"


def start_at_principal_components(model: Any, config: Any, settings: LoraSettings, folder: Path) -> Any:
    """PiSSA (arXiv 2404.02948, section 3): adapt the largest singular values of each weight, freeze the rest.

    The base weights lose what the adapter begins with: W = residual + scaling * B0 A0. B0 and A0 are kept below
    `folder`: a resumed run subtracts the very same, and the saved adapter is made an ordinary one with them
    (rag_ft/models/adapters.py). The decomposition is the randomised one, 16 iterations, which takes seconds.

    Args:
        model: the base weights; they are changed.
        config: the LoraConfig of the adapter.
        settings: what it was made from.
        folder: the stage's.

    Raises:
        RagFtError: the weights are shared out between processes.
    """
    from peft import get_peft_model

    if sharding():
        raise RagFtError(
            "model.lora.initialisation=pissa takes its start out of whole weights, and the launcher shares them out "
            "between processes. Set model.lora.initialisation=zero, or launch with --accelerate ddp."
        )
    kept, made_from = folder / FACTORS, _made_from(model, settings)
    if _read_json(kept / _MADE_FROM) == made_from:
        return _with_factors(get_peft_model(model, config), kept)
    config = copy.deepcopy(config)
    config.init_lora_weights = "pissa_niter_16"
    adapted = get_peft_model(model, config)
    # As in a resumed run: whoever reads a checkpoint must not decompose the residual once more.
    adapted.peft_config["default"].init_lora_weights = True
    if os.environ.get("RANK", "0") == "0":
        _keep_factors(adapted, kept, made_from)
    return adapted


def _made_from(model: Any, settings: LoraSettings) -> dict[str, Any]:
    location = Path(model.name_or_path)
    files = sorted(location.glob("*.safetensors")) if location.is_dir() else []
    return {
        "lora": settings.model_dump(mode="json"),
        "weights": [str(location), getattr(model.config, "_commit_hash", None), str(model.dtype)],
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _keep_factors(model: Any, kept: Path, made_from: dict[str, Any]) -> None:
    """Write the factors a model has now; the note of what they are made from comes last."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    tensors = {name: tensor for name, tensor in get_peft_model_state_dict(model).items() if "lora_" in name}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, kept / FACTORS_FILE)
    write_json(kept / _MADE_FROM, made_from)


def _with_factors(model: Any, kept: Path) -> Any:
    """Give a fresh adapter the factors of an earlier start, and take them off the base weights."""
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, {**get_peft_model_state_dict(model), **load_file(kept / FACTORS_FILE)})
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                weight, flipped = layer.get_base_layer().weight, getattr(layer, "fan_in_fan_out", False)
                # in the order PEFT multiplies: the residual must be the same to the last bit
                taken = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
                residual = (weight.float().T if flipped else weight.float()) - taken
                weight.data = (residual.T if flipped else residual).to(weight.dtype)
    return model


def start_at_quantisation_error(model: Any) -> None:
    """LoftQ (arXiv 2310.08659, algorithm 1 with one step): begin at the part of W - nf4(W) that the rank can hold.

    The base stays the plain nf4 one, so that the adapter is an ordinary one of it. PEFT's replace_lora_weights_loftq
    does the same, but needs CUDA and leaves out the scaling, by which the adapter's product is multiplied.

    Raises:
        RagFtError: the weights lie in no safetensors file under the names of the model.
    """
    import bitsandbytes
    import torch
    from peft.tuners.lora import Linear4bit

    original = _original_weights(model)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if not isinstance(layer, Linear4bit):
                continue
            quantised = layer.get_base_layer().weight
            near = bitsandbytes.functional.dequantize_4bit(quantised.data, quantised.quant_state).float()
            lost = original(name.removeprefix("base_model.model.") + ".weight").to(near) - near
            left, singular, right = torch.linalg.svd(lost, full_matrices=False)
            rank = layer.r["default"]
            root = (singular[:rank] / layer.scaling["default"]).sqrt()
            layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
            layer.lora_B["default"].weight.copy_(left[:, :rank] * root)


def _original_weights(model: Any) -> Callable[[str], Any]:
    """Return a function from the name of a weight to it, as it was before it was quantised."""
    from safetensors import SafetensorError, safe_open
    from transformers.utils.hub import cached_file

    location, commit = model.name_or_path, getattr(model.config, "_commit_hash", None)

    def file(name: str) -> str | None:
        found: str | None = cached_file(
            location, name, revision=commit, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
        return found

    index = file("model.safetensors.index.json")
    places = _read_json(Path(index))["weight_map"] if index else {}

    def tensor(name: str) -> Any:
        path = file(places.get(name, "model.safetensors"))
        try:
            if path is None:
                raise KeyError(name)
            with safe_open(path, framework="pt") as tensors:
                return tensors.get_tensor(name)
        except (KeyError, SafetensorError) as error:
            raise RagFtError(
                f"model.lora.initialisation=loftq: the safetensors files of {location} do not hold {name}, so what "
                "quantisation takes away is not known. Set model.lora.initialisation=zero."
            ) from error

    return tensor
