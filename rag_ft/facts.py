"""What a run was, gathered from its folder for report and card: data counts, training, versions. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_ft.models.settings import ModelSettings
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder, read_json

_STEPS = ("source", "clean", "pools", "contexts", "labels")
_TRAINED_ON = ("contexts", "labels")


def data_facts(run: RunFolder) -> dict[str, Any]:
    """Return what the rows were made of: files with their row counts, and every counted outcome of the build.

    A run that is evaluated alone has no rows to train on.
    """
    facts: dict[str, Any] = {}
    cleaned = read_json(run.data / "clean" / "manifest.json", "rag-ft build RECIPE")["inputs"]
    written = ("synthesis",) if any(name.startswith("synthesis/") for name in cleaned) else ()
    for step in (*_STEPS[:1], *written, *_STEPS[1:]):
        if step in _TRAINED_ON and not (run.data / step).exists():
            continue
        manifest = read_json(run.data / step / "manifest.json", "rag-ft build RECIPE")
        rows = {Path(name).stem: output["rows"] for name, output in manifest["outputs"].items()}
        facts |= {f"{step} {name}": count for name, count in rows.items() if count}
        facts |= {name: value for name, value in manifest["counts"].items() if isinstance(value, int)}
    return facts


def training_facts(recipe: Recipe, run: RunFolder) -> dict[str, Any]:
    """Return the settings that shaped the adapter and how training went; without a training, nothing."""
    if not (run.training / "summary.json").is_file():
        return {}
    summary = read_json(run.training / "summary.json", "rag-ft train RECIPE --restart")
    training = recipe.training
    packed = training.batching == "packed"
    own = training.batch_size * training.gradient_accumulation
    return {
        "adapter": _adapter(recipe.model),
        "trainable parameters": summary["trainable_parameters"],
        "bins of rows per step" if packed else "rows per step": summary.get("rows_per_step", own),
        **_phases(summary, training.learning_rate),
        "steps": summary["steps"],
        "last loss": round(summary["loss"], 3),
        "minutes": round(summary["seconds"] / 60, 1),
        "peak memory (GB)": summary["peak_memory_gb"],
    }


def _phases(summary: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """Return learning rate and rows of the training, or of each of its stages with the stage's steps."""
    stages = summary.get("stages")
    if not stages:
        return {"learning rate": summary.get("learning_rate", learning_rate), **_rows(summary)}
    return {f"stage {each['name']}": {**_phases(each, learning_rate), "steps": each["steps"]} for each in stages}


def _rows(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return how many rows of each kind there were; kinds that were not trained on are left out."""
    names = {"contexts": "rows", "questions": "questions", "contexts asked for the answer alone": "direct_rows"}
    names["chat rows"] = "chat_rows"
    return {name: summary[key] for name, key in names.items() if summary.get(key)}


def _adapter(model: ModelSettings) -> str:
    """Say what was trained, in one line without paths."""
    if model.tuning == "full":
        return "none, all weights were trained"
    lora, bits = model.lora, model.quantisation.kind
    on = [] if bits == "none" else [f"on {bits} weights"]
    if model.adapter is not None:
        return ", ".join([f"LoRA, gone on from {Path(model.adapter).name}", *on])
    kind = "DoRA" if lora.dora else "LoRA"
    modules = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    more = {
        "rank-stabilised": lora.rank_stabilised,
        f"PiSSA start (saved with rank {2 * lora.rank})": lora.initialisation == "pissa",
        "LoftQ start": lora.initialisation == "loftq",
        "embeddings in full": lora.train_embeddings,
    }
    chosen = [name for name, yes in more.items() if yes]
    return ", ".join([kind, f"rank {lora.rank}", f"alpha {lora.alpha}", modules, *chosen, *on])


def environment_facts(run: RunFolder) -> Mapping[str, str]:
    """Return the package versions the run was last touched with."""
    versions: Mapping[str, str] = read_json(run.root / "environment.json", "rag-ft build RECIPE")["packages"]
    return versions


def weights_revision(run: RunFolder) -> str | None:
    """Return the Hub commit of the weights the adapter was trained on; None where they came from elsewhere."""
    if not (run.training / "summary.json").is_file():
        return None
    revision: str | None = read_json(run.training / "summary.json", "rag-ft train RECIPE --restart").get("revision")
    return revision
