"""Validation while training: it changes nothing, measures as the evaluation does, and the best checkpoint is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_recipe, tiny_run, tiny_settings
from token_rows import encoder

from data_builders.records import Passage, Pool, PoolPassage
from rag_ft.evaluation.grid import Point
from rag_ft.evaluation.predictions import Prediction
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.checkpoints import checkpoint_step, read_metrics
from rag_ft.training.run import Job
from rag_ft.training.stages import planned_stages
from rag_ft.training.validation import answer_questions, summary, unchanged_randomness, validator, watched_metric

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
STEPS = 12


def data_settings(validation: int) -> dict[str, Any]:
    data: dict[str, Any] = tiny_settings(Path())["data"]
    data["sources"]["world"]["questions"]["validation"] = validation
    data["contexts"]["contexts"]["validation"] = validation
    return data


@pytest.fixture(scope="module")
def watched_data(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built data of a tiny recipe with six validation questions."""
    from data_builders.build import build_data

    folder = tmp_path_factory.mktemp("watched")
    recipe = load_recipe(tiny_recipe(folder, tiny_weights, data=data_settings(6)))
    build_data(recipe.data, recipe.seed, folder / "data", report=lambda line: None)
    return folder / "data"


@pytest.fixture
def make_run(tiny_weights: Path, watched_data: Path) -> Callable[..., Path]:
    """Return a function that makes a folder with a recipe of some validation settings; its data are built."""

    def make(folder: Path, trainer: dict[str, Any] | None = None, **validation: Any) -> Path:
        settings = tiny_settings(tiny_weights)
        settings["model"]["lora"]["dropout"] = 0.1  # so that every random number counts
        training = {**settings["training"], "save_steps": 4, "validation": validation, "trainer": trainer or {}}
        changes = {"data": data_settings(6), "model": settings["model"], "training": training}
        shutil.copytree(watched_data, folder / "runs" / "tiny" / "data")
        return tiny_recipe(folder, tiny_weights, **changes)

    return make


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "adapter_model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def validations(run: Path) -> list[tuple[int, float]]:
    rows = read_metrics(run / "training" / "metrics.jsonl")
    return [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]


def summary_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "training" / "summary.json").read_text()))


def test_watching_changes_no_weight(make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb) -> None:
    runs = {}
    for name, validation in (("often", {"every": 2, "questions": 4, "passages": 2}), ("never", {"every": 1000})):
        recipe = make_run(tmp_path / name, {"gradient_checkpointing_kwargs": {"use_reentrant": False}}, **validation)
        assert run_verb("train", recipe, "training.gradient_checkpointing=true")[0] == 0
        runs[name] = tmp_path / name / "runs" / "tiny"
    assert [step for step, _ in validations(runs["often"])] == [2, 4, 6, 8, 10, 12]
    assert [step for step, _ in validations(runs["never"])] == [STEPS]
    assert same(adapter(runs["often"] / "adapter"), adapter(runs["never"] / "adapter"))
    last = [row for row in read_metrics(runs["often"] / "training" / "metrics.jsonl") if "eval_loss" in row][-1]
    assert {"eval_accuracy", "eval_exact_match", "eval_f1", "eval_abstained"} <= last.keys()


def test_random_states_are_put_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    first = draw()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    with unchanged_randomness():
        assert draw() == first
    assert draw() == first


# what is measured


def pool(number: int, answers: tuple[str, ...]) -> Pool:
    text = f"The town of Aldo{number} was founded in 18{number:02} by Berin."
    found = PoolPassage(f"p{number}", "Aldo", text, True, True, "bm25", 1, 1.0)
    return Pool(f"q{number}", f"When was Aldo{number} founded?", answers, "tiny", "one_hop", (found,))


def job_of(tmp_path: Path, tiny_weights: Path, **changes: Any) -> Job:
    recipe = load_recipe(tiny_recipe(tmp_path, tiny_weights, **changes))
    job: Any = Job.__new__(Job)
    told = {"recipe": recipe, "run": RunFolder(tmp_path / "run"), "encoder": encoder(style="answer")}
    for name, value in told.items():
        object.__setattr__(job, name, value)
    return job


def written(model: Any, job: Job, asked: Pool) -> str:
    """The first line of what transformers alone generates."""
    passages = [Passage(one.id, one.title, one.text) for one in asked.passages]
    prompt = [token for ids in job.encoder.prompt(asked.question, passages) for token in ids]
    ids = torch.tensor([prompt])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0)
    return str(job.encoder.tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True)).strip().split("\n")[0]


