"""Runs of the tiny recipe that differ in what is trained, and what their weights answer. Holds no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from tiny_model import tiny_run, tiny_settings
from transformers import AutoModelForCausalLM

from rag_ft.training.checkpoints import read_metrics

IDS = torch.tensor([[9, 40, 31, 200, 77, 300, 5, 18]])
Logits: TypeAlias = dict[str, list[torch.Tensor]]
FULL: dict[str, Any] = {"tuning": "full", "lora": None}


def tuned_recipe(folder: Path, weights: Path, data: Path, model: dict[str, Any], **training: Any) -> Path:
    """Write a recipe with changes to `model` (lora: None leaves it out) and `training` beside built data."""
    settings = tiny_settings(weights)
    lora = model.get("lora", {})
    told = {**settings["model"], **model, "lora": {**settings["model"]["lora"], **(lora or {})}}
    if lora is None:
        del told["lora"]
    return tiny_run(folder, weights, data, model=told, training={**settings["training"], **training})


def logits(model: Any) -> torch.Tensor:
    """Return what a model answers in evaluation mode."""
    was = model.training
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    model.train(was)
    return found


def losses(run: Path) -> list[float]:
    """Return the loss of every step."""
    return [row["loss"] for row in read_metrics(run / "training" / "metrics.jsonl") if "loss" in row]


def reloaded(folder: Path, weights: Path) -> torch.Tensor:
    """Logits of what lies in a folder by transformers and PEFT alone, as a user of the adapter loads it."""
    if (folder / "model.safetensors").is_file():
        return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    base = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    return logits(PeftModel.from_pretrained(base, folder))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Assert that logits are equal but for rounding in float32."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
