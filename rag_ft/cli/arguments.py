"""The arguments that every verb with a recipe takes, written once."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.", show_default=False)
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Settings to change, for example training.epochs=2.", show_default=False),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Delete the run folder's training, adapter and evaluation first.")
]
"""Beginning a run anew."""

AccelerateOption = Annotated[
    str | None,
    typer.Option(
        "--accelerate", metavar="NAME", help="Train on several devices: a name in accelerate_configs/, or a file."
    ),
]
"""Under which configuration of accelerate to train."""
