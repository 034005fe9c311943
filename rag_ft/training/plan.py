"""What a training would do and cost: rows, tokens, memory, steps, time. Trains nothing."""

from __future__ import annotations

from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.run import Report


def dry_run(recipe: Recipe, run: RunFolder, report: Report) -> None:
    """Report the plan of a training."""
    report(f"plan of {recipe.name} in {run.root}")
