"""The run folder: where everything of a run lies, and the guard against mixing two recipes in one folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from data_builders.files import atomic_path, write_json
from rag_ft.recipe.settings import Recipe

_TRAINED_SECTIONS = ("seed", "data", "model", "training")
# Changing these changes neither rows nor weights, so a trained run goes on.
_HARMLESS = {
    "data.executor",
    "data.*.endpoint.api_key_env",
    "data.*.endpoint.base_url",
    "data.*.endpoint.budget.*",
    "data.*.endpoint.concurrency",
    "data.*.endpoint.timeout",
    "data.*.endpoint.*_price",
    "data.labels.batch_size",
    "data.processes",
    "data.sources.*.questions.test",
    "data.sources.*.questions.validation",
    "model.attention",
    "training.gradient_checkpointing",
    "training.report_to",
    "training.resume",
    "training.save_steps",
    "training.trainer.dataloader_num_workers",
    "training.trainer.dataloader_p*",
    "training.trainer.disable_tqdm",
    "training.trainer.hub_private_repo",
    "training.trainer.log*",
    "training.trainer.per_device_eval_batch_size",
    "training.trainer.project",
    "training.trainer.save_total_limit",
    "training.trainer.trackio_*",
}
_WATCHING = "training.validation."  # harmless too where it chooses no checkpoint
_PACKAGES = (
    "rag-ft",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "bm25s",
    "bitsandbytes",
    "numpy",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths below `runs/<name>/`."""

    root: Path

    @property
    def data(self) -> Path:
        """Steps of the data build, one folder each."""
        return self.root / "data"

    @property
    def training(self) -> Path:
        """Checkpoints, metrics.jsonl and the training summary."""
        return self.root / "training"

    @property
    def adapter(self) -> Path:
        """The trained adapter with prompt contract and card."""
        return self.root / "adapter"

    @property
    def evaluation(self) -> Path:
        """Predictions, scores.json, examples.json."""
        return self.root / "evaluation"

    @property
    def report(self) -> Path:
        """report.html, report.md, figures."""
        return self.root / "report"


def run_folder(recipe: Recipe) -> RunFolder:
    """Return where the recipe's run lies, touching nothing."""
    return RunFolder(Path(recipe.runs_dir) / recipe.name)


def open_run(recipe: Recipe, *, restart: bool = False) -> RunFolder:
    """Make or reopen the recipe's run folder and record recipe and environment in it.

    Evaluation and export settings may change freely, and so may all others until training has begun. After that a
    different recipe is refused, since checkpoints and adapter would no longer belong to it.

    Raises:
        RagFtError: training of another recipe has begun in the folder, or it cannot be written.
    """
    run = run_folder(recipe)
    recorded = run.root / "recipe.resolved.yaml"
    now = recipe.model_dump(mode="json")
    begun = run.adapter.is_dir() or any(run.training.rglob("checkpoints/checkpoint-*"))
    if restart:
        for folder in (run.training, run.adapter, run.evaluation, run.report):
            shutil.rmtree(folder, ignore_errors=True)
    elif begun:
        _refuse_other_recipe(run, _read_recipe(recorded), now)
    with atomic_path(recorded) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False, allow_unicode=True), encoding="utf-8")
    write_json(run.root / "environment.json", environment())
    return run


def _refuse_other_recipe(run: RunFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = differences(trained_settings(before), trained_settings(now))
    if changed:
        raise RagFtError(
            f"{run.root} was trained from another recipe ({changed}). "
            "Set another name=NAME, or repeat the command with --restart to delete that training and begin anew."
        )


def trained_settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what shapes rows and weights: dotted keys to leaves, those left out that may change in mid-training.

    Args:
        recipe: as `Recipe.model_dump(mode="json")` gives it.
    """
    flat = flatten({key: recipe.get(key) for key in _TRAINED_SECTIONS})
    return {key: leaf for key, leaf in flat.items() if leaf != {} and not _harmless(key)}


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the settings that differ, five at most, with both values; empty where none does."""
    chooses = any(settings.get(f"{_WATCHING}keep_best") for settings in (before, now))
    keys = [key for key in sorted(before.keys() | now.keys()) if chooses or not key.startswith(_WATCHING)]
    changed = [key for key in keys if before.get(key) != now.get(key)]
    shown = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:5])
    return f"{shown} and {len(changed) - 5} more" if len(changed) > 5 else shown


def _harmless(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in _HARMLESS)


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        found = None
    return found if isinstance(found, dict) else {}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one of dotted keys to leaves; lists are leaves."""
    if not isinstance(value, dict) or not value:
        return {prefix.rstrip("."): value}
    return {key: leaf for name, part in value.items() for key, leaf in flatten(part, f"{prefix}{name}.").items()}


def environment() -> dict[str, Any]:
    """Describe the machine and the versions of what matters; holds no secret and no user name."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file of the run folder.

    Raises:
        RagFtError: the file is missing or damaged; `remedy` names the command that writes it again.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RagFtError(f"{path} does not exist. Write it with `{remedy}`.") from error
    except (OSError, ValueError) as error:
        raise RagFtError(f"{path} is damaged ({error}). Write it again with `{remedy}`.") from error
