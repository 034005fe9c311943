"""How building scales: seconds and memory of every step, from 10,000 to a million passages of 100 words.

`python -m benchmarks.building` measures all sizes; `--passages N` one of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result

SIZES = (10_000, 100_000, 1_000_000)
_STEPS = ("source", "clean", "retrieval/bm25", "pools", "contexts", "labels")
_DRIVER = """
import sys
from pathlib import Path
from data_builders.build import build_data
from data_builders.data_settings import DataSettings
if __name__ == "__main__":
    settings = DataSettings.model_validate_json(sys.argv[1])
    build_data(settings, 1, Path(sys.argv[2]), report=lambda one: print(one, flush=True))
"""


def main() -> None:
    """Build the invented world at every size and write how time and memory grow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, action="append", help="only this many passages (may be repeated)")
    sizes = parser.parse_args().passages or SIZES
    measured = {f"{size:,} passages": build(size) for size in sizes}
    numbers: dict[str, Any] = dict(measured)
    first, last = (measured[f"{size:,} passages"] for size in (sizes[0], sizes[-1]))
    if len(sizes) > 1:
        grown = math.log(last["seconds"] / first["seconds"]) / math.log(sizes[-1] / sizes[0])
        numbers["time grows as passages to the power of"] = round(grown, 2)
    write_result("building", numbers, "python -m benchmarks.building")


def build(passages: int) -> dict[str, Any]:
    """Build once in a process of its own; return seconds and peak memory by step."""
    world = {
        "kind": "invented_world",
        "questions": {"train": passages // 10, "validation": 0, "test": 1},
        "passages": passages,
        "words": [80, 120],
    }
    settings = {"sources": {"world": world}, "depth": 50, "contexts": {"passages": {"kind": "fixed", "count": 10}}}
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "driver.py"
        code.write_text(_DRIVER, encoding="utf-8")
        environment = {"RAG_FT_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, str(code), json.dumps(settings), f"{folder}/data"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        watch = _Watch(process.pid)
        for line in process.stdout or ():
            print("   ", line, end="", flush=True)
            watch.step = next((step for step in _STEPS if line.startswith(f"{step}: building")), watch.step)
        if process.wait():
            raise SystemExit("the build failed")
        watch.stop()
        steps = {step: _step(Path(folder) / "data" / step, watch.peaks.get(step, 0)) for step in _STEPS}
        rows = json.loads((Path(folder) / "data/source/manifest.json").read_text())["outputs"]
    return {
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "seconds without making the world": round(
            sum(step["seconds"] for name, step in steps.items() if name != "source"), 1
        ),
        "peak memory (GB, of all processes, without mapped files)": max(step["GB"] for step in steps.values()),
        "passages": rows["passages.parquet"]["rows"],
        "questions": rows["questions.parquet"]["rows"],
        "steps": steps,
    }


def _step(folder: Path, peak: int) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return {"seconds": manifest["seconds"], "GB": round(peak / 2**30, 2)}


class _Watch:
    """Samples the private memory of a process and its children; keeps the peak of each step."""

    def __init__(self, pid: int) -> None:
        self.pid, self.step, self.peaks, self._on = pid, "source", dict[str, int](), True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._on = False
        self._thread.join()

    def _run(self) -> None:
        while self._on:
            used = sum(_private(pid) for pid in _family(self.pid))
            self.peaks[self.step] = max(self.peaks.get(self.step, 0), used)
            time.sleep(0.25)


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in task.read_text().split() for each in _family(int(child))]
        except OSError:
            continue
    return found


def _private(pid: int) -> int:
    """Return anonymous memory in bytes: what the machine must hold, unlike pages of mapped files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "RssShmem"))}
    return 1024 * sum(map(int, values.values()))


if __name__ == "__main__":
    main()
