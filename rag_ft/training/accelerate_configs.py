"""The configurations of accelerate that come with rag-ft: where they are, what one says. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from rag_ft.recipe.problems import suggestion

_MARK = "ddp.yaml"


@dataclass(frozen=True)
class LaunchConfig:
    """A configuration of accelerate and what of it decides the command line.

    Attributes:
        path: its file.
        processes: how many it starts on all machines; None leaves that to the launcher.
        machines: how many machines.
        on_cpu: whether it trains on CPUs.
    """

    path: Path
    processes: int | None
    machines: int
    on_cpu: bool


@cache
def shipped_configs() -> dict[str, Path]:
    """Return the shipped configurations by name: of a checkout, or of share/rag-ft where installed.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    folder = Path(__file__).parents[2] / "accelerate_configs"
    if not (folder / _MARK).is_file():
        files = (file for file in metadata.files("rag-ft") or () if file.parts[-2:] == ("accelerate_configs", _MARK))
        installed = next(files, None)
        if installed is None:
            raise FileNotFoundError(f"no accelerate_configs/{_MARK} in this installation of rag-ft")
        folder = Path(str(installed.locate())).resolve().parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(told: str) -> LaunchConfig:
    """Return a configuration by its name or its path.

    Raises:
        RagFtError: there is no such configuration, or the file is none.
    """
    path = shipped_configs().get(told, Path(told).expanduser())
    if not path.is_file():
        raise RagFtError(
            f"--accelerate {told}: {suggestion(told, shipped_configs())} A file of `accelerate config` does as well."
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RagFtError(f"--accelerate {told}: cannot be read as YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(found, Mapping) or "distributed_type" not in found:
        raise RagFtError(f"--accelerate {told}: no distributed_type in it. Give a file that `accelerate config` wrote.")
    return _config(path, found)


def _config(path: Path, found: Mapping[str, Any]) -> LaunchConfig:
    alone = found["distributed_type"] in ("NO", False)  # an unquoted NO is false in YAML
    processes = found.get("num_processes", 1 if alone else None)
    return LaunchConfig(
        path,
        None if processes in (None, -1) else int(processes),
        int(found.get("num_machines", 1)),
        bool(found.get("use_cpu", False)),
    )
