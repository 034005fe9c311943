"""What transformers raises on what it cannot load, in one sentence. Loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from data_builders.errors import RagFtError


@contextmanager
def loading(reference: str, what: str, setting: str = "model.weights") -> Iterator[None]:
    """Turn what transformers raises while it loads `what` from a `setting`'s `reference` into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RagFtError(
            f"{setting}={reference}: transformers cannot load the {what} ({reason}). Set {setting} to "
            "a complete model, or change the setting below model that the message names."
        ) from error
