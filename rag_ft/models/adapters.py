"""Saving what was trained so that it can be trusted: written aside, read back, checked, then renamed into place."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash, file_hash, write_json
from data_builders.progress import quiet_transformers

if TYPE_CHECKING:
    import torch

ADAPTER_FILE = "adapter_model.safetensors"
_SAMPLED = 64
_LEARN = (
    "Raise training.learning_rate, training.epochs or training.max_steps (the first step often has a learning rate of "
    "0, to warm up), and repeat the command with --restart."
)


def saved_weights(folder: Path) -> Path | None:
    """Return the file with the weights in a folder that `save_checked` wrote; None where there is none."""
    names = (ADAPTER_FILE, "model.safetensors", "model.safetensors.index.json")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def weights_hash(folder: Path) -> str:
    """Return a hash of the trained weights in a folder that `save_checked` wrote."""
    adapter = folder / ADAPTER_FILE
    if adapter.is_file():
        return file_hash(adapter)
    return content_hash([file_hash(file) for file in sorted(folder.glob("*.safetensors"))])


@dataclass(frozen=True)
class Start:
    """What a model was before it was trained.

    Attributes:
        factors: file with the initial adapter, where the base weights were changed to make room for it (PiSSA).
        sample: the first values of each tensor that has to change, by its name in the saved file.
    """

    factors: Path | None
    sample: Mapping[str, torch.Tensor]


def remember_start(model: Any, factors: Path | None = None) -> None:
    """Keep on a model what it starts from, so that saving it can tell whether it has learned something."""
    sample = {name: tensor.detach().flatten()[:_SAMPLED].cpu().clone() for name, tensor in _must_change(model)}
    # DeepSpeed's ZeRO-3 leaves nothing of a weight to look at
    model.rag_ft_start = Start(factors, {name: values for name, values in sample.items() if len(values)})


def _must_change(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    from peft import PeftModel, get_peft_model_state_dict

    if isinstance(model, PeftModel):
        yield from ((name, each) for name, each in get_peft_model_state_dict(model).items() if "lora_B" in name)
    else:
        yield from model.named_parameters()


def save_checked(
    model: Any, folder: Path, finish: Callable[[Path], None], state: Mapping[str, Any] | None = None
) -> str:
    """Save the adapter of a PEFT model, or all weights of another, to `folder`, verified; return a one-line summary.

    Args:
        model: the trained model.
        folder: where it goes; replaced at once when everything is written and checked.
        finish: writes what else belongs into the folder (tokenizer, prompt contract) before it is renamed.
        state: the model's state dict, gathered from all processes; None takes the model's own.
    """
    from peft import PeftModel

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save = _save_adapter if isinstance(model, PeftModel) else _save_all_weights
    try:
        with naming_a_full_disk(folder.parent), quiet_transformers():
            summary = save(model, temporary, state)
            finish(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _save_adapter(model: Any, folder: Path, state: Mapping[str, Any] | None) -> str:
    start: Start | None = getattr(model, "rag_ft_start", None)
    model.save_pretrained(str(folder), state_dict=state)
    expected = expected_shapes(model)
    summary = verify_adapter(folder, expected, start.sample if start else None)
    if start is None or start.factors is None:
        return summary
    make_ordinary(folder, start.factors)
    return verify_adapter(folder, {name: _doubled(name, shape) for name, shape in expected.items()})


def _save_all_weights(model: Any, folder: Path, state: Mapping[str, Any] | None) -> str:
    start: Start | None = getattr(model, "rag_ft_start", None)
    model.save_pretrained(str(folder), state_dict=state)
    return verify_weights(folder, expected_values(model), start.sample if start else {})


def expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the adapter tensors a PEFT model should save, by name: whole, also where a process holds shares only."""
    import torch
    from peft import get_peft_model_state_dict

    # ds_shape: DeepSpeed's note of what a tensor was before it was shared out
    shapes = {name: getattr(each, "ds_shape", each.shape) for name, each in model.state_dict(keep_vars=True).items()}
    whole = {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}
    return {name: tuple(each.shape) for name, each in get_peft_model_state_dict(model, state_dict=whole).items()}


