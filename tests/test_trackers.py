"""Trackers get recipe and data, one run goes on over stops and stages, and nothing secret leaves the machine."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_run, tiny_settings

from rag_ft.training.checkpoints import checkpoint_step, read_metrics
from rag_ft.training.trackers import without_secrets

Refused = Callable[..., str]
STAGES = [{"name": "first", "spans": ["relevance"], "max_steps": 3}, {"name": "second", "max_steps": 4}]


def needs(package: str) -> Any:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture
def make_run(tiny_weights: Path, built_data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes the tiny recipe with changes to `training`; its data are built."""

    def make(**training: Any) -> Path:
        settings = tiny_settings(tiny_weights)
        model = {**settings["model"], "prompt": {"style": "reasoning"}}
        told = {**settings["training"], "save_steps": 2, **training}
        return tiny_run(tmp_path, tiny_weights, built_data, training=told, model=model)

    return make


def train(recipe: Path, tracker: str, *overrides: str) -> str:
    """Train in a process of its own: trackers leave threads behind."""
    folder = recipe.parent
    places = {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_DIR": str(folder), "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "rag_ft", "train", str(recipe), f"training.report_to=[{tracker}]", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **places}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def back_to(run: Path, step: int) -> None:
    """Leave what a kill after a checkpoint would leave."""
    shutil.rmtree(run / "adapter")
    (run / "training" / "summary.json").unlink()
    for path in (run / "training" / "checkpoints").glob("checkpoint-*"):
        if checkpoint_step(path) > step:
            shutil.rmtree(path)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


@needs("tensorboard")
def test_tensorboard_counts_steps_on_over_stages_and_shows_the_recipe(make_run: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_run(stages=STAGES)
    train(recipe, "tensorboard")
    training = recipe.parent / "runs" / "tiny" / "training"
    events = EventAccumulator(str(training / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    expected = enumerate([*losses(training / "first"), *losses(training / "second")], start=1)
    assert found == [(step, pytest.approx(loss)) for step, loss in expected]
    assert [event.value for event in events.Scalars("train/stage")] == [1.0] * 4 + [2.0] * 5  # and one at each end
    texts = {name: events.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]}
    assert '"learning_rate": 0.005' in texts["recipe/text_summary"]
    assert '"counts"' in texts["data/text_summary"]
    assert '"second"' in texts["stages/text_summary"]


@needs("tensorboard")
def test_tensorboard_shows_each_step_once_after_a_kill(make_run: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = make_run(max_steps=5)
    run = recipe.parent / "runs" / "tiny"
    train(recipe, "tensorboard")
    back_to(run, 4)
    train(recipe, "tensorboard")
    events = EventAccumulator(str(run / "training" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]


@needs("trackio")
def test_trackio_goes_on_in_the_same_run_and_holds_the_recipe(make_run: Callable[..., Path]) -> None:
    recipe = make_run(max_steps=5, trainer={"project": "towns"})
    run = recipe.parent / "runs" / "tiny"
    train(recipe, "trackio")
    back_to(run, 4)
    train(recipe, "trackio")
    base = sqlite3.connect(recipe.parent / "trackio" / "towns.db")
    rows = [
        (name, step, json.loads(values))
        for name, step, values in base.execute("select run_name, step, metrics from metrics")
    ]
    told = json.loads((run / "training" / "tracker.json").read_text())["run"]
    assert {name for name, _, _ in rows} == {f"tiny-{told}"}
    logged = [(step, values["train/loss"]) for _, step, values in rows if "train/loss" in values]
    assert logged[:5] == list(enumerate(losses(run / "training"), start=1))
    assert logged[5:] == logged[4:5]  # the step after the checkpoint, done twice, came out the same
    (config,) = {row[0] for row in base.execute("select config from configs")}
    assert json.loads(config)["recipe"]["training"]["max_steps"] == 5
    assert json.loads(config)["data"]["labels"]["counts"]


@needs("wandb")
def test_wandb_gets_recipe_data_and_one_id_over_stages_and_sessions(make_run: Callable[..., Path]) -> None:
    recipe = make_run(stages=STAGES)
    train(recipe, "wandb")
    told = json.loads((recipe.parent / "runs/tiny/training/tracker.json").read_text())["run"]
    (log,) = (recipe.parent / "wandb").glob("offline-run-*/*.wandb")  # one run, though two stages
    assert log.name == f"run-{told}.wandb"
    content = log.read_bytes()
    for words in (b"train/loss", b"train/stage", b"questions_per_context", b"facts.json"):
        assert words in content


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_loaded(
    make_run: Callable[..., Path], refused: Refused, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    from rag_ft.training import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == tracker else find_spec(name))
    recipe = make_run(report_to=[tracker])
    message = refused("train", recipe, "model.weights=no/such-model")
    assert f"training.report_to names {tracker}, which is not installed" in message
    assert "pip install" in message


@needs("wandb")
def test_wandb_without_an_account_says_how_to_go_on(
    make_run: Callable[..., Path], refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    message = refused("train", make_run(report_to=["wandb"]), "model.weights=no/such-model")
    assert "WANDB_MODE=offline" in message


def test_secrets_are_hidden_and_numbers_are_not() -> None:
    told = {"hub_token": "hf_x", "max_new_tokens": 5, "teacher": [{"api_key": "k", "model": "m"}], "api_key_env": "KEY"}
    assert without_secrets(told) == {
        "hub_token": "(hidden)",
        "max_new_tokens": 5,
        "teacher": [{"api_key": "(hidden)", "model": "m"}],
        "api_key_env": "KEY",
    }
