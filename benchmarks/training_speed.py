"""Rows trained per second: `rag-ft train`'s trainer against a plain TRL script, same rows, same settings, one process.

TRL 1.15 computes its loss in a Triton kernel, which a CPU lacks. So the plain script is an SFTTrainer with TRL's own
collator, sampler and defaults, and with logits only where a label follows, which is what TRL's kernel does on a GPU:

- "plain TRL": the model as transformers loads it, with its default attention: what a script gets;
- "plain TRL, our attention": what is left between the two is what our trainer, batches and callbacks cost;
- "plain TRL, model's loss": over the logits of every position, which is what a script without Triton really gets.

    python -m benchmarks.training_speed             # writes benchmarks/results/training_speed.json
    python -m benchmarks.training_speed --questions nq.jsonl.gz   # rows of real questions with passages, kind: jsonl
    python -m benchmarks.training_speed --smoke     # a minute: few short rows, prints only
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from benchmarks.results_file import write_result
from data_builders.build import build_data
from data_builders.paths import data_paths
from rag_ft.memory import give_back
from rag_ft.models.load import dtype_name, load_tokenizer
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.recipe.load import load_recipe
from rag_ft.runs import run_folder
from rag_ft.training.assemble import make_trainer
from rag_ft.training.backends import ModelJob, open_backend
from rag_ft.training.dataset import token_rows
from rag_ft.training.rows import IGNORED, TokenRow
from rag_ft.training.run import Job
from rag_ft.training.stages import planned_stages
from rag_ft.training.trainer import TrainerFacts, sft_config


class ModelLoss(SFTTrainer):
    """A plain SFTTrainer with the loss of the model."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return what transformers' Trainer does."""
        return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)


class LeanLoss(SFTTrainer):
    """A plain SFTTrainer with logits at labels only."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the tokens with a label."""
        from torch.nn.functional import cross_entropy

        labels = inputs.pop("labels")[:, 1:]
        keep = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits.float().flatten(0, 1)
        total = cross_entropy(logits, labels[:, keep].flatten(), ignore_index=IGNORED, reduction="sum")
        return total / num_items_in_batch


