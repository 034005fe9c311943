"""Training that is killed, interrupted or launched otherwise ends in the same curve and the same adapter."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_run, tiny_settings

from rag_ft.training.checkpoints import COMPLETE, MetricsFile, last_checkpoint, read_metrics

Verb = Callable[..., tuple[int, str, str]]
EPOCHS = 3
STEPS = 12 * EPOCHS  # 12 contexts, one a step


@pytest.fixture(scope="module")
def make_run(tiny_weights: Path, built_data: Path) -> Callable[[Path], Path]:
    """Return a function that makes a folder with a recipe of dropout and several epochs; its data are built."""

    def make(folder: Path) -> Path:
        settings = tiny_settings(tiny_weights)
        # Dropout and shuffling: a resumed run must restore every random state to come out the same.
        settings["model"]["lora"]["dropout"] = 0.1
        training = {**settings["training"], "epochs": EPOCHS, "save_steps": 4}
        return tiny_run(folder, tiny_weights, built_data, model=settings["model"], training=training)

    return make


@pytest.fixture(scope="module")
def uninterrupted(make_run: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training nobody disturbed."""
    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(["train", str(make_run(folder))]) == 0
    return folder / "runs" / "tiny"


def curve(run: Path) -> list[tuple[Any, ...]]:
    rows = read_metrics(run / "training" / "metrics.jsonl")
    names = ("step", "loss", "grad_norm", "learning_rate", "num_tokens")
    return [tuple(row[name] for name in names) for row in rows if "loss" in row]


def same_training(run: Path, other: Path) -> None:
    """Bit by bit: on a CPU the same steps give the same numbers."""
    assert [row[0] for row in curve(run)] == list(range(1, STEPS + 1))
    assert curve(run) == curve(other)
    whole = read_metrics(run / "training" / "metrics.jsonl")[-1]["train_loss"]
    assert whole == pytest.approx(sum(row[1] for row in curve(run)) / STEPS)
    one, two = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(bool(tensor.any()) for name, tensor in one.items() if "lora_B" in name)


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for_steps(process: subprocess.Popen[str], metrics: Path, steps: int) -> None:
    """Look at metrics.jsonl until it has that many lines."""
    while process.poll() is None and len(read_metrics(metrics)) < steps:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0]


def begun(recipe: Path, steps: int, number: int) -> tuple[int, str]:
    """Train in another process until a step, then send it a signal; return exit code and output."""
    process = start("rag_ft", "train", str(recipe))
    wait_for_steps(process, recipe.parent / "runs" / "tiny" / "training" / "metrics.jsonl", steps)
    process.send_signal(number)
    output, _ = process.communicate()
    return process.returncode, output


