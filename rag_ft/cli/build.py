"""`rag-ft build`: from documents and questions to labelled training rows."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument, RestartOption


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    restart: RestartOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build what is free, say what asking a server would cost, ask nothing.")
    ] = False,
) -> int:
    """Build the training rows and evaluation pools of a recipe. Steps whose inputs did not change are kept."""
    from data_builders.build import build_data, price_data
    from data_builders.errors import RagFtError
    from rag_ft.labelling import local_writer
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run

    if dry_run and restart:
        raise RagFtError("--dry-run deletes nothing and --restart would: give one of them.")
    loaded = load_recipe(recipe, overrides or ())
    folder = open_run(loaded, restart=restart)
    if dry_run:
        price_data(loaded.data, loaded.seed, folder.data, report=typer.echo)
    else:
        build_data(loaded.data, loaded.seed, folder.data, report=typer.echo, local=local_writer(loaded.model))
    return 0