@pytest.mark.parametrize("share", [True, False])
def test_answers_are_those_of_plain_generation_and_scored_as_in_the_evaluation(
    tiny_llama: Any, tiny_weights: Path, tmp_path: Path, share: bool
) -> None:
    from accelerate import Accelerator

    Accelerator(cpu=True)
    evaluation = {**tiny_settings(tiny_weights)["evaluation"], "prefix_sharing": share, "max_new_tokens": 6}
    job = job_of(tmp_path, tiny_weights, evaluation=evaluation)
    points: list[Point] = []
    for number in range(100):
        asked = pool(number, ("nowhere to be found",))
        line = written(tiny_llama, job, asked)
        if not line.isascii() or not any(map(str.isalnum, line)):
            continue  # the random model mostly writes scraps of characters
        answers = (line,) if len(points) < 3 else asked.answers  # three of four are right
        points.append(Point(replace(asked, answers=answers), "tuned", "kept", 1, asked.passages))
        if len(points) == 4:
            break
    tiny_llama.train()
    measured = answer_questions(job, points, tiny_llama)
    assert measured["accuracy"] == 0.75
    assert measured["exact_match"] == 0.75
    assert tiny_llama.training
    assert "hallucination_rate" not in measured  # every context holds the gold passage


def said(answer: str | None, *, answerable: bool = True) -> Prediction:
    return Prediction(
        question_id="q",
        group="",
        system="tuned",
        gold="retrieved",
        passages=1,
        shown=("p",),
        answerable=answerable,
        answers=("red",),
        output=answer or "",
        answer=answer,
        abstained=answer is None,
        prompt_tokens=1,
        output_tokens=1,
        seconds=0.0,
        failure=None,
    )


def test_measures_by_hand() -> None:
    rows = [said("red"), said("It is red."), said(None), said("blue", answerable=False), said(None, answerable=False)]
    found = summary(rows)
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["exact_match"] == pytest.approx(1 / 5)
    assert found["f1"] == pytest.approx((1 + 2 * (1 / 3) / (1 / 3 + 1)) / 5)
    assert found["abstained"] == pytest.approx(2 / 5)
    assert found["over_refusal"] == pytest.approx(1 / 3)
    assert found["hallucination_rate"] == pytest.approx(1 / 2)


def staged(tiny_weights: Path, tmp_path: Path, **validation: Any) -> Recipe:
    training = {
        "validation": validation,
        "stages": [{"name": "relevance", "spans": ["relevance"]}, {"name": "all"}],
    }
    model = {**tiny_settings(tiny_weights)["model"], "prompt": {"style": "self_reasoning"}}
    return load_recipe(tiny_recipe(tmp_path, tiny_weights, training=training, model=model, data=data_settings(6)))


def test_a_stage_that_does_not_answer_yet_has_only_its_loss(
    tiny_weights: Path, watched_data: Path, tmp_path: Path
) -> None:
    recipe = staged(tiny_weights, tmp_path, questions=4, passages=2, keep_best="accuracy")
    run = RunFolder(tmp_path / "run")
    shutil.copytree(watched_data, run.data)
    job = job_of(tmp_path, tiny_weights)
    object.__setattr__(job, "recipe", recipe)
    first, second = planned_stages(recipe.training, run.training)
    assert validator(job, first) is None
    assert watched_metric("accuracy", first) == "loss"
    assert validator(job, second) is not None
    assert watched_metric("accuracy", second) == "accuracy"
    assert watched_metric(None, first) is None


# the best checkpoint

HOT = {"lr_scheduler_type": "constant", "save_total_limit": 2}  # a rate at which the loss soon rises again


def test_the_best_checkpoint_is_kept_and_saved(make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb) -> None:
    recipe, run = make_run(tmp_path, HOT, every=2, keep_best="loss"), tmp_path / "runs" / "tiny"
    code, out, _ = run_verb("train", recipe, "training.learning_rate=2", "training.max_steps=10")
    assert code == 0
    watched = validations(run)
    best = min(watched, key=lambda pair: pair[1])
    assert best[0] < 8  # it is neither of the two newest, or this test would see nothing
    assert f"validation at step {best[0]}: loss {best[1]:.3f}" in out
    kept = sorted(checkpoint_step(path) for path in (run / "training" / "checkpoints").glob("checkpoint-*"))
    assert kept == [best[0], 10]
    assert same(adapter(run / "adapter"), adapter(run / f"training/checkpoints/checkpoint-{best[0]}"))
    assert not same(adapter(run / "adapter"), adapter(run / "training/checkpoints/checkpoint-10"))
    said = summary_of(run)
    assert said["kept_step"] == best[0]
    assert said["best"] == {"loss": best[1]}
    assert said["steps"] == 10
    assert said["stopped"] == "max_steps"


