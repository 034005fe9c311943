"""`training.resume`: never, a path, another recipe, other rows; and what stops a training with a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_run, tiny_settings

from rag_ft.training.checkpoints import COMPLETE, ORIGIN, checkpoint_step, read_metrics

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def make_run(tiny_weights: Path, built_data: Path) -> Callable[..., Path]:
    """Return a function that makes a folder with the tiny recipe; its data are built."""

    def make(folder: Path, **training: Any) -> Path:
        told = {**tiny_settings(tiny_weights)["training"], "max_steps": 6, **training}
        return tiny_run(folder, tiny_weights, built_data, training=told)

    return make


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(run / "adapter" / "adapter_model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps(folder: Path) -> list[int]:
    return sorted(checkpoint_step(path) for path in folder.glob("checkpoint-*"))


def back_to(run: Path, step: int) -> None:
    """Leave what a kill after a checkpoint would leave."""
    shutil.rmtree(run / "adapter")
    (run / "training" / "summary.json").unlink()
    for path in (run / "training" / "checkpoints").glob("checkpoint-*"):
        if checkpoint_step(path) > step:
            shutil.rmtree(path)


def test_a_finished_stage_is_trained_no_further_where_only_its_adapter_is_missing(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    assert run_verb("train", recipe)[0] == 0
    before, metrics = adapter(run), read_metrics(run / "training" / "metrics.jsonl")
    back_to(run, 6)
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert "going on from checkpoint-6" in out
    assert same(adapter(run), before)
    losses = [row["loss"] for row in read_metrics(run / "training" / "metrics.jsonl") if "loss" in row]
    assert losses == [row["loss"] for row in metrics if "loss" in row]


def test_never_begins_anew_and_keeps_what_was_there(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    assert run_verb("train", recipe)[0] == 0
    before = adapter(run)
    back_to(run, 4)
    code, out, _ = run_verb("train", recipe, "training.resume=never")
    assert code == 0
    assert "going on" not in out
    assert f"1 checkpoints up to step 4 are kept aside in {run}/training/checkpoints-1" in out
    assert steps(run / "training" / "checkpoints-1") == [4]
    assert same(adapter(run), before)
    lines = [row["step"] for row in read_metrics(run / "training" / "metrics.jsonl") if "loss" in row]
    assert lines == [1, 2, 3, 4, 5, 6]


def test_a_path_is_gone_on_from_without_touching_it_and_later_from_where_that_led(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb
) -> None:
    first, other = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    assert run_verb("train", first)[0] == 0
    source, run = tmp_path / "one/runs/tiny", tmp_path / "two/runs/tiny"
    place = source / "training/checkpoints/checkpoint-4"
    files = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    told = ("train", other, f"training.resume={place}")
    code, out, _ = run_verb(*told)
    assert code == 0
    assert "going on from checkpoint-4" in out
    assert same(adapter(run), adapter(source))
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == files
    back_to(run, 6)
    assert "going on from checkpoint-6" in run_verb(*told)[1]  # not from the path again
    back_to(run, 6)
    shutil.rmtree(run / "training" / "checkpoints" / "checkpoint-4")
    own = run / "training/checkpoints/checkpoint-6"
    code, out, _ = run_verb("train", other, f"training.resume={own}")  # one of its own
    assert code == 0
    assert "are kept aside" in out
    assert same(adapter(run), adapter(source))


def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb, refused: Refused
) -> None:
    first, other = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    assert run_verb("train", first, "training.max_steps=2")[0] == 0
    place = tmp_path / "one/runs/tiny/training/checkpoints/checkpoint-2"
    held = json.loads((place / ORIGIN).read_text())
    assert held["settings"]["training.max_steps"] == 2
    assert "training.report_to" not in held["settings"]  # harmless
    message = refused("train", other, f"training.resume={place}", "training.learning_rate=0.001", "seed=4")
    assert "training.learning_rate was 0.005, now 0.001" in message
    assert "training.max_steps was 2, now 6" in message
    assert "seed was 3, now 4" in message
    assert not (tmp_path / "two/runs/tiny/training/checkpoints").exists()


def test_what_is_no_checkpoint_is_refused(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb, refused: Refused
) -> None:
    recipe = make_run(tmp_path / "one")
    assert "is not a complete checkpoint" in refused("train", recipe, f"training.resume={tmp_path}/checkpoint-7")
    assert run_verb("train", recipe, "training.max_steps=2")[0] == 0
    place = tmp_path / "one/runs/tiny/training/checkpoints/checkpoint-2"
    (place / COMPLETE).unlink()
    other = make_run(tmp_path / "two")
    assert "is not a complete checkpoint" in refused("train", other, f"training.resume={place}")


def test_a_checkpoint_of_a_stage_lands_in_that_stage_or_is_refused(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb, refused: Refused
) -> None:
    stages = [{"name": "one", "max_steps": 2}, {"name": "two", "max_steps": 4}]
    first, other = (make_run(tmp_path / name, stages=stages) for name in ("one", "two"))
    assert run_verb("train", first)[0] == 0
    source, run = tmp_path / "one/runs/tiny", tmp_path / "two/runs/tiny"
    place = source / "training/two/checkpoints/checkpoint-2"
    told = ("train", other, f"training.resume={place}")
    assert "but stage one before it is not done" in refused(*told)
    shutil.copytree(source / "training" / "one", run / "training" / "one")
    code, out, _ = run_verb(*told)
    assert code == 0, out
    assert "stage one: done" in out
    assert "going on from checkpoint-2" in out
    assert same(adapter(run), adapter(source))
    shutil.rmtree(run / "adapter")
    (run / "training" / "two" / "summary.json").unlink()
    done = source / "training/one/checkpoints/checkpoint-2"
    assert "of stage one, which is done" in refused("train", other, f"training.resume={done}")


def test_other_rows_under_the_same_recipe_are_refused(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    assert run_verb("train", recipe)[0] == 0
    back_to(run, 4)
    file = run / "data/labels/train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)
    monkeypatch.setattr("rag_ft.training.run.require_built", lambda *told: None)  # as if built so
    message = refused("train", recipe)
    assert "was trained on other rows" in message
    assert "training.resume=never" in message


def test_seconds_and_memory_are_those_of_all_sessions(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Verb
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    assert run_verb("train", recipe)[0] == 0
    back_to(run, 4)
    file = run / "training/checkpoints/checkpoint-4/trainer_state.json"
    state = json.loads(file.read_text())
    kept = state["stateful_callbacks"]["Sessions"]["attributes"]
    assert 0 < kept["before"] < 600
    kept.update(before=1000.0, peak_before=99.0)  # a long session on a large machine came before
    file.write_text(json.dumps(state))
    assert run_verb("train", recipe)[0] == 0
    summary = json.loads((run / "training/summary.json").read_text())
    assert 1000 < summary["seconds"] < 1600
    assert summary["peak_memory_gb"] == 99.0


# a loss that is no number


def test_a_learning_rate_that_explodes_names_the_rows_and_leaves_good_checkpoints(
    make_run: Callable[..., Path], tmp_path: Path, refused: Refused
) -> None:
    recipe = make_run(tmp_path, save_steps=1, trainer={"max_grad_norm": 0.0, "optim": "sgd", "logging_steps": 3})
    message = refused("train", recipe, "training.learning_rate=1e30", "training.gradient_accumulation=2")
    assert "the training loss became" in message
    assert "Lower training.learning_rate" in message
    run = tmp_path / "runs" / "tiny"
    rows = set(pq.read_table(run / "data/labels/train.parquet").column("id").to_pylist())
    named = message.split("(rows ")[1].split(")")[0].split(", ")
    assert set(named) <= rows
    assert 1 <= len(named) <= 2
    assert not (run / "adapter").exists()
    for checkpoint in (run / "training/checkpoints").glob("checkpoint-*"):
        step = int(message.split("at step ")[1].split()[0])
        assert checkpoint_step(checkpoint) < step


def test_poisoned_weights_stop_at_the_first_step(
    make_run: Callable[..., Path], tiny_weights: Path, tmp_path: Path, refused: Refused
) -> None:
    poisoned = shutil.copytree(tiny_weights, tmp_path / "poisoned")
    file = poisoned / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    message = refused("train", make_run(tmp_path / "run"), f"model.weights={poisoned}")
    assert "the training loss became nan at step 1 (rows " in message
    assert "model.weights" in message


# values of training.trainer


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("weight_decay", "much", "wants float here, not str"),
        ("logging_first_step", "3", "wants bool here, not int"),
        ("optim", "adamw_8bits", "adamw_8bits"),
        ("lr_scheduler_type", "cosin", "cosin"),
        ("optim_args", "{a: 1}", "wants str | None here, not dict"),
    ],
)
def test_a_value_trl_does_not_take_is_named_before_anything_is_loaded(
    make_run: Callable[..., Path], tmp_path: Path, refused: Refused, field: str, value: str, reason: str
) -> None:
    message = refused(
        "train",
        make_run(tmp_path, trainer={"adam_beta1": 0.5}),
        f"training.trainer.{field}={value}",
        "model.weights=no/such-model",
    )
    assert f"training.trainer.{field}=" in message
    assert reason in message
