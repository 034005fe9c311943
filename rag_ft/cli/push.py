"""`rag-ft push`: adapter, exported model or data of a run to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from data_builders.errors import RagFtError
from rag_ft.cli.arguments import OverridesArgument, RecipeArgument

if TYPE_CHECKING:
    from rag_ft.export.push_files import Gathered
    from rag_ft.export.push_scan import Places
    from rag_ft.recipe.settings import Recipe
    from rag_ft.runs import RunFolder

What = Literal["adapter", "merged", "gguf", "data"]
RepoOption = Annotated[
    str, typer.Option("--repo", metavar="ORG/NAME", help="The repository; made where there is none.")
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository that only you can see.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="List the files and send nothing.")]
WhatOption = Annotated[str, typer.Option("--what", metavar="WHAT", help=f"What to send: {', '.join(get_args(What))}.")]
RevisionOption = Annotated[
    str, typer.Option("--revision", metavar="BRANCH", help="The branch; made where there is none.")
]


def run(
    recipe: RecipeArgument,
    repo: RepoOption,
    overrides: OverridesArgument = None,
    private: PrivateOption = False,
    dry_run: DryOption = False,
    what: WhatOption = "adapter",
    revision: RevisionOption = "main",
) -> int:
    """Push adapter, card, figure, recipe, manifests and prompt contract of a run to the Hub, in one commit.

    Only files on a list of names are sent, and none that holds a secret. Repeat the command when it breaks off: what
    has arrived is not sent again.
    """
    from rag_ft.export.push_files import refuse_secrets
    from rag_ft.export.push_hub import Target, check_target, kept_token, push
    from rag_ft.export.push_scan import key_variables, known_places, known_secrets
    from rag_ft.recipe.load import load_recipe
    from rag_ft.runs import run_folder

    if what not in get_args(What):
        raise RagFtError(f"--what {what}: there is {', '.join(get_args(What))}. Write one of these.")
    loaded = load_recipe(recipe, overrides or ())
    folder = run_folder(loaded)
    target = Target(repo, "dataset" if what == "data" else "model", private, revision)
    check_target(target)
    places = known_places(folder.root)
    typer.echo(f"push: {what} of {folder.root} to {repo}{'' if revision == 'main' else f', branch {revision}'}")
    made_from(folder, loaded)
    gathered = _gathered(loaded, folder, what, repo, places, private)
    secrets = known_secrets(key_variables(loaded.model_dump(mode="json")), kept_token())
    refuse_secrets(gathered.files, secrets, places, typer.echo)
    if dry_run:
        typer.echo("dry run: nothing was sent")
        return 0
    pushed = push(target, gathered.files, f"{what} of {loaded.name}, by rag-ft", secrets, typer.echo)
    typer.echo(f"pushed: {pushed.url}" if pushed.changed else f"nothing to do: all of it is there, {pushed.url}")
    return 0


def made_from(folder: RunFolder, recipe: Recipe) -> None:
    """Make sure that a run was made from this recipe, so that card and recipe tell of what is sent.

    Raises:
        RagFtError: there is no run, or it was made from another recipe.
    """
    import yaml

    from rag_ft.runs import differences, trained_settings

    path = folder.root / "recipe.resolved.yaml"
    if not path.is_file():
        raise RagFtError(f"{folder.root} holds no run, so there is nothing to push. Make it with `rag-ft run RECIPE`.")
    try:
        changed = differences(
            trained_settings(yaml.safe_load(path.read_text(encoding="utf-8"))),
            trained_settings(recipe.model_dump(mode="json")),
        )
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise RagFtError(f"{path} is damaged. Write it again with `rag-ft build RECIPE`.") from error
    if changed:
        raise RagFtError(
            f"{folder.root} was made from another recipe ({changed}), so the card would tell of something else. Push "
            "it with the recipe it was made from; export and evaluation may differ."
        )


def _gathered(recipe: Recipe, run: RunFolder, what: str, repo: str, places: Places, private: bool) -> Gathered:
    """Gather what is sent, and say what it is."""
    from rag_ft.export.push import about_files

    if what == "data":
        gathered, notes = _data(recipe, run, repo, places, private)
    else:
        gathered, notes = _model(recipe, run, what, repo, places)
    about_files(gathered, typer.echo)
    for note in notes:
        typer.echo(f"  note: {note}")
    return gathered


def _model(recipe: Recipe, run: RunFolder, what: str, repo: str, places: Places) -> tuple[Gathered, list[str]]:
    from rag_ft.cli.report import card_of
    from rag_ft.export.push import Records, licence_notes, model_files
    from rag_ft.prompting.contract import FILE as CONTRACT_FILE
    from rag_ft.runs import read_json

    folder = run.adapter if what == "adapter" else run.root / "export" / what
    remedy = "rag-ft train RECIPE" if what == "adapter" else f"rag-ft export RECIPE {what}"
    if not folder.is_dir():
        raise RagFtError(f"{folder} does not exist, so there is nothing to push. Make it with `{remedy}`.")
    _check_age(folder, run, remedy)
    scored = run.evaluation / "scores.json"
    scores = read_json(scored, "rag-ft evaluate RECIPE") if scored.is_file() else None
    facts = replace(card_of(recipe, run, f"rag-ft run {recipe.name}.yaml"), repo=repo)
    if what != "adapter":
        told = read_json(folder / "export.json", remedy)
        facts = replace(facts, form="gguf" if what == "gguf" else "merged", exported=told)
    records = Records(recipe.model_dump(mode="json"), manifests_of(run), scores, places)
    gathered = model_files(folder, facts, records, remedy, run.adapter / CONTRACT_FILE)
    return gathered, licence_notes(facts)


def _check_age(folder: Path, run: RunFolder, remedy: str) -> None:
    """Refuse an export that is older than what was trained, so that its card would tell of other weights."""
    from rag_ft.models.adapters import saved_weights

    weights, record = saved_weights(run.adapter), folder / "export.json"
    if folder == run.adapter or weights is None or not record.is_file():
        return
    if record.stat().st_mtime < weights.stat().st_mtime:
        raise RagFtError(
            f"{folder} is older than {run.adapter}: it was exported before the last training. Export it anew with "
            f"`{remedy}`."
        )


def _data(recipe: Recipe, run: RunFolder, repo: str, places: Places, private: bool) -> tuple[Gathered, list[str]]:
    from data_builders.build import require_built
    from rag_ft.export.card_facts import data_sources, label_writer
    from rag_ft.export.data_card import DataFacts, check_licences, data_files, data_tables
    from rag_ft.export.push import Records, data_notes
    from rag_ft.facts import data_facts, environment_facts

    told = recipe.model_dump(mode="json")
    sources = data_sources(told["data"]["sources"], recipe.export)
    check_licences(sources, private)
    require_built(recipe.data, recipe.seed, run.data)
    manifests = manifests_of(run)
    facts = DataFacts(
        name=recipe.name,
        repo=repo,
        sources=sources,
        labels=label_writer(told["data"]["labels"]),
        language=recipe.export.language,
        counts=data_facts(run),
        dropped={step: one["dropped"] for step, one in manifests.items() if one.get("dropped")},
        version=environment_facts(run)["rag-ft"],
    )
    records = Records(told, manifests, None, places).files()
    return data_files(data_tables(run.data, manifests), facts, records, places), data_notes(sources)


def manifests_of(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the manifest of every step of a run's build, by step; of a step that has several parts, of each."""
    from data_builders.manifest import MANIFEST, read_manifest

    found = {}
    for path in sorted(run.data.rglob(MANIFEST)):
        step, manifest = path.parent.relative_to(run.data).parts, read_manifest(path.parent)
        if manifest is not None and not any(part.startswith(".") for part in step):  # parts of an unfinished step
            found["-".join(step)] = manifest
    return found
