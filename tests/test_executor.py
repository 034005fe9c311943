"""Shards: the same bytes from any number of processes, finished ones are kept, a dead process is one clear error."""

import os
import signal
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_builders.errors import RagFtError
from data_builders.executor import Executor, Shards, run_shards
from data_builders.files import file_hash
from data_builders.manifest import Tally


@dataclass
class Squares:
    """Squares of the row numbers; leaves a trace of every shard it computed."""

    traces: Path
    deadly: int = -1

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        if start <= self.deadly < stop and not (self.traces / "died").exists():
            (self.traces / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.traces / f"{start}-{os.getpid()}").touch()
        tally.count("rows", stop - start, f"row {start}")
        tally.measure("last digit", (stop - 1) % 10)
        return pa.table({"square": [number * number for number in range(start, stop)]})


def shards(folder: Path, **job: Any) -> Shards:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "traces").mkdir(exist_ok=True)
    return Shards(Squares(folder / "traces", **job), rows=25, size=4, folder=folder / "parts", name="rows")


def collect(chosen: Shards, executor: Executor) -> tuple[list[int], Tally]:
    numbers, whole = [], Tally()
    for table, tally in run_shards(chosen, executor, print):
        numbers += table["square"].to_pylist()
        whole.add(tally)
    return numbers, whole


def hashes(chosen: Shards) -> list[str]:
    return [file_hash(chosen.path(number)) for number in range(len(chosen))]


def test_one_process_and_three_give_the_same_rows_tallies_and_bytes(tmp_path: Path) -> None:
    one, three = shards(tmp_path / "one"), shards(tmp_path / "three")
    rows, tally = collect(one, Executor(processes=1))
    assert (rows, tally) == collect(three, Executor(processes=3))
    assert rows == [number * number for number in range(25)]
    assert tally.counts == {"rows": 25}
    assert tally.samples == {"rows": ["row 0", "row 4", "row 8", "row 12", "row 16"]}
    assert tally.histogram("last digit") == {1: 1, 3: 2, 4: 1, 5: 1, 7: 1, 9: 1}
    assert hashes(one) == hashes(three)
    assert len({trace.name.split("-")[1] for trace in (tmp_path / "three/traces").iterdir()}) > 1


def test_only_missing_shards_are_computed_again(tmp_path: Path) -> None:
    chosen = shards(tmp_path)
    before = collect(chosen, Executor(processes=1))
    chosen.path(2).unlink()
    for trace in chosen.job.traces.iterdir():  # type: ignore[attr-defined]
        trace.unlink()
    assert collect(chosen, Executor(processes=1)) == before
    assert [trace.name.split("-")[0] for trace in chosen.job.traces.iterdir()] == ["8"]  # type: ignore[attr-defined]


def test_process_that_dies_is_one_clear_error_and_the_next_run_goes_on(tmp_path: Path) -> None:
    chosen = shards(tmp_path, deadly=13)
    with pytest.raises(RagFtError, match=r"a building process died.*data\.processes=1"):
        collect(chosen, Executor(processes=2))
    assert collect(chosen, Executor(processes=2))[0] == [number * number for number in range(25)]


def test_empty_job_gives_nothing(tmp_path: Path) -> None:
    empty = Shards(Squares(tmp_path), rows=0, size=4, folder=tmp_path / "parts", name="rows")
    assert list(run_shards(empty, Executor(), print)) == []


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra and is not installed")
def test_ray_gives_the_bytes_that_processes_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where Ray's workers find this module
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ours, theirs = shards(tmp_path / "ours"), shards(tmp_path / "theirs")
    try:
        assert collect(theirs, Executor("ray", processes=2)) == collect(ours, Executor(processes=1))
    finally:
        ray.shutdown()
    assert hashes(ours) == hashes(theirs)
    assert (tmp_path / "theirs/traces").is_dir()
