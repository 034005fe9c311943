"""What a run has trained, found for an export: adapter or all weights, and the base. Writes no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.export.card_facts import is_hub_id, local_name
from rag_ft.models.adapters import ADAPTER_FILE, saved_weights
from rag_ft.models.load import load_config, load_tokenizer
from rag_ft.models.settings import ModelSettings, QuantisationSettings
from rag_ft.models.tuned import in_folder
from rag_ft.models.weights import Weights, resolve_model
from rag_ft.prompting.contract import check_contract, contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.licences import PACKAGED
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
TEMPLATE_FILE = "chat_template.jinja"
_OF_THIS_MACHINE = ("is_local", "local_files_only")  # how the tokenizer was loaded, which transformers writes down


@dataclass(frozen=True)
class Trained:
    """What a run has trained.

    Attributes:
        recipe: of the run.
        run: its folder; `run.adapter` holds what was trained.
        weights: the base weights, at the commit of the training.
        encoder: writes prompts with the tokenizer that was saved in training.
    """

    recipe: Recipe
    run: RunFolder
    weights: Weights
    encoder: Encoder

    @property
    def full(self) -> bool:
        """All weights were trained: there is no adapter."""
        return is_full(self.run)

    @property
    def dtype(self) -> str:
        """The type that whole weights are saved in: the recipe's, else the one the base weights are stored in."""
        if self.full:
            return "float32"  # as training saves them
        told = next((one for one in (self.recipe.export.dtype, self.recipe.model.dtype) if one != "auto"), None)
        if told is not None:
            return told
        stored = load_config(self.recipe.model, self.weights).dtype
        return str(stored).removeprefix("torch.") if stored is not None else "float32"

    def settings(self, dtype: str) -> ModelSettings:
        """Return how the base weights are loaded to be merged: in a type, and never quantised."""
        return self.recipe.model.model_copy(update={"quantisation": QuantisationSettings(), "dtype": dtype})


def check_trained(recipe: Recipe, run: RunFolder) -> None:
    """Refuse a run that has trained nothing yet.

    Raises:
        RagFtError: there is neither adapter nor weights.
    """
    if saved_weights(run.adapter) is None:
        raise RagFtError(
            f"{run.adapter} holds nothing to export: {recipe.name} is not trained. Train it with `rag-ft train RECIPE`."
        )


def is_full(run: RunFolder) -> bool:
    """Tell whether a run has trained all weights instead of an adapter."""
    return not (run.adapter / ADAPTER_FILE).is_file()


def find_trained(recipe: Recipe, run: RunFolder) -> Trained:
    """Find what a run has trained, and load its tokenizer.

    Raises:
        RagFtError: there is nothing, the base weights are gone, or this version of rag-ft asks in another way.
    """
    check_trained(recipe, run)
    weights = resolve_model(recipe.model, run.training)
    own = recipe.model.model_copy(update={"chat_template": None})  # it lies beside the adapter
    kwargs = recipe.model.chat_template_kwargs
    encoder = Encoder(load_tokenizer(own, in_folder(weights, run.adapter)), recipe.model.prompt, kwargs)
    if not recipe.evaluation.allow_prompt_mismatch:
        check_contract(run.adapter, contract_of(encoder, kwargs))
    return Trained(recipe, run, weights, encoder)


def hub_id(reference: str) -> str | None:
    """Return the Hub id of `model.weights`; None where they have none."""
    return PACKAGED.get(reference) or (reference if is_hub_id(reference) else None)


def shown_name(reference: str) -> str:
    """Return the Hub id, or the last part of a path: folders of this machine mean nothing elsewhere."""
    return hub_id(reference) or local_name(reference)


def copy_tokenizer(source: Path, target: Path, kwargs: dict[str, Any]) -> None:
    """Copy tokenizer and chat template, the template with the variables of the recipe written into it.

    Args:
        source: folder of the adapter.
        target: folder of the export.
        kwargs: `model.chat_template_kwargs`.
    """
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
    config = target / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    kept = {name: value for name, value in told.items() if name not in _OF_THIS_MACHINE}
    config.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (target / TEMPLATE_FILE).is_file():
        template = (target / TEMPLATE_FILE).read_text(encoding="utf-8")
        (target / TEMPLATE_FILE).write_text(with_variables(template, kwargs), encoding="utf-8")


def with_variables(template: str, kwargs: dict[str, Any]) -> str:
    """Return a chat template that sets the recipe's variables itself, since servers do not know them.

    Without `enable_thinking: false` for example a server would ask Qwen3 in another way than it was trained.
    """
    told = "".join(f"{{% set {name} = {_literal(value)} %}}" for name, value in kwargs.items())
    return template if template.startswith(told) else told + template


def _literal(value: Any) -> str:
    """Return a value as Jinja writes it."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
