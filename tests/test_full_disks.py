"""Disks that are full or read-only: one clear message, nothing half-written, and the same command goes on later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import copied_run, tiny_recipe, tiny_run

from data_builders.files import file_hash

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder nobody can write to: by its permissions, or for root by a mount."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount(folder, "ro,size=64k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that makes a disk with room for so many files and folders; after them it is full."""
    if os.geteuid():
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = []

    def make(files: int) -> Path:
        mount(folder, f"size=2g,nr_inodes={files}")
        mounted.append(folder)
        return folder

    yield make
    for each in mounted:
        subprocess.run(["umount", "--lazy", str(each)], check=True)  # files of it may still be mapped


@pytest.mark.parametrize("verb", ["build", "train", "evaluate", "run", "report"])
def test_a_folder_that_cannot_be_written_is_named(
    refused: Refused, tiny_weights: Path, tmp_path: Path, read_only: Path, verb: str
) -> None:
    message = refused(verb, tiny_recipe(tmp_path / "work", tiny_weights), f"runs_dir={read_only}/runs")
    assert str(read_only) in message
    assert "runs_dir=PATH" in message


def test_a_runs_dir_that_is_a_file_is_named(refused: Refused, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    message = refused("build", tiny_recipe(tmp_path / "work", tiny_weights), f"runs_dir={tmp_path}/file")
    assert f"{tmp_path}/file" in message
    assert (tmp_path / "file").read_text() == "mine"


def fill(disk: Path) -> None:
    """Take the room that is left."""
    free = os.statvfs(disk).f_ffree
    for number in range(free):
        (disk / f"filler{number}").touch()


@pytest.mark.parametrize("room", [6, 16, 30])
def test_building_on_a_full_disk_leaves_nothing_half_written(
    refused: Refused, run_verb: Verb, tiny_weights: Path, built_data: Path, tmp_path: Path, small_disk: Any, room: int
) -> None:
    disk = small_disk(room)
    recipe = tiny_recipe(tmp_path / "work", tiny_weights)
    message = refused("build", recipe, f"runs_dir={disk}/runs")
    assert "No space left on device" in message
    data = disk / "runs" / "tiny" / "data"
    written = [path for step in data.glob("**/") if ".parts-" not in str(step) for path in step.glob("*.*")]
    for path in [path for path in written if path.suffix in (".parquet", ".arrow")]:  # what is there is whole
        assert file_hash(path) == file_hash(built_data / path.relative_to(data))
    subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(disk)], check=True)
    assert run_verb("build", recipe, f"runs_dir={disk}/runs")[0] == 0


@pytest.mark.parametrize("room", [0, 11, 12, 29, 34, 40])  # from 29 on the first checkpoint is whole, a later one not
def test_training_on_a_full_disk_keeps_what_is_whole_and_goes_on(
    refused: Refused,
    run_verb: Verb,
    tiny_weights: Path,
    built_data: Path,
    trained_run: Path,
    tmp_path: Path,
    small_disk: Any,
    room: int,
) -> None:
    disk = small_disk(100)
    recipe = tiny_run(disk, tiny_weights, built_data)
    run = disk / "runs" / "tiny"
    fill(disk)
    for number in range(room):
        (disk / f"filler{number}").unlink()
    message = refused("train", recipe)
    assert "No space left on device" in message
    assert not (run / "adapter").exists()
    for path in disk.glob("filler*"):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(disk)], check=True)
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert ("going on from checkpoint-" in out) == (room >= 29)
    same = [folder / "adapter" / "adapter_model.safetensors" for folder in (run, trained_run)]
    assert file_hash(same[0]) == file_hash(same[1])


def test_evaluating_on_a_full_disk_keeps_the_answers_and_goes_on(
    refused: Refused, run_verb: Verb, tiny_weights: Path, trained_run: Path, tmp_path: Path, small_disk: Any
) -> None:
    disk = small_disk(200)
    recipe = copied_run(disk, tiny_weights, trained_run)
    fill(disk)
    (disk / "filler0").unlink()
    (disk / "filler1").unlink()
    assert "No space left on device" in refused("evaluate", recipe)
    assert not (disk / "runs" / "tiny" / "evaluation" / "scores.json").exists()
    for path in disk.glob("filler*"):
        path.unlink()
    assert run_verb("evaluate", recipe)[0] == 0


def test_converted_weights_that_cannot_be_kept_name_the_variable(
    refused: Refused,
    tiny_weights: Path,
    built_data: Path,
    tmp_path: Path,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("RAG_FT_CACHE", str(read_only / "cache"))
    recipe = tiny_run(tmp_path / "work", tiny_weights, built_data)
    assert "Set RAG_FT_CACHE to a folder you can write to" in refused(
        "train", recipe, f"model.weights={tmp_path}/model.gguf"
    )