def test_patience_stops_and_survives_a_kill(make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb) -> None:
    trainer = {**HOT, "save_total_limit": 20}
    recipe, run = make_run(tmp_path, trainer, every=1, keep_best="loss", patience=3), tmp_path / "runs" / "tiny"
    told = ("train", recipe, "training.learning_rate=0.2")
    assert run_verb(*told)[0] == 0
    first, watched, whole = summary_of(run), validations(run), adapter(run / "adapter")
    assert first["stopped"] == "patience"
    assert first["steps"] == first["kept_step"] + 3 < STEPS
    assert first["kept_step"] == min(watched, key=lambda pair: pair[1])[0]
    checkpoints = run / "training" / "checkpoints"

    def stopped_after(step: int) -> None:
        """Leave what a kill after a checkpoint would leave, then go on; one failure more or less would show."""
        shutil.rmtree(run / "adapter")
        (run / "training" / "summary.json").unlink()
        for path in checkpoints.glob("checkpoint-*"):
            if checkpoint_step(path) > step:
                shutil.rmtree(path)
        code, out, _ = run_verb(*told)
        assert code == 0
        assert f"going on from checkpoint-{step}" in out
        found = summary_of(run)
        assert {key: found[key] for key in ("steps", "kept_step", "stopped", "best")} == {
            key: first[key] for key in ("steps", "kept_step", "stopped", "best")
        }
        assert same(adapter(run / "adapter"), whole)

    stopped_after(first["steps"])  # patience was at its end: not a step more
    stopped_after(first["steps"] - 1)
    moved = tmp_path / "elsewhere"  # checkpoints remember whole paths
    shutil.move(str(tmp_path / "runs"), str(moved / "runs"))
    (moved / "runs" / "tiny" / "adapter").rename(moved / "away")
    assert run_verb(*told, f"runs_dir={moved}/runs")[0] == 0
    assert same(adapter(moved / "runs" / "tiny" / "adapter"), whole)


def test_what_needs_validation_questions_says_so(
    tiny_weights: Path, tmp_path: Path, built_data: Path, refused: Refused
):
    recipe = tiny_run(tmp_path / "work", tiny_weights, built_data)
    message = refused("train", recipe, "training.validation.keep_best=loss")
    assert "set data.sources.world.questions.validation" in message


def test_two_processes_share_the_questions(make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb) -> None:
    validation = {"every": 2, "questions": 3, "passages": 2}
    spread = make_run(tmp_path / "two", **validation)
    told = ["training.max_steps=2", "model.lora.dropout=0", "training.trainer={per_device_eval_batch_size: 2}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "rag_ft.train"]
    done = subprocess.run([*command, str(spread), *told], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = make_run(tmp_path / "one", **validation)
    assert run_verb("train", alone, *told, "training.gradient_accumulation=2")[0] == 0
    one, two = (
        [row for row in read_metrics(tmp_path / name / "runs/tiny/training/metrics.jsonl") if "eval_loss" in row]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 1
    for key in ("eval_loss", "eval_accuracy", "eval_f1", "eval_abstained"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-3)


def test_the_best_of_sharded_weights_is_kept(make_run: Callable[..., Path], tmp_path: Path) -> None:
    from test_devices import spread
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    recipe = make_run(tmp_path, HOT, every=2, questions=3, passages=2, keep_best="loss")
    told = ["training.learning_rate=30", "training.max_steps=6"]
    command = [recipe if part == "{recipe}" else part for part in spread("fsdp2", tmp_path)]
    done = subprocess.run(
        [sys.executable, *map(str, command), *told],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "tiny"
    best = min(validations(run), key=lambda pair: pair[1])[0]
    assert best < 6  # else this test would see nothing
    assert summary_of(run)["kept_step"] == best
    file = tmp_path / "best.pt"
    dcp_to_torch_save(run / f"training/checkpoints/checkpoint-{best}/pytorch_model_fsdp_0", file)
    found = torch.load(file)["model"]
    whole = {name.replace(".default", ""): tensor for name, tensor in found.items()}
    assert same(adapter(run / "adapter"), {name: whole[name] for name in adapter(run / "adapter")})
