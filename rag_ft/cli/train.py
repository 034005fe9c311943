"""`rag-ft train`: trains the recipe's adapter. `accelerate launch -m rag_ft.train` does the same on several devices."""

from __future__ import annotations

from typing import Annotated

import typer

from data_builders.errors import RagFtError
from rag_ft.cli.arguments import AccelerateOption, OverridesArgument, RecipeArgument, RestartOption


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    restart: RestartOption = False,
    accelerate: AccelerateOption = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show rows, memory, steps and time; train nothing.")] = False,
) -> int:
    """Train a recipe's adapter on the rows that `rag-ft build` made. Goes on where a stopped training was."""
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run, run_folder
    from rag_ft.training.ranks import processes

    loaded = load_recipe(recipe, overrides or ())
    if dry:
        from rag_ft.training.plan import dry_run

        dry_run(loaded, run_folder(loaded), typer.echo, accelerate)
        return 0
    if restart and processes() > 1:
        raise RagFtError(
            "--restart: several processes cannot each begin the run anew. Take --accelerate NAME, which does it once, "
            "or delete the folders training and adapter of the run first."
        )
    folder = open_run(loaded, restart=restart)
    from rag_ft.training.launch import start_training

    return start_training([recipe, *(overrides or ())], loaded, folder, typer.echo, accelerate)
