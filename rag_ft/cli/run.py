"""`rag-ft run`: build, train, evaluate and report in one go."""

from __future__ import annotations

import resource
import shlex
import time

import typer

from rag_ft.cli.arguments import AccelerateOption, OverridesArgument, RecipeArgument, RestartOption


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    restart: RestartOption = False,
    accelerate: AccelerateOption = None,
) -> int:
    """Do everything a recipe says, from documents to report. Each part that is done already is kept."""
    from rich.console import Console

    from data_builders.build import build_data
    from data_builders.files import write_json
    from rag_ft.cli import report
    from rag_ft.evaluation.run import evaluate
    from rag_ft.labelling import local_writer
    from rag_ft.memory import give_back
    from rag_ft.models.weights import resolve_model
    from rag_ft.recipe.load import load_recipe
    from rag_ft.report.terminal import terminal_table
    from rag_ft.runs import open_run, run_folder
    from rag_ft.training.launch import start_training

    began = time.monotonic()
    loaded = load_recipe(recipe, overrides or ())
    from_nothing = not run_folder(loaded).root.exists()
    resolve_model(loaded.model, run_folder(loaded).training)  # a wrong name is said before anything is written
    folder = open_run(loaded, restart=restart)
    build_data(loaded.data, loaded.seed, folder.data, report=typer.echo, local=local_writer(loaded.model))
    told = [recipe, *(overrides or ())]
    if code := start_training(told, loaded, folder, typer.echo, accelerate, goes_on=True):
        return code
    give_back()  # model and optimizer are no longer needed; evaluation loads its own
    scores = evaluate(loaded, folder, typer.echo)
    report.write(loaded, folder, shlex.join(["rag-ft", "run", *told]))
    Console().print(terminal_table(scores))
    minutes = (time.monotonic() - began) / 60
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    cost = {"from_nothing": from_nothing, "minutes": round(minutes, 2), "peak_memory_gb": round(memory, 2)}
    write_json(folder.root / "cost.json", cost)
    typer.echo(f"done in {minutes:.1f} min, at most {memory:.1f} GB of memory")
    return 0
