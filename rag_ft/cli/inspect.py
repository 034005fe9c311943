"""`rag-ft inspect`: rendered training examples in the terminal, token by token. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from rich.text import Text

    from rag_ft.recipe.settings import Recipe
    from rag_ft.training.stages import Stage
    from rag_ft.training.view import View


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many rows to show.")] = 1,
    tokens: Annotated[bool, typer.Option("--tokens", help="Mark where each token ends.")] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="The stage to show; else the last.")] = None,
) -> int:
    """Show training rows as the model sees them: spans in colour, what carries loss, token counts."""
    from rich.console import Console

    from rag_ft.models.load import load_tokenizer
    from rag_ft.models.weights import resolve_model
    from rag_ft.prompting.encode import Encoder
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import run_folder
    from rag_ft.training.view import View, legend

    loaded = load_recipe(recipe, overrides or ())
    chosen = _stage(loaded, stage)
    _require_data(loaded)
    weights = resolve_model(loaded.model, run_folder(loaded).training)
    encoder = Encoder(load_tokenizer(loaded.model, weights), loaded.model.prompt, loaded.model.chat_template_kwargs)
    console = Console(highlight=False, soft_wrap=True)
    if chosen.name:
        console.print(f"Stage {chosen.name}: {', '.join(chosen.spans)} carry loss.")
    console.print(legend(chosen.spans))
    view = View(encoder, loaded.training.max_length, chosen.spans, tokens)
    for text in (*_contexts(loaded, chosen, view, count), *_chats(loaded, view, count)):
        console.print(text)
    return 0


def _stage(recipe: Recipe, name: str | None) -> Stage:
    from data_builders.errors import RagFtError
    from rag_ft.recipe.problems import suggestion
    from rag_ft.runs import run_folder
    from rag_ft.training.stages import planned_stages

    stages = {stage.name: stage for stage in planned_stages(recipe.training, run_folder(recipe).training)}
    if name is None:
        return list(stages.values())[-1]
    if name in stages and name:
        return stages[name]
    if not recipe.training.stages:
        raise RagFtError(f"--stage {name}: the recipe has no stages. Leave --stage out, or add training.stages.")
    raise RagFtError(f"--stage {name}: the recipe has no such stage; {suggestion(name, list(stages))}")


def _require_data(recipe: Recipe) -> None:
    from data_builders.build import require_built
    from rag_ft.runs import run_folder
    from rag_ft.training.dataset import needs_data

    if needs_data(recipe.training):
        require_built(recipe.data, recipe.seed, run_folder(recipe).data)


def _contexts(recipe: Recipe, stage: Stage, view: View, count: int) -> Iterator[Text]:
    """Yield the first `count` context rows that the stage draws."""
    from collections import Counter
    from dataclasses import replace
    from itertools import islice

    from data_builders.paths import data_paths
    from data_builders.tables import read_context_rows
    from rag_ft.runs import run_folder
    from rag_ft.training.dataset import draw_of, drawn_rows, needs_data
    from rag_ft.training.view import row_view

    if not needs_data(recipe.training):
        return
    rows = read_context_rows(data_paths(run_folder(recipe).data).labels["train"])
    drawn = drawn_rows(rows, draw_of(recipe, stage), recipe.model.prompt.style, Counter())
    for row, style in islice(drawn, count):
        yield row_view(row, replace(view, encoder=view.encoder.styled(style)))


def _chats(recipe: Recipe, view: View, count: int) -> Iterator[Text]:
    """Yield the chat rows that go with `count` context rows, one at least; `count` where there are only those."""
    from rag_ft.training.chat import drawn_conversations, wanted_rows
    from rag_ft.training.view import chat_view

    chat = recipe.training.chat
    if chat is None:
        return
    beside = wanted_rows(chat.share, count)
    drawn = drawn_conversations(chat, None if beside is None else max(1, beside), recipe.seed, view.encoder)
    for conversation in drawn[:count] if beside is None else drawn:
        yield chat_view(conversation, view)
