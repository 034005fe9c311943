"""Where benchmark numbers go: one JSON file each, with the machine and the versions they were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from data_builders.files import write_json
from rag_ft.runs import environment

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, numbers: dict[str, Any], command: str) -> None:
    """Write benchmarks/results/<name>.json and print the numbers."""
    about = environment()
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "system": platform.system(),
        "packages": about["packages"],
    }
    write_json(RESULTS / f"{name}.json", {"command": command, "numbers": numbers, "machine": machine})
    print(name, *(f"  {key}: {value}" for key, value in numbers.items()), sep="\n")


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
