"""Systems as the recipe names them: which weights or server answer, under which prompt, and how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from data_builders.errors import RagFtError
from data_builders.servers.settings import EndpointSettings
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.models.adapters import ADAPTER_FILE, saved_weights, weights_hash
from rag_ft.models.load import dtype_name, load_adapter, load_model, load_tokenizer
from rag_ft.models.tuned import CONFIG_FILE, adapter_folder, in_folder, load_tuned
from rag_ft.models.weights import Weights, resolve_model, resolve_weights
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.prompting.contract import check_contract, contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import Style
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder

Origin: TypeAlias = tuple[str, EndpointSettings | None]
"""What has to be loaded for a system: weights as the recipe names them, or a server."""


@dataclass(frozen=True)
class Source:
    """What answers, found but not loaded.

    Attributes:
        label: begins the names of files of predictions.
        recipe: whose `model` section says how weights are loaded.
        weights: base or whole weights; for a server, those whose tokenizer counts tokens.
        kind: whole weights, an adapter on them, what the recipe trained, or a server.
        encoder: writes prompts for it, in the recipe's style.
        folder: of the adapter, or of what was trained; also where the prompt contract lies.
        endpoint: the server.
    """

    label: str
    recipe: Recipe
    weights: Weights
    kind: Literal["whole", "adapter", "tuned", "server"]
    encoder: Encoder
    folder: Path | None = None
    endpoint: EndpointSettings | None = None

    @property
    def identity(self) -> list[Any]:
        """What names the bytes that answer: parts of a fingerprint. A server is known by address and model only."""
        if self.endpoint is not None:
            return ["endpoint", [self.endpoint.base_url, self.endpoint.model]]
        trained = self.folder is not None and self.kind in ("adapter", "tuned")
        return [self.weights.identity, weights_hash(self.folder) if trained and self.folder else None]

    def load(self) -> Any:
        """Load the model, in evaluation mode."""
        settings = self.recipe.model
        if self.kind == "tuned" and self.folder:
            return load_tuned(settings, self.weights, self.folder)
        if self.kind == "adapter" and self.folder:
            return load_adapter(load_model(settings, self.weights), self.folder).requires_grad_(False)
        return load_model(settings, self.weights).eval()

    def for_vllm(self) -> tuple[Weights, Path | None]:
        """Return what vLLM loads: whole weights, and the folder of an adapter on them."""
        if self.folder is None or self.kind == "whole":
            return self.weights, None
        if (self.folder / ADAPTER_FILE).is_file():
            return self.weights, self.folder
        return in_folder(self.weights, self.folder), None

    def styled(self, style: Style | None) -> Encoder:
        """Return the encoder for a style; None is the recipe's own."""
        return self.encoder.styled(style or self.recipe.model.prompt.style)


def origin_of(system: SystemSettings) -> Origin:
    """Return what has to be loaded for a system."""
    return ("" if system.endpoint else system.weights, system.endpoint)


def find_sources(recipe: Recipe, run: RunFolder, systems: Sequence[SystemSettings]) -> dict[Origin, Source]:
    """Find everything that the systems of a recipe load, before any of it has answered for minutes.

    Raises:
        RagFtError: weights are not there, or an adapter was trained under another prompt than it would be asked with.
    """
    base = resolve_model(recipe.model, run.training)
    encoder = _encoder(recipe, base)
    found: dict[Origin, Source] = {}
    for system in systems:
        origin = origin_of(system)
        if origin not in found:
            found[origin] = _source(recipe, run, system, base, encoder)
        _check_prompt(found[origin], system, recipe)
    return found


def _encoder(recipe: Recipe, weights: Weights) -> Encoder:
    return Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, recipe.model.chat_template_kwargs)


def _source(recipe: Recipe, run: RunFolder, system: SystemSettings, base: Weights, encoder: Encoder) -> Source:
    if system.endpoint is not None:
        label = f"server-{_slug(system.endpoint.model)}"
        return Source(label, recipe, base, "server", encoder, endpoint=system.endpoint)
    if system.weights == "base":
        return Source("base", recipe, base, "whole", encoder)
    if system.weights == "tuned":
        if saved_weights(run.adapter) is None:
            raise RagFtError(f"{run.adapter} holds no adapter to evaluate. Train one with `rag-ft train RECIPE`.")
        return Source("tuned", recipe, base, "tuned", encoder, run.adapter)
    label = _slug(Path(system.weights).name)
    with _told_of(system):
        if is_adapter(system.weights):
            return Source(label, recipe, base, "adapter", encoder, adapter_folder(system.weights))
        weights = resolve_weights(system.weights)
    weights = replace(weights, template_revision=base.template_revision)
    folder = Path(system.weights).expanduser()
    own = folder if (folder / CONTRACT_FILE).is_file() else None
    return Source(label, recipe, weights, "whole", _encoder(recipe, weights), own)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("._").lower() or "weights"


def is_adapter(reference: str) -> bool:
    """Tell whether a folder or a Hub id holds an adapter; what is not there holds none."""
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return (folder / CONFIG_FILE).is_file()
    if reference.count("/") != 1 or reference.startswith((".", "/", "~")):
        return False
    from httpx import HTTPError
    from huggingface_hub import constants, file_exists, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if constants.HF_HUB_OFFLINE:
            return isinstance(try_to_load_from_cache(reference, CONFIG_FILE), str)
        return file_exists(reference, CONFIG_FILE)
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError):
        return False


@contextmanager
def _told_of(system: SystemSettings) -> Iterator[None]:
    """Name the system in refusals that speak of the recipe's own weights."""
    try:
        yield
    except RagFtError as error:
        told = re.sub(r"\bmodel\.(weights|adapter)(?==)", "weights", str(error))
        raise RagFtError(f'evaluation.systems, "{system.name}": {told}') from error


def _check_prompt(source: Source, system: SystemSettings, recipe: Recipe) -> None:
    """Refuse to ask what was trained in another way than it was trained."""
    if source.folder is None or recipe.evaluation.allow_prompt_mismatch:
        return
    check_contract(source.folder, contract_of(source.styled(system.style), recipe.model.chat_template_kwargs))


def changes_to_weights(recipe: Recipe) -> list[Any]:
    """Return what makes other numbers of the same files: type, attention, and quantisation and scaling where set."""
    quantisation, scaling = recipe.model.quantisation, recipe.model.rope_scaling
    told = {} if quantisation.kind == "none" else {"quantisation": quantisation.model_dump()}
    more = told | ({} if scaling is None else {"rope_scaling": scaling})
    return [dtype_name(recipe.model.dtype), recipe.model.attention, *([more] if more else [])]
