"""Where training runs: in this process, in a fresh one, or in several under accelerate. Trains nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.run import Report, train


def start_training(
    told: Sequence[str], recipe: Recipe, run: RunFolder, report: Report, accelerate: str | None = None
) -> None:
    """Train in this process.

    Args:
        told: the recipe and overrides as on the command line.
        recipe: what they mean.
        run: its folder, opened.
        report: takes lines.
        accelerate: the name of a configuration in `accelerate_configs/`, or the path of one.
    """
    train(recipe, run, report)
