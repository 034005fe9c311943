"""Building the data of a recipe and making sure that they are built. The steps are in data_steps.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_builders.errors import RagFtError

if TYPE_CHECKING:
    from data_builders.data_settings import DataSettings
    from data_builders.label_step import LocalWriter


def build_data(
    settings: DataSettings,
    seed: int,
    folder: Path,
    *,
    report: Callable[[str], None],
    local: LocalWriter | None = None,
) -> None:
    """Build every step below `folder`, running only those whose inputs or files changed.

    Args:
        settings: the `data` section of a recipe.
        seed: seed of everything random; the same settings and seed give the same bytes.
        folder: the data folder of a run; made if missing.
        report: takes the lines a person reads.
        local: writes the labels of self-synthesis.

    Raises:
        RagFtError: the sources' data break a contract, or the folder cannot be written.
    """
    from data_builders.data_steps import data_steps
    from data_builders.executor import Executor
    from data_builders.steps import run_steps

    executor = Executor(settings.executor, settings.processes)
    run_steps(data_steps(settings, seed, folder, local), seed, folder, report, executor)


def require_built(settings: DataSettings, seed: int, folder: Path) -> None:
    """Make sure that the files below `folder` are those these settings and this seed give.

    Raises:
        RagFtError: a step was not built, was built from something else, or lost or changed a file.
    """
    from data_builders.data_steps import data_steps
    from data_builders.steps import first_stale

    stale = first_stale(data_steps(settings, seed, folder), seed, folder)
    if stale:
        raise _other_data(folder, stale)


def require_pools(settings: DataSettings, seed: int, folder: Path, *, report: Callable[[str], None]) -> None:
    """Make sure that the questions and their pools are those of these settings; build what was never built.

    Contexts and labels are for training: they are neither looked at nor made.

    Args:
        settings: the `data` section of a recipe.
        seed: as in `build_data`.
        folder: the data folder of a run.
        report: takes the lines a person reads, where something is built.

    Raises:
        RagFtError: a step was built from something else, lost or changed a file, or has questions to ask a teacher
            for, which may cost money; or as `build_data` does.
    """
    from data_builders.data_steps import data_steps
    from data_builders.executor import Executor
    from data_builders.manifest import read_manifest
    from data_builders.steps import first_stale, run_steps

    every = data_steps(settings, seed, folder)
    steps = every[: [step.name for step in every].index("pools") + 1]
    there = [read_manifest(folder / step.name) is not None for step in steps]
    built = there.index(False) if False in there else len(steps)
    if stale := first_stale(steps[:built], seed, folder):
        raise _other_data(folder, stale)
    if paid := [step.name for step in steps[built:] if step.name in PAID]:
        raise RagFtError(
            f"{folder} has no {paid[0]} yet, for which a teacher is asked. Run `rag-ft build RECIPE` first."
        )
    if built < len(steps):
        run_steps(steps, seed, folder, report, Executor(settings.executor, settings.processes))


def _other_data(folder: Path, stale: str) -> RagFtError:
    return RagFtError(f"the data in {folder} are not those of this recipe: {stale}. Run `rag-ft build RECIPE` first.")


def price_data(settings: DataSettings, seed: int, folder: Path, *, report: Callable[[str], None]) -> None:
    """Build every step that is free, and say what asking a server for the rest would cost; ask nothing.

    Args:
        settings: the `data` section of a recipe.
        seed: as in `build_data`.
        folder: the data folder of a run.
        report: takes the lines a person reads.

    Raises:
        RagFtError: as `build_data` does.
    """
    from data_builders.data_steps import data_steps, label_files, synthesis_files
    from data_builders.executor import Executor
    from data_builders.label_step import price_labels
    from data_builders.paths import data_paths
    from data_builders.steps import first_stale, run_steps
    from data_builders.synthesis_step import price_questions

    steps, executor = data_steps(settings, seed, folder), Executor(settings.executor, settings.processes)
    if settings.questions is not None:
        run_steps(steps[:1], seed, folder, report, executor)
        files = synthesis_files(data_paths(folder))
        report(price_questions(settings.questions, files, [*settings.sources], seed))
        if first_stale(steps[:2], seed, folder, building=True):
            return report("labels: their price can be said once the questions are written")
    run_steps([step for step in steps if step.name not in PAID], seed, folder, report, executor)
    report(price_labels(label_files(data_paths(folder)), settings.labels, settings.contexts.gold_absent))


PAID = ("synthesis", "labels")
"""Steps that may ask a server."""
