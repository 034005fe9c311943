"""`rag-ft export`: what a run has trained, in a folder fit for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument


def run(
    recipe: RecipeArgument,
    form: Annotated[str, typer.Argument(metavar="adapter|merged|gguf", help="What to export.", show_default=False)],
    overrides: OverridesArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where it goes: export/FORM in the run's folder.", show_default=False),
    ] = None,
    quantisation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Bits of a GGUF's weights, for example q8_0. Same as export.quantisation=."),
    ] = None,
) -> int:
    """Export the adapter, the model merged with it, or a GGUF file of that for Ollama and llama.cpp."""
    from data_builders.errors import RagFtError
    from rag_ft.export.run import export
    from rag_ft.export.trained import check_trained
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run, run_folder

    if quantisation and form in ("adapter", "merged"):
        raise RagFtError(
            f"--quantisation {quantisation} is about the weights of a GGUF file, and the form is {form}. Leave it out, "
            "or export gguf."
        )
    told = [*(overrides or ()), *([f"export.quantisation={quantisation}"] if quantisation else [])]
    loaded = load_recipe(recipe, told)
    check_trained(loaded, run_folder(loaded))  # before a run folder is made
    export(loaded, open_run(loaded), form, output, typer.echo)
    return 0
