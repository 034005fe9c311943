"""The arguments that several verbs take, written once."""

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

AdapterOption = Annotated[
    str | None, typer.Option(help="Folder or Hub id of an adapter, or of whole weights. With --server: how to ask.")
]
RunOption = Annotated[str | None, typer.Option(help="A run, by folder or by name below runs/: its adapter.")]
ServerOption = Annotated[
    str | None, typer.Option(metavar="URL", help="A server that speaks the OpenAI protocol, such as Ollama's.")
]
ModelOption = Annotated[str | None, typer.Option(metavar="NAME", help="The model's name on that server.")]
KeyOption = Annotated[str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the server's key.")]
MismatchOption = Annotated[
    bool, typer.Option("--allow-prompt-mismatch", help="Ask weights otherwise than they were trained.")
]
