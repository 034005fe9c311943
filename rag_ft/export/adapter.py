"""`export adapter`: the adapter folder fit for use elsewhere, and nothing else of the run. Loads no model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import write_json
from rag_ft.export.folder import check_room, record, written_whole
from rag_ft.export.trained import check_trained, copy_tokenizer, hub_id, is_full, shown_name
from rag_ft.export.vllm import vllm_lines
from rag_ft.facts import weights_revision
from rag_ft.models.adapters import ADAPTER_FILE, verify_adapter
from rag_ft.models.tuned import CONFIG_FILE, adapter_config
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder

_COPIED = (ADAPTER_FILE, CONTRACT_FILE)
_CARD = ("README.md", "accuracy.png")
_OURS = "\n- rag-ft\n"  # a tag of our cards; PEFT writes a form to be filled in, with a path of this machine


def export_adapter(recipe: Recipe, run: RunFolder, folder: Path) -> list[str]:
    """Copy the adapter of a run to a folder; return what there is to say about it.

    Raises:
        RagFtError: there is no adapter, it is damaged, or the disk is too full.
    """
    check_trained(recipe, run)
    if is_full(run):
        raise RagFtError(
            f"{recipe.name} was trained with model.tuning=full, so there is no adapter: all weights were trained. "
            "Take `rag-ft export RECIPE merged`."
        )
    source = run.adapter
    lines = [check_room(folder, sum(path.stat().st_size for path in source.iterdir()), "the adapter")]
    config = adapter_config(source) | _base(recipe, run)
    with written_whole(folder) as temporary:
        for name in (*_COPIED, *(_CARD if has_card(source) else ())):
            if (source / name).is_file():
                shutil.copyfile(source / name, temporary / name)
        copy_tokenizer(source, temporary, recipe.model.chat_template_kwargs)
        write_json(temporary / CONFIG_FILE, config)
        lines.append(verify_adapter(temporary, _shapes(source)))
        record(temporary, {"form": "adapter", "name": recipe.name, "base": _base(recipe, run)})
    if not has_card(source):
        lines.append("note: it has no model card yet. Write one with `rag-ft report RECIPE`, and export again.")
    if hub_id(recipe.model.weights) is None:
        lines.append(
            f"note: the base weights {shown_name(recipe.model.weights)} have no Hub id, so whoever uses the adapter "
            "must name them."
        )
    return [*lines, f"adapter: {folder}", *vllm_lines(recipe, config, folder)]


def has_card(folder: Path) -> bool:
    """Tell whether a folder holds a model card of ours."""
    card = folder / "README.md"
    return card.is_file() and _OURS in card.read_text(encoding="utf-8", errors="replace")


def _base(recipe: Recipe, run: RunFolder) -> dict[str, Any]:
    """Return what an adapter's configuration says of its base: a Hub id and its commit, never a path."""
    weights = recipe.model.weights
    revision = weights_revision(run) if hub_id(weights) == weights else None
    return {"base_model_name_or_path": shown_name(weights), "revision": revision}


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(folder / ADAPTER_FILE, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
