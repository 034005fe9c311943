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
from rag_ft.training.rows import IGNORED, encode_row
from rag_ft.training.trainer import loss_at_labels, model_dtype

ROWS, PASSAGES, QUESTIONS = 3, 10, 10


def main() -> None:
    """Take forward and backward passes both ways over the same questions and write the ratio."""
    from peft import get_peft_model

    settings = ModelSettings(dtype="bfloat16")
    base, tokenizer = load_base(settings)
    encoder = Encoder(tokenizer, settings.prompt, {})
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(settings.lora)).train()
    rows = rows_to_share()
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
        "relative difference of gradients in float32": difference_of_gradients(rows[0], torch.float32),
        "relative difference of gradients in float64": difference_of_gradients(rows[0], torch.float64),
    }
    write_result("shared_contexts", numbers, "python -m benchmarks.shared_contexts")


def rows_to_share() -> list[ContextRow]:
    """Return contexts of the quickstart's world with as many passages and questions as asked."""
    changes = [
        f"data.contexts.passages={{kind: fixed, count: {PASSAGES}}}",
        f"data.contexts.questions_per_context={QUESTIONS}",
        f"data.contexts.contexts={{train: {10 * ROWS}}}",
    ]
    recipe = load_recipe("quickstart", changes)
    with tempfile.TemporaryDirectory() as folder:
        build_data(recipe.data, recipe.seed, Path(folder), report=lambda line: None)
        rows = list(read_context_rows(data_paths(Path(folder)).labels["train"]))
    return [row for row in rows if (len(row.passages), len(row.questions)) == (PASSAGES, QUESTIONS)][:ROWS]


def difference_of_gradients(row: ContextRow, dtype: torch.dtype) -> float:
    """Return |g - h| / |h| of a whole adapter's gradient, g by the shared row and h by rows of their own.

    The adapter is as far from its start as after some training; what is left in float32 and not in float64 is rounding
    (rotary positions are computed in float32 either way).
    """
    from peft import get_peft_model

    settings = ModelSettings(dtype="float32")
    base, tokenizer = load_base(settings)
    encoder = Encoder(tokenizer, settings.prompt, {})
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(settings.lora)).to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.005)  # at zero every lora_A would have no gradient
    apart = [replace(row, questions=(question,)) for question in row.questions]
    together, alone = (gradient(model, encoder, rows) for rows in ([row], apart))
    return float((together - alone).norm() / alone.norm())


def gradient(model: Any, encoder: Encoder, rows: Sequence[ContextRow]) -> torch.Tensor:
    """Return the gradient of the mean loss over all tokens of all rows, as one vector."""
    encoded = [encode_row(row, encoder) for row in rows]
    count = sum(label != IGNORED for row in encoded for label in row.labels)
    model.zero_grad()
    for row in encoded:
        inputs = model_inputs(Collator()([row.columns()]), model.config._attn_implementation, model_dtype(model))
        loss_at_labels(model, inputs, count)[0].backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


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
