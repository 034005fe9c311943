"""Whether the launcher shares weights out between processes. Shares nothing out itself, imports nothing heavy."""

from __future__ import annotations

import json
import os
from pathlib import Path


def sharding() -> str:
    """Return how weights are shared out: `fsdp`, `zero3`, or nothing where every process holds them all.

    `accelerate launch` tells the processes it starts by these variables.
    """
    if _is_set("ACCELERATE_USE_FSDP"):
        return "fsdp"
    return "zero3" if _is_set("ACCELERATE_USE_DEEPSPEED") and _zero_stage() == "3" else ""


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() == "true"


def _zero_stage() -> str:
    """Return the stage, which a configuration says itself or in a file of DeepSpeed's that it names."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file == "none" or not Path(file).is_file():
        return os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    return str(json.loads(Path(file).read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage"))