def test_the_loss_falls_and_every_step_is_in_the_metrics(uninterrupted: Path) -> None:
    steps = curve(uninterrupted)
    assert [row[0] for row in steps] == list(range(1, STEPS + 1))
    assert sum(row[1] for row in steps[-6:]) < 0.9 * sum(row[1] for row in steps[:6])
    summary = json.loads((uninterrupted / "training" / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["loss"] == steps[-1][1]


@pytest.mark.parametrize("steps", [2, 18])
def test_a_killed_training_ends_as_if_nothing_had_happened(
    make_run: Callable[[Path], Path], uninterrupted: Path, tmp_path: Path, run_verb: Verb, steps: int
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    code, _ = begun(recipe, steps, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not run.joinpath("adapter").exists()
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert ("going on from checkpoint-" in out) == (steps > 4)
    same_training(run, uninterrupted)


def test_an_interrupt_saves_the_step_and_the_same_command_goes_on_there(
    make_run: Callable[[Path], Path], uninterrupted: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    code, output = begun(recipe, 6, signal.SIGINT)
    assert code == 130
    assert "interrupted: the same command goes on where this one stopped." in output
    assert "Traceback" not in output
    saved = last_checkpoint(run / "training" / "checkpoints")
    done = curve(run)[-1][0]
    assert saved is not None
    assert saved.name == f"checkpoint-{done}"  # nothing that was done is lost
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert f"going on from checkpoint-{done}" in out
    same_training(run, uninterrupted)


@pytest.mark.parametrize("damage", ["mark missing", "cut short"])
def test_a_half_written_checkpoint_is_not_used(
    make_run: Callable[[Path], Path], uninterrupted: Path, tmp_path: Path, run_verb: Verb, damage: str
) -> None:
    recipe, run = make_run(tmp_path), tmp_path / "runs" / "tiny"
    shutil.copytree(uninterrupted, run, dirs_exist_ok=True)
    shutil.rmtree(run / "adapter")
    checkpoints = run / "training" / "checkpoints"
    newest = checkpoints / f"checkpoint-{STEPS}"
    (newest / COMPLETE).unlink()  # written last, so a kill in the middle of writing leaves none
    if damage == "cut short":
        weights = newest / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert f"going on from checkpoint-{STEPS - 4}" in out
    same_training(run, uninterrupted)


def test_a_finished_training_is_left_as_it_is(
    make_run: Callable[[Path], Path], uninterrupted: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = make_run(tmp_path)
    run = tmp_path / "runs" / "tiny"
    shutil.copytree(uninterrupted, run, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.parent != run}
    code, out, _ = run_verb("train", recipe)
    assert (code, out) == (0, f"train: unchanged, the adapter is in {run / 'adapter'}\n")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_metrics_behind_the_checkpoint_are_cut_and_a_half_written_line_with_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"step": 4, "lo')

    class State:
        global_step = 2
        is_world_process_zero = True

    MetricsFile(path).on_train_begin(None, State, None)
    assert read_metrics(path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]


def launched(recipe: Path, *options: str) -> tuple[int, str]:
    process = start("accelerate.commands.launch", "--cpu", *options, "-m", "rag_ft.train", str(recipe))
    output, _ = process.communicate()
    return process.returncode, output


def test_accelerate_launch_trains_the_same(
    make_run: Callable[[Path], Path], uninterrupted: Path, tmp_path: Path
) -> None:
    code, output = launched(make_run(tmp_path), "--num_processes", "1", "--num_machines", "1")
    assert code == 0, output
    same_training(tmp_path / "runs" / "tiny", uninterrupted)


def test_two_processes_with_one_row_each_are_one_process_with_two(
    make_run: Callable[[Path], Path], tmp_path: Path, run_verb: Verb
) -> None:
    # Without dropout, whose random numbers are drawn by each process for itself.
    changes = ["training.epochs=1", "model.lora.dropout=0"]
    recipe = make_run(tmp_path / "one")
    assert run_verb("train", recipe, *changes, "training.gradient_accumulation=2")[0] == 0
    spread = make_run(tmp_path / "two")
    process = start("torch.distributed.run", "--nproc_per_node", "2", "-m", "rag_ft.train", str(spread), *changes)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert output.count("carry loss") == 1  # one of the two reports
    one, two = (curve(tmp_path / name / "runs" / "tiny") for name in ("one", "two"))
    assert len(one) == len(two) == 6
    for alone, both in zip(one, two, strict=True):
        assert both == pytest.approx(alone, rel=1e-4)


# trackers


def tracked(recipe: Path, folder: Path, tracker: str) -> None:
    """Train for two steps with a tracker, in a process of its own: trackers leave threads behind."""
    quiet = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    process = start("rag_ft", "train", str(recipe), "training.max_steps=2", f"training.report_to=[{tracker}]", **quiet)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def files(folder: Path, pattern: str) -> Sequence[Path]:
    return [path for path in folder.rglob(pattern) if path.is_file()]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed: pip install wandb")
def test_wandb_works_offline(make_run: Callable[[Path], Path], tmp_path: Path) -> None:
    tracked(make_run(tmp_path), tmp_path, "wandb")
    (log,) = files(tmp_path / "wandb", "*.wandb")
    assert b"train/loss" in log.read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="not installed: pip install tensorboard")
def test_tensorboard_gets_the_loss_of_every_step(make_run: Callable[[Path], Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked(make_run(tmp_path), tmp_path, "tensorboard")
    (log,) = files(tmp_path / "runs" / "tiny", "events.out.tfevents.*")
    events = EventAccumulator(str(log.parent))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, pytest.approx(loss)) for step, loss, *_ in curve(tmp_path / "runs" / "tiny")]
    assert len(found) == 2
