"""`rag-ft report`: the report page and the model card from what a run measured."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rag_ft.cli.arguments import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from rag_ft.export.card_facts import CardFacts
    from rag_ft.recipe.settings import Recipe
    from rag_ft.runs import RunFolder


def run(recipe: RecipeArgument, overrides: OverridesArgument = None) -> int:
    """Write report/report.html and report.md, and the card into the adapter folder."""
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import open_run

    loaded = load_recipe(recipe, overrides or ())
    write(loaded, open_run(loaded), shlex.join(["rag-ft", "run", recipe, *(overrides or ())]))
    return 0


def write(recipe: Recipe, folder: RunFolder, command: str) -> None:
    """Write page and card of a run whose scores are there; `command` is what reproduces it."""
    from rag_ft.export.card import write_card
    from rag_ft.facts import data_facts, environment_facts, training_facts
    from rag_ft.report.page import write_report
    from rag_ft.runs import read_json

    scores = read_json(folder.evaluation / "scores.json", "rag-ft evaluate RECIPE")
    examples = read_json(folder.evaluation / "examples.json", "rag-ft evaluate RECIPE")
    data, training, versions = data_facts(folder), training_facts(recipe, folder), environment_facts(folder)
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "weights": recipe.model.weights,
        "prompt hash": scores["prompt_hash"],
        "data": data,
        "training": training,
        "versions": versions,
        "command": command,
    }
    write_report(scores, examples, folder.report, facts=facts, browser=_browser(recipe, folder, scores))
    typer.echo(f"report: {folder.report / 'report.html'}")
    if folder.adapter.is_dir():
        card = card_of(recipe, folder, command)
        write_card(folder.adapter, scores, card)
        typer.echo(f"adapter: {folder.adapter} (with its model card)")


def card_of(recipe: Recipe, folder: RunFolder, command: str) -> CardFacts:
    """Return what the card of a run says beyond its scores; `command` is what reproduces it."""
    from rag_ft.export.card_facts import card_facts
    from rag_ft.export.vllm import vllm_refuses
    from rag_ft.facts import data_facts, environment_facts, training_facts, weights_revision

    facts = card_facts(
        recipe.model_dump(mode="json"),
        data=data_facts(folder),
        training=training_facts(recipe, folder),
        versions=environment_facts(folder),
        command=command,
        revision=weights_revision(folder),
    )
    config = _written(folder.adapter / "adapter_config.json")
    role = _written(folder.adapter / "prompt.json").get("chat")
    return replace(
        facts,
        rank=config["r"] if isinstance(config.get("r"), int) else facts.rank,
        vllm_refuses=vllm_refuses(config, recipe.model) if isinstance(config.get("r"), int) else (),
        system_role=not isinstance(role, dict) or role.get("system_role") is not False,
    )


def _written(path: Path) -> dict[str, Any]:
    """Return what stands in a file beside the adapter; nothing where there is none, as with all weights trained."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _browser(recipe: Recipe, folder: RunFolder, scores: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows of single questions; None for a run evaluated before single answers were kept."""
    from rag_ft.cli.compare import questions_of
    from rag_ft.evaluation.compare import read_answers, read_outputs
    from rag_ft.report.disagreements import browser
    from rag_ft.report.findings import systems_of

    path = folder.evaluation / "answers.jsonl"
    if not path.is_file():
        return None
    pools, systems = questions_of(folder.root), systems_of(scores)
    return browser(
        scores, read_answers(path), pools, lambda rows: read_outputs(folder.root, rows), systems, recipe.seed
    )
