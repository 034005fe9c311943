"""How long the light verbs take, whole process, median of 9: the limits are 0.3 s for --help and 1 s for check."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results_file import write_result


def seconds(*arguments: str) -> float:
    """Return the median wall time of a `rag-ft` command."""
    command, times = [str(Path(sys.executable).parent / "rag-ft"), *arguments], []
    for _ in range(9):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 3)


if __name__ == "__main__":
    numbers = {
        "rag-ft --help (s)": seconds("--help"),
        "rag-ft train --help (s)": seconds("train", "--help"),
        "rag-ft check quickstart (s)": seconds("check", "quickstart"),
    }
    write_result("help", numbers, "python -m benchmarks.help")
