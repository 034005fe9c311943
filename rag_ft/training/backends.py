"""Whose layers compute: a small protocol, and transformers behind it. Unsloth's is in unsloth_backend.py.

A backend loads the weights with what is to be trained on them. Rows, labels, loss, trainer, checkpoints and the saved
adapter are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rag_ft.models.load import load_model
from rag_ft.models.lora import trainable
from rag_ft.models.settings import ModelSettings
from rag_ft.models.tuned import to_load
from rag_ft.models.weights import Weights


@dataclass(frozen=True)
class ModelJob:
    """What a backend is asked to load.

    Attributes:
        settings: the recipe's `model` section.
        weights: the base weights, resolved.
        start: folder of an adapter (or of full weights) to go on from; None begins a new one.
        folder: where the stage keeps what it needs again to resume (the initial adapter of PiSSA).
        max_length: longest row in tokens.
        gradient_checkpointing: compute activations again in the backward pass.
        masked: rows hold several questions or are packed, so that attention needs a mask of its own.
        seed: of a new adapter's values.
    """

    settings: ModelSettings
    weights: Weights
    start: str | None
    folder: Path
    max_length: int
    gradient_checkpointing: bool
    masked: bool
    seed: int


class Backend(Protocol):
    """Loads a model to train."""

    def model(self, job: ModelJob) -> Any:
        """Return the model, ready to train.

        Raises:
            RagFtError: the backend cannot train this model, or not on these devices.
        """
        ...


class TransformersBackend:
    """Models as transformers has them: every architecture, every device."""

    def model(self, job: ModelJob) -> Any:
        """Load the base weights and put what is to be trained on them."""
        from transformers import set_seed

        settings, weights = to_load(job.settings, job.weights, job.start)
        base = load_model(settings, weights, masked=job.masked, longest=job.max_length)
        set_seed(job.seed)  # the same new adapter behind every backend, whatever loading has drawn
        return trainable(base, job.settings, job.start, job.folder)


def open_backend(name: str) -> Backend:
    """Return a backend by its name in `training.backend`. Call it before anything imports transformers.

    Raises:
        RagFtError: the backend is not installed or cannot train in this process.
    """
    return _BACKENDS[name]()


def _unsloth() -> Backend:
    from rag_ft.training.unsloth_backend import open_unsloth

    return open_unsloth()


_BACKENDS: dict[str, Callable[[], Backend]] = {"transformers": TransformersBackend, "unsloth": _unsloth}
