"""`rag-ft evaluate`: accuracy as passages are added, for every system of the recipe."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N questions; stamps the scores PARTIAL.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="A named set of sweeps: quick, robust, full or rgb. Same as evaluation.suite=.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask again what failed, with a server for example.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Delete earlier predictions first.")] = False,
) -> int:
    """Answer the test questions at every point of the grid and score the answers. Keeps answers it already has."""
    from rich.console import Console

    from rag_ft.evaluation.run import evaluate
    from rag_ft.recipe.load import load_recipe
    from rag_ft.report.terminal import terminal_table
    from rag_ft.runs import open_run

    told = [*(overrides or ()), *([f"evaluation.suite={suite}"] if suite else [])]
    loaded = load_recipe(recipe, told)
    folder = open_run(loaded)
    if restart:
        shutil.rmtree(folder.evaluation / "predictions", ignore_errors=True)
    scores = evaluate(loaded, folder, typer.echo, limit=limit, again=again)
    Console().print(terminal_table(scores))
    return 0
