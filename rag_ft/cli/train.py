"""`rag-ft train`: trains the recipe's adapter. `accelerate launch -m rag_ft.train` does the same on several devices."""

from __future__ import annotations

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument, RestartOption


def run(recipe: RecipeArgument, overrides: OverridesArgument = None, restart: RestartOption = False) -> int:
    """Train a recipe's adapter on the rows that `rag-ft build` made. Goes on where a stopped training was."""
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run

    loaded = load_recipe(recipe, overrides or ())
    folder = open_run(loaded, restart=restart)
    from rag_ft.training.run import train

    train(loaded, folder, typer.echo)
    return 0
