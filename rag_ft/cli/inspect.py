"""`rag-ft inspect`: rendered training examples in the terminal, token by token. Changes nothing."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many rows to show.")] = 1,
    tokens: Annotated[bool, typer.Option("--tokens", help="Mark where each token ends.")] = False,
) -> int:
    """Show training rows as the model sees them: spans in colour, what carries loss, token counts."""
    from rich.console import Console

    from data_builders.build import require_built
    from data_builders.paths import data_paths
    from data_builders.tables import read_context_rows
    from rag_ft.models.load import load_tokenizer
    from rag_ft.models.weights import resolve_weights
    from rag_ft.prompting.encode import Encoder
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import run_folder
    from rag_ft.training.view import legend, row_view

    loaded = load_recipe(recipe, overrides or ())
    require_built(loaded.data, loaded.seed, run_folder(loaded).data)
    rows = read_context_rows(data_paths(run_folder(loaded).data).labels["train"])
    weights = resolve_weights(loaded.model.weights, loaded.model.revision)
    encoder = Encoder(load_tokenizer(loaded.model, weights), loaded.model.prompt, loaded.model.chat_template_kwargs)
    console = Console(highlight=False, soft_wrap=True)
    console.print(legend())
    for row in islice(rows, count):
        console.print(row_view(row, encoder, loaded.training.max_length, show_tokens=tokens))
    return 0
