"""Small builds for tests of the data pipeline: settings, running them, hashing what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_builders.build import build_data
from data_builders.data_settings import DataSettings
from data_builders.files import file_hash

STEPS = ["source", "clean", "retrieval/bm25", "pools", "contexts", "labels"]


def settings(**contexts: Any) -> DataSettings:
    return DataSettings.model_validate({"contexts": {"passages": {"kind": "fixed", "count": 3}, **contexts}})


def world_of(train: int, validation: int, test: int) -> dict[str, Any]:
    questions = {"train": train, "validation": validation, "test": test}
    return {"world": {"kind": "invented_world", "questions": questions}}


def world(**contexts: Any) -> DataSettings:
    """Return settings of the invented world, small."""
    return DataSettings.model_validate({"sources": world_of(160, 20, 20), "contexts": contexts})


def build(folder: Path, chosen: DataSettings, seed: int = 1) -> list[str]:
    lines: list[str] = []
    build_data(chosen, seed, folder, report=lines.append)
    return lines


def ran(lines: list[str]) -> list[str]:
    return [line.split(":")[0] for line in lines if ": building" in line]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".arrow"))
    return {str(path.relative_to(folder)): file_hash(path) for path in files}
