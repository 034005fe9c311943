"""Runs steps: skips what stands, rebuilds what is stale and says why. Knows nothing of what a step does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import file_hash
from data_builders.manifest import MANIFEST, Identity, Tally, why_stale, write_manifest


@dataclass(frozen=True)
class Step:
    """One cached unit of work.

    Attributes:
        name: its folder below the data folder.
        version: raised when the code changes what the step writes.
        settings: the part of the recipe it depends on, as plain JSON values.
        needs: files of earlier steps it reads, relative to the data folder.
        files: names of the files it writes into its folder.
        work: fills its folder and tells the tally the rows of each file.
    """

    name: str
    version: int
    settings: dict[str, Any]
    needs: tuple[str, ...]
    files: tuple[str, ...]
    work: Callable[[Path, Tally], None]


def run_steps(steps: Sequence[Step], seed: int, folder: Path, report: Callable[[str], None]) -> None:
    """Bring every step up to date, in order. A step whose inputs came out the same is not run again.

    Raises:
        RagFtError: the folder cannot be written.
    """
    for step in steps:
        target = folder / step.name
        identity = _identity(step, seed, folder)
        reason = why_stale(target, identity, step.files)
        if reason is None:
            report(f"{step.name}: unchanged")
            continue
        report(f"{step.name}: building ({reason})")
        _run(step, identity, target, report)


def first_stale(steps: Sequence[Step], seed: int, folder: Path) -> str | None:
    """Return which step is not up to date and why, or None when all are."""
    for step in steps:
        if any(not (folder / name).is_file() for name in step.needs):
            return f"{step.name} lacks what it is built from"
        reason = why_stale(folder / step.name, _identity(step, seed, folder), step.files)
        if reason is not None:
            return f"{step.name} ({reason})"
    return None


def _identity(step: Step, seed: int, folder: Path) -> Identity:
    inputs = {name: file_hash(folder / name) for name in step.needs}
    return Identity(step.name, step.version, step.settings, seed, inputs)


def _run(step: Step, identity: Identity, target: Path, report: Callable[[str], None]) -> None:
    started, tally = time.monotonic(), Tally()
    _clear(target)
    step.work(target, tally)
    seconds = time.monotonic() - started
    write_manifest(target, identity, tally, seconds)
    rows = ", ".join(f"{name} {count} rows" for name, count in tally.rows.items())
    report(f"{step.name}: {rows} in {seconds:.1f} s")
    for line in tally.lines():
        report(f"  {line}")


def _clear(target: Path) -> None:
    """Remove the manifest first, so that a crash leaves none beside half the files; then the step's old files."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / MANIFEST).unlink(missing_ok=True)
        leftovers = [*target.glob("*.parquet"), *target.glob(".*.tmp")]
        for path in leftovers:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RagFtError(
            f"cannot write {target}: {error.strerror}. Make the folder writable or choose another with runs_dir=PATH."
        ) from error
