"""Peak memory and time of a few training steps on the CPU against what rag-ft estimates before them.

Each setting trains in processes of its own, so that its peak is its own: once with every tensor in pages of its own,
which shows what tensors take, and once with the heap as it is, which shows what holes take besides. What is compared is
the growth since before the model was loaded; libraries are there before.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result

LABELLED = 64
STEPS = 3
LIBRARIES = 0.7  # GB that Python with torch and transformers has before a model is loaded
SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA, bfloat16, 1 row of 512": {},
    "LoRA, bfloat16, 1 row of 1024": {"tokens": 1024},
    "LoRA, bfloat16, 4 rows of 512": {"rows": 4},
    "LoRA, bfloat16, 1 row of 1024, checkpointing": {"tokens": 1024, "recompute": True},
    "LoRA, float32, 1 row of 512": {"dtype": "float32"},
    "LoRA, float32, 1 row of 1024, checkpointing": {"dtype": "float32", "tokens": 1024, "recompute": True},
    "full, bfloat16 products, 1 row of 512": {"tuning": "full"},
    "full, float32, 1 row of 512, checkpointing": {"tuning": "full", "dtype": "float32", "recompute": True},
}


def main() -> None:
    """Run every setting in processes of its own and write the table."""
    table = [{"setting": name, **both(told)} for name, told in SETTINGS.items()]
    errors = [row["tensors: estimate GB"] / row["tensors: measured GB"] - 1 for row in table]
    whole = [row["with heap: estimate GB"] / row["with heap: measured GB"] for row in table]
    numbers = {
        "settings": table,
        "tensors: mean absolute error": round(statistics.mean(map(abs, errors)), 3),
        "tensors: largest error": round(max(errors, key=abs), 3),
        "with heap: estimate / measured": [round(min(whole), 2), round(max(whole), 2)],
        "efficiency, median": round(statistics.median(row["efficiency"] for row in table), 2),
    }
    write_result("memory_estimate", numbers, "python -m benchmarks.memory_estimate")


def both(told: dict[str, Any]) -> dict[str, Any]:
    """Run one setting with every tensor in pages of its own, and with the heap as it is."""
    own, heap = child(told, MALLOC_MMAP_THRESHOLD_="65536"), child(told)
    return {
        "tensors: measured GB": own["measured"],
        "tensors: estimate GB": own["tensors"],
        "with heap: measured GB": heap["measured"],
        "with heap: estimate GB": heap["estimate"],
        "of that activations": heap["activations"],
        "seconds a step": heap["seconds"],
        "efficiency": heap["efficiency"],
    }


def child(told: dict[str, Any], **environment: str) -> dict[str, Any]:
    """Run one setting in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory_estimate", json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(rows: int = 1, tokens: int = 512, recompute: bool = False, **model: Any) -> dict[str, Any]:
    """Train a few steps; return GB measured and estimated, and the efficiency of the time estimate."""
    from rag_ft.models.load import load_config, load_model
    from rag_ft.models.lora import trainable
    from rag_ft.models.settings import ModelSettings
    from rag_ft.models.tuned import to_load
    from rag_ft.models.weights import resolve_weights
    from rag_ft.training.memory_estimate import Demand, Rows, memory_estimate
    from rag_ft.training.model_shape import model_shape
    from rag_ft.training.places import place_at_hand
    from rag_ft.training.settings import TrainingSettings
    from rag_ft.training.time_estimate import product_rate, row_operations

    settings = ModelSettings.model_validate({"dtype": "bfloat16", **model})
    training = TrainingSettings(batch_size=rows, gradient_checkpointing=recompute)
    weights = resolve_weights(settings.weights)
    shape = model_shape(settings, load_config(settings, weights))
    length = Rows(longest=tokens, labelled=LABELLED, all_tokens=rows * tokens, several=False)
    demand = Demand(settings, training, shape, length, replace(place_at_hand(), processes=1))
    estimate, rate = memory_estimate(demand), product_rate(demand)
    before = now()
    loaded = trainable(load_model(*to_load(settings, weights, None)), settings, None, Path())
    seconds = train(loaded, rows, tokens, demand)
    operations = rows * row_operations(demand, tokens, LABELLED)
    return {
        "measured": round(peak() - before, 2),
        "tensors": round(estimate.total - estimate.allowance, 2),
        "estimate": round(estimate.total - LIBRARIES, 2),
        "activations": round(estimate.activations, 2),
        "seconds": round(seconds, 2),
        "efficiency": round(operations / rate / seconds, 2),
    }


def train(model: Any, rows: int, tokens: int, demand: Any) -> float:
    """Take optimizer steps as the trainer does; return the seconds of one, the first left out."""
    import torch

    from rag_ft.training.memory_estimate import compute_dtype, recomputes
    from rag_ft.training.progress import MemoryTrim
    from rag_ft.training.trainer import loss_at_labels

    model.train()
    if recomputes(demand):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    compute = getattr(torch, compute_dtype(demand))
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = torch.randint(1000, 20000, (rows, tokens))
    labels = torch.full_like(ids, -100)
    labels[:, -LABELLED:] = ids[:, -LABELLED:]
    spent, trim = [], MemoryTrim()
    for _step in range(STEPS):
        began = time.perf_counter()
        with torch.autocast("cpu", compute, enabled=compute != torch.float32):
            loss, _outputs, _accuracy = loss_at_labels(model, {"input_ids": ids, "labels": labels}, None)
        loss.backward()
        del _outputs
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        spent.append(time.perf_counter() - began)
        trim.on_step_end(None, None, None)
    return statistics.median(spent[1:])


def peak() -> float:
    """Return the most memory this process has had so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def now() -> float:
    """Return the memory of this process, in GB."""
    from rag_ft.memory import resident_bytes

    return resident_bytes() / 1e9


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        main()
