"""Saving an adapter so that it can be trusted: written aside, read back, checked, then renamed into place."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError


def saved_weights(folder: Path) -> Path | None:
    """Return the file with the weights in a folder that `save_checked` wrote; None where there is none."""
    names = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def save_checked(model: Any, folder: Path, finish: Callable[[Path], None]) -> str:
    """Save the adapter of a PEFT model to `folder`, verified; return a one-line summary.

    `finish` writes what else belongs into the folder (tokenizer, prompt contract) before it is renamed.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with naming_a_full_disk(folder.parent):
            model.save_pretrained(str(temporary), safe_serialization=True)
            summary = verify_adapter(temporary, expected_shapes(model))
            finish(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the adapter tensors a PEFT model should save, by name."""
    from peft import get_peft_model_state_dict

    return {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}


def verify_adapter(folder: Path, expected: dict[str, tuple[int, ...]]) -> str:
    """Read a saved adapter back from disk.

    Raises:
        RagFtError: a tensor is missing, has another shape or is not finite, or every `lora_B` is zero, which means
            that nothing was learned or that a sharded model was saved without gathering it (peft#3251, axolotl#3772).
    """
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    with safe_open(file, framework="pt") as tensors:
        names = set(tensors.keys())
        found = {name: tensors.get_tensor(name) for name in names}
    wrong = [name for name, shape in expected.items() if name not in found or tuple(found[name].shape) != shape]
    if wrong or names - expected.keys():
        raise RagFtError(
            f"the adapter saved in {folder} is incomplete: {len(wrong)} of {len(expected)} tensors are missing or have "
            f"another shape, the first is {(wrong or sorted(names - expected.keys()))[0]}. Train again from the last "
            "checkpoint with the same command."
        )
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise RagFtError("the adapter holds values that are not finite. Lower training.learning_rate and train again.")
    learned = sum(bool(tensor.any()) for name, tensor in found.items() if "lora_B" in name)
    if not learned:
        raise RagFtError(
            "every lora_B of the adapter is zero: nothing was learned. Raise training.learning_rate or "
            "training.epochs, and repeat the command with --restart."
        )
    size = file.stat().st_size / 1e6
    return f"adapter: {len(found)} tensors, {size:.1f} MB, {learned} lora_B matrices learned, read back from disk"


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
