"""Questions trained per second: several over one shared context against the same questions in rows of their own."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.results_file import write_result
from data_builders.build import build_data
from data_builders.paths import data_paths
from data_builders.records import ContextRow
from data_builders.tables import read_context_rows
from rag_ft.models.load import load_base
from rag_ft.models.lora import lora_config
from rag_ft.models.settings import ModelSettings
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.load import load_recipe
from rag_ft.training.collate import Collator, model_inputs
from rag_ft.training.rows import encode_row
from rag_ft.training.trainer import loss_at_labels, model_dtype

ROWS = 3


def main() -> None:
    """Take forward and backward passes both ways over the same questions and write the ratio."""
    from peft import get_peft_model

    settings = ModelSettings(dtype="bfloat16")
    base, tokenizer = load_base(settings)
    encoder = Encoder(tokenizer, settings.prompt, {})
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(settings.lora)).train()
    rows = longest_rows()
    step(model, encoder, [rows[0]])  # warm-up
    shared = [step(model, encoder, [row]) for row in rows]
    separate = [step(model, encoder, [replace(row, questions=(q,)) for q in row.questions]) for row in rows]
    numbers = {
        "contexts": ROWS,
        "questions in each": [len(row.questions) for row in rows],
        "passages in each": [len(row.passages) for row in rows],
        "shared: questions per second": round(sum(len(row.questions) for row in rows) / sum(shared), 2),
        "separate: questions per second": round(sum(len(row.questions) for row in rows) / sum(separate), 2),
        "speed-up": round(statistics.median(b / a for a, b in zip(shared, separate, strict=True)), 2),
    }
    write_result("shared_contexts", numbers, "python -m benchmarks.shared_contexts")


def longest_rows() -> list[ContextRow]:
    """Return quickstart rows with the most questions."""
    recipe = load_recipe("quickstart")
    with tempfile.TemporaryDirectory() as folder:
        build_data(recipe.data, recipe.seed, Path(folder), report=lambda line: None)
        rows = list(read_context_rows(data_paths(Path(folder)).labels["train"]))
    return sorted(rows, key=lambda row: (-len(row.questions), row.id))[:ROWS]


def step(model: Any, encoder: Encoder, rows: Sequence[ContextRow]) -> float:
    """Return the seconds of forward and backward passes over rows, one row at a time."""
    began = time.perf_counter()
    for row in rows:
        batch = Collator()([encode_row(row, encoder).columns()])
        inputs = model_inputs(batch, model.config._attn_implementation, model_dtype(model))
        with torch.autocast("cpu", torch.bfloat16):
            loss, _, _ = loss_at_labels(model, inputs, None)
        loss.backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
