"""Whether sharing contexts learns as well: validation loss after the same number of questions, over three seeds.

Both ways see the same number of questions a step, of the same world. One way ten questions share a context of ten
passages; the other way every question has a context of its own. Both are judged on the same validation rows, which
have one question each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.results_file import write_result
from data_builders.build import build_data
from data_builders.paths import data_paths
from rag_ft.models.load import load_adapter, load_model, load_tokenizer
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import open_run
from rag_ft.training.collate import Collator, model_inputs
from rag_ft.training.dataset import token_rows
from rag_ft.training.rows import IGNORED, TokenRow
from rag_ft.training.run import train
from rag_ft.training.trainer import loss_at_labels

QUESTIONS = 10
WAYS = {"shared": (QUESTIONS, 1), "separate": (1, QUESTIONS)}  # questions per context, contexts per step
SEEDS = (1, 2, 3)


def main() -> None:
    """Train both ways with each seed and write the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of ten questions each")
    parser.add_argument("--validation", type=int, default=40, help="validation questions")
    steps, held_out = vars(parser.parse_args()).values()
    numbers: dict[str, Any] = {"steps": steps, "questions a step": QUESTIONS, "validation rows": held_out}
    with tempfile.TemporaryDirectory() as folder:
        watched = validation_rows(Path(folder), held_out)
        numbers["untrained: loss"] = round(loss_over(watched, recipe(Path(folder), "separate", 1, steps), None), 4)
        for way in WAYS:
            losses = [trained(Path(folder), way, seed, steps, watched) for seed in SEEDS]
            numbers |= {
                f"{way}: loss of each seed": [round(loss, 4) for loss in losses],
                f"{way}: mean loss": round(statistics.mean(losses), 4),
                f"{way}: standard deviation": round(statistics.stdev(losses), 4),
            }
    gap = numbers["shared: mean loss"] - numbers["separate: mean loss"]
    numbers["difference of the means"] = round(gap, 4)
    write_result("shared_learning", numbers, f"python -m benchmarks.shared_learning --steps {steps}")


def recipe(folder: Path, way: str, seed: int, steps: int, held_out: int = 0) -> Recipe:
    """Return the recipe of one training."""
    asked, contexts = WAYS[way]
    return load_recipe(
        "quickstart",
        [
            f"name={way}-{seed}",
            f"seed={seed}",
            f"runs_dir={folder}",
            "data.sources.invented_world.two_hop_share=0",
            "data.sources.invented_world.words=[40, 40]",
            f"data.sources.invented_world.questions.train={max(1500, 4 * steps * QUESTIONS)}",
            f"data.sources.invented_world.questions.validation={held_out}",
            "data.contexts.passages={kind: fixed, count: 10}",
            f"data.contexts.questions_per_context={asked}",
            f"data.contexts.contexts={{train: {steps * contexts + contexts}}}",
            f"training.gradient_accumulation={contexts}",
            f"training.max_steps={steps}",
            "training.save_steps=1000",
            "training.learning_rate=1e-3",
        ],
    )


def validation_rows(folder: Path, held_out: int) -> list[TokenRow]:
    """Return rows with one question each, of a world that no training sees."""
    told = recipe(folder, "separate", 99, 1, held_out)
    build_data(told.data, told.seed, folder / "validation", report=lambda line: None)
    path = data_paths(folder / "validation").labels["validation"]
    return token_rows(path, encoder(told), told.training.max_length, SPAN_NAMES).tokens[:held_out]


def encoder(told: Recipe) -> Encoder:
    """Return the encoder of a recipe."""
    weights = resolve_weights(told.model.weights)
    return Encoder(load_tokenizer(told.model, weights), told.model.prompt, told.model.chat_template_kwargs)


def trained(folder: Path, way: str, seed: int, steps: int, watched: list[TokenRow]) -> float:
    """Train one way; return the validation loss."""
    told = recipe(folder, way, seed, steps)
    run = open_run(told)
    build_data(told.data, told.seed, run.data, report=lambda line: None)
    train(told, run, print)
    return loss_over(watched, told, run.adapter)


def loss_over(rows: list[TokenRow], told: Recipe, adapter: Path | None) -> float:
    """Return the mean loss over all tokens that carry loss."""
    model = load_model(told.model, resolve_weights(told.model.weights))
    model = load_adapter(model, adapter) if adapter else model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            trained_tokens = sum(label != IGNORED for label in row.labels)
            batch = Collator()([row.columns()])
            batch.pop("row_numbers", None)
            loss, _, _ = loss_at_labels(model, model_inputs(batch, None, None), None)
            total, count = total + float(loss) * trained_tokens, count + trained_tokens
    return total / count


if __name__ == "__main__":
    main()
