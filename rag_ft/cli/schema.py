"""`rag-ft schema`: the JSON Schema of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE, not to the screen.")
    ] = None,
) -> int:
    """Write the JSON Schema of recipes. An editor that knows it completes keys and marks mistakes."""
    from data_builders.files import atomic_path
    from rag_ft.recipe.schema import schema_text

    if output is None:
        typer.echo(schema_text(), nl=False)
        return 0
    with atomic_path(output) as temporary:
        temporary.write_text(schema_text(), encoding="utf-8")
    typer.echo(f"wrote {output}")
    return 0
