"""Where a training would run: the device, its memory, and how many processes share what. Starts nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rag_ft.models.sharding import sharding

Sharding = Literal["none", "optimizer", "weights"]
SUPPOSED = 8
"""GPUs of a machine, where one without any plans for others."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Place:
    """A device and its company.

    Attributes:
        device: its name, as a person reads it.
        kind: `cuda` or `cpu`.
        memory: GB of it.
        dtype: what `model.dtype: auto` means there.
        processes: how many train together, each on a device like this.
        sharding: what they share out: nothing (DDP), gradients and optimizer (ZeRO-2), or weights too (FSDP, ZeRO-3).
    """

    device: str
    kind: Literal["cuda", "cpu"]
    memory: float
    dtype: str
    processes: int = 1
    sharding: Sharding = "none"

    @property
    def libraries(self) -> float:
        """Bytes of the CUDA context and its kernels; on a CPU of Python with torch and transformers and its heap."""
        return 0.8e9 if self.kind == "cuda" else 1.2e9

    @property
    def holes(self) -> float:
        """Bytes lost between tensors for each byte of activations.

        CUDA's caching allocator loses little. The heap of a CPU's C library is a third holes, as tensors of many
        sizes come and go (benchmarks/memory_estimate.py).
        """
        return 0.1 if self.kind == "cuda" else 0.6


def place_at_hand(accelerate: str | None = None) -> Place:
    """Return the device of this process, in the company that the environment or a configuration of accelerate says."""
    import torch

    from rag_ft.models.load import best_device, dtype_name

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(best_device())
        place = Place(facts.name, "cuda", facts.total_memory / 1e9, dtype_name("auto"))
    else:
        place = Place("this machine", "cpu", machine_memory() / 1e9, dtype_name("auto"))
    processes, sharding = _company(accelerate)
    share = processes if place.kind == "cpu" and processes > 1 else 1  # they share the memory of one machine
    return replace(place, memory=place.memory / share, processes=processes, sharding=sharding)


def card(memory: float, like: Place) -> Place:
    """Return a GPU of so many GB, in the company of `like`; bfloat16, as every card since 2020 has it."""
    return Place(f"a {memory:g} GB card", "cuda", memory, "bfloat16", like.processes, like.sharding)


def machine_memory() -> int:
    """Return the bytes of memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = [Path(name).read_text(encoding="utf-8").strip() for name in _CGROUP_LIMITS if Path(name).is_file()]
    return min([total, *(int(text) for text in told if text.isdecimal())])


def _company(accelerate: str | None) -> tuple[int, Sharding]:
    """Return how many processes train together and what they share out.

    A configuration that takes all GPUs is planned for SUPPOSED of them where there is none.
    """
    from rag_ft.training.ranks import processes

    if accelerate is None:
        return processes(), _launched()
    import torch
    import yaml

    from rag_ft.training.accelerate_configs import find_config

    found = find_config(accelerate)
    count = found.processes or (torch.cuda.device_count() or SUPPOSED) * found.machines
    return count, _sharding(yaml.safe_load(found.path.read_text(encoding="utf-8")))


def _launched() -> Sharding:
    """Return what the processes share out that a launcher has started together with this one."""
    if sharding():
        return "weights"
    return "optimizer" if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true" else "none"


def _sharding(config: dict[str, Any]) -> Sharding:
    kind = config.get("distributed_type")
    if kind == "FSDP":
        return "weights"
    if kind != "DEEPSPEED":
        return "none"
    stage = (config.get("deepspeed_config") or {}).get("zero_stage", 2)
    return "weights" if stage == 3 else "optimizer" if stage in (1, 2) else "none"