def main() -> None:
    """Measure overhead at one row a time, and grouping at four rows of mixed lengths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=48, help="training rows of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the sides take turns")
    parser.add_argument("--most", type=int, default=12, help="most passages of a row")
    parser.add_argument("--questions", help="JSON Lines with questions and passages; else the invented world")
    parser.add_argument("--smoke", action="store_true", help="few rows of up to 2 passages, one round, no results file")
    told = parser.parse_args()
    count, rounds, most = (8, 1, 2) if told.smoke else (told.rows, told.rounds, told.most)
    with tempfile.TemporaryDirectory() as folder:
        job, rows = prepared(Path(folder), count, most, told.questions)
        numbers = {
            "rows of": Path(told.questions).name if told.questions else "the invented world",
            "model": job.weights.reference,
            "dtype": dtype_name(job.recipe.model.dtype),
            "rows of a round": len(rows),
            "rounds": rounds,
            "tokens of a row": quantiles([len(row.input_ids) for row in rows]),
            "batch 1 x accumulation 4": compared(job, rows, rounds, batch=1, accumulation=4),
            "batch 4, random or grouped": compared(job, rows, rounds, batch=4, accumulation=1),
        }
    if told.smoke:
        print(numbers)
    else:
        name = Path(told.questions).name if told.questions else ""
        command = f"python -m benchmarks.training_speed --rows {told.rows} --rounds {told.rounds} --most {told.most}"
        write_result("training_speed", numbers, f"{command} --questions {name}" if name else command)


def prepared(folder: Path, count: int, most: int, questions: str | None) -> tuple[Job, list[TokenRow]]:
    """Return what a training needs and `count` rows of 1 to `most` passages."""
    world = f"{{kind: invented_world, questions: {{train: {4 * count}, validation: 0, test: 80}}, two_hop_share: 0}}"
    real = f"{{kind: jsonl, path: {{train: {questions}}}}}"
    overrides = [
        f"data.contexts.passages={{kind: range, low: 1, high: {most}}}",
        "data.contexts.questions_per_context=1",
        f"data.contexts.contexts={{train: {2 * count}}}",
        f"data.sources={{questions: {real if questions else world}}}",
        f"data.sample={{train: {4 * count}}}",
        f"runs_dir={folder}",
    ]
    recipe = load_recipe("quickstart", overrides)
    run = run_folder(recipe)
    build_data(recipe.data, recipe.seed, run.data, report=lambda line: None)
    weights = resolve_weights(recipe.model.weights)
    encoder = Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, {})
    rows = token_rows(data_paths(run.data).labels["train"], encoder, 8192, SPAN_NAMES).tokens[:count]
    return Job(recipe, run, open_backend("transformers"), weights, encoder, lambda line: None), rows


def compared(job: Job, rows: Sequence[TokenRow], rounds: int, batch: int, accumulation: int) -> dict[str, Any]:
    """Return rows per second of each side, and ratios as medians over rounds, in which the sides take turns."""
    told = {"batch_size": batch, "gradient_accumulation": accumulation, "epochs": 1, "save_steps": 10**6}
    told |= {"trainer": {"save_strategy": "no", "disable_tqdm": True}}
    training = type(job.recipe.training).model_validate(job.recipe.training.model_dump() | told)
    job = Job(**vars(job) | {"recipe": job.recipe.model_copy(update={"training": training})})
    plainly = job.recipe.model.model_copy(update={"attention": "sdpa"})
    usual = Job(**vars(job) | {"recipe": job.recipe.model_copy(update={"model": plainly})})
    sides: dict[str, Callable[[], Any]] = {
        "rag-ft": lambda: ours(job, rows),
        "plain TRL": lambda: plain(LeanLoss, usual, rows),
        "plain TRL, our attention": lambda: plain(LeanLoss, job, rows),
    }
    if batch == 1:  # the logits of four long rows do not fit into 24 GB
        sides["plain TRL, model's loss"] = lambda: plain(ModelLoss, usual, rows)
    seconds(sides["rag-ft"], warm_up=True)
    taken = []
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        taken.append({name: seconds(sides[name]) for name in order})
    rates = {name: round(len(rows) / statistics.median(one[name] for one in taken), 3) for name in sides}
    ratios = {
        f"rag-ft / {name}": round(statistics.median(one[name] / one["rag-ft"] for one in taken), 3)
        for name in list(sides)[1:]
    }
    return {"rows per second": rates, "ratio": ratios}


def seconds(make: Callable[[], Any], warm_up: bool = False) -> float:
    """Return the seconds of an epoch, without loading."""
    trainer = make()
    if warm_up:
        trainer.args.max_steps = 1
    began = time.perf_counter()
    trainer.train()
    taken = time.perf_counter() - began
    del trainer
    give_back()
    return taken


def model_of(job: Job) -> Any:
    """Return fresh weights with a fresh adapter."""
    model = job.recipe.model
    return job.backend.model(ModelJob(model, job.weights, None, job.run.training, 8192, False, False, job.recipe.seed))


def ours(job: Job, rows: Sequence[TokenRow]) -> Any:
    """Return the trainer of `rag-ft train`, with its callbacks."""
    job.run.training.mkdir(parents=True, exist_ok=True)
    stage = planned_stages(job.recipe.training, job.run.training)[0]
    return make_trainer(job, stage, model_of(job), (rows, []))


def plain(kind: type[SFTTrainer], job: Job, rows: Sequence[TokenRow]) -> Any:
    """Return the trainer of a script that knows nothing of ours but the settings."""
    import datasets

    stage = planned_stages(job.recipe.training, job.run.training)[0]
    facts = TrainerFacts(job.recipe.name, job.recipe.seed, dtype_name(job.recipe.model.dtype), False, False)
    trainer = kind(
        model=model_of(job),
        args=sft_config(job.recipe.training, stage, facts),
        train_dataset=datasets.Dataset.from_list(
            [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in rows]
        ),
        data_collator=DataCollatorForLanguageModeling(pad_token_id=job.encoder.tokenizer.pad_token_id),
        processing_class=job.encoder.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """Return least, median and most."""
    return {"least": min(lengths), "median": int(statistics.median(lengths)), "most": max(lengths)}


if __name__ == "__main__":
    main()