def verify_adapter(
    folder: Path, expected: dict[str, tuple[int, ...]], start: Mapping[str, torch.Tensor] | None = None
) -> str:
    """Read a saved adapter back from disk.

    Args:
        folder: where it was saved.
        expected: the shape of each tensor by its name.
        start: the first values of each `lora_B` before training.

    Raises:
        RagFtError: a tensor is missing, has another shape or is not finite, or every `lora_B` is zero or as it was,
            which means that nothing was learned or that a sharded model was saved without gathering it (peft#3251,
            axolotl#3772).
    """
    from safetensors.torch import load_file

    file = folder / ADAPTER_FILE
    found = load_file(file)
    wrong = [name for name, shape in expected.items() if name not in found or tuple(found[name].shape) != shape]
    if wrong or found.keys() - expected.keys():
        raise RagFtError(
            f"the adapter saved in {folder} is incomplete: {len(wrong)} of {len(expected)} tensors are missing or have "
            f"another shape, the first is {(wrong or sorted(found.keys() - expected.keys()))[0]}. Train again from the "
            "last checkpoint with the same command."
        )
    _check_finite(found, "adapter")
    filled = {name: tensor for name, tensor in found.items() if "lora_B" in name and bool(tensor.any())}
    if not filled:
        raise RagFtError(f"every lora_B of the adapter is zero: nothing was learned. {_LEARN}")
    learned = _changed(filled, start or {})
    if not learned:
        raise RagFtError(f"every lora_B of the adapter is what it was before: nothing was learned. {_LEARN}")
    size = file.stat().st_size / 1e6
    return f"adapter: {len(found)} tensors, {size:.1f} MB, {learned} lora_B matrices learned, read back from disk"


def verify_weights(folder: Path, expected: int, start: Mapping[str, torch.Tensor]) -> str:
    """Read saved weights back from disk.

    Args:
        folder: where they were saved.
        expected: how many values they have; names may differ between a model and its file.
        start: the first values of each weight before training.

    Raises:
        RagFtError: values are missing or not finite, or no weight has changed.
    """
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    values = sum(tensor.numel() for tensor in found.values())
    if values < expected:
        raise RagFtError(
            f"the weights saved in {folder} are incomplete: {values:,} of {expected:,} values are there. Train again "
            "from the last checkpoint with the same command."
        )
    _check_finite(found, "trained model")
    learned = _changed(found, start)
    if not learned:
        raise RagFtError(f"every weight is what it was before: nothing was learned. {_LEARN}")
    size = sum(file.stat().st_size for file in files) / 1e6
    return f"weights: {len(found)} tensors, {size:.1f} MB, {learned} of them learned, read back from disk"


def expected_values(model: Any) -> int:
    """Return how many values a model should save: tied weights once, and whole where a process holds shares only."""
    each = {id(one): getattr(one, "ds_numel", one.numel()) for one in model.state_dict(keep_vars=True).values()}
    return sum(each.values())


def _check_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise RagFtError(f"the {what} holds values that are not finite. Lower training.learning_rate and train again.")


def _changed(tensors: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> int:
    """Return how many tensors differ from the first values they had; those not known before count as changed."""
    same = (
        name in start and bool((tensor.flatten()[: len(start[name])] == start[name]).all())
        for name, tensor in tensors.items()
    )
    return sum(not one for one in same)


def make_ordinary(folder: Path, factors: Path) -> None:
    """Turn a saved PiSSA adapter into one of the unchanged base weights: B A - B0 A0 = [B, -B0] [A; A0].

    PEFT's `path_initial_model_for_weight_conversion` does the same, but leaves out embeddings trained in full and
    cannot take tensors gathered from several processes.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / ADAPTER_FILE)
    for name, first in load_file(factors).items():
        dimension, sign = (0, 1) if "lora_A" in name else (1, -1)
        tensors[name] = torch.cat([tensors[name], sign * first.to(tensors[name])], dim=dimension)
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # the scale, alpha / r or alpha / sqrt(r), stays what it was
    config["lora_alpha"] *= 2**0.5 if config["use_rslora"] else 2
    config["r"] *= 2
    write_json(file, config)


def _doubled(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if "lora_A" in name:
        return (2 * shape[0], *shape[1:])
    return (shape[0], 2 * shape[1]) if "lora_B" in name else shape


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turn what torch, safetensors and tokenizers raise when a disk is full, no OSError, into one sentence."""
    try:
        yield
    except (RagFtError, OSError):
        raise
    except Exception as error:
        # torch names its file writer, and the reason only where it could not even open the file
        if os.strerror(errno.ENOSPC) not in str(error) and "inline_container" not in str(error):
            raise
        raise RagFtError(
            f"cannot write to {folder}: {os.strerror(errno.ENOSPC)}. Free some space; the same command goes on from "
            "the last whole checkpoint."
        ) from error
