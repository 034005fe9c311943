"""`rag-ft recipes`: the recipes that come with rag-ft. Checks none."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from data_builders.errors import RagFtError

_ACTIONS = ("list", "show", "copy")
_SCHEMA_LINE = "# yaml-language-server: $schema="


def run(
    action: Annotated[str, typer.Argument(metavar="list|show|copy", help="What to do.")] = "list",
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which recipe to show or copy.", show_default=False)
    ] = None,
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", help="File or folder to copy to.", show_default="NAME.yaml")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> int:
    """List, show or copy the recipes and prompt templates that come with rag-ft. A copy is yours to edit."""
    from rag_ft.recipe.problems import suggestion
    from rag_ft.recipe.shipped import shipped_recipes, shipped_templates

    if action not in _ACTIONS:
        raise RagFtError(f"rag-ft recipes cannot {action}: {suggestion(action, _ACTIONS)}")
    if action == "list":
        return _list(shipped_recipes())
    if name is None:
        raise RagFtError(f"which recipe? Write rag-ft recipes {action} NAME; rag-ft recipes list has the names.")
    known = {**shipped_recipes(), **shipped_templates()}
    source = known.get(name.removesuffix(".yaml").removesuffix(".txt"))
    if source is None:
        raise RagFtError(f'no recipe "{name}" comes with rag-ft: {suggestion(name, known)}')
    if action == "show":
        typer.echo(source.read_text(encoding="utf-8"), nl=False)
        return 0
    return _copy(source, destination or Path(source.name), force)


def _list(recipes: dict[str, Path]) -> int:
    from rag_ft.recipe.shipped import summary

    width = max(map(len, recipes), default=0) + 2
    for name, path in recipes.items():
        typer.echo(f"{name:<{width}}{summary(path)}".rstrip())
    return 0


def _copy(source: Path, destination: Path, force: bool) -> int:
    """Copy a template, or a recipe and, beside it, the schema its first line names."""
    target = destination / source.name if destination.is_dir() else destination
    schema = target.with_name("rag-ft.schema.json")
    if target.exists() and not force:
        raise RagFtError(f"{target} exists: choose another DEST, or overwrite it with --force.")
    if source.suffix == ".txt":
        _write(target, source.read_text(encoding="utf-8"))
        typer.echo(f"wrote {target}\nnext: name it in a recipe, as data.labels.template or data.questions.template")
        return 0
    _write(target, _portable(source, schema.name))
    written = [str(target)]
    if force or not schema.exists():
        from rag_ft.recipe.schema import schema_text

        _write(schema, schema_text())
        written.append(f"{schema} (completion in editors)")
    typer.echo(f"wrote {' and '.join(written)}\nnext: rag-ft check {target}")
    return 0


def _portable(source: Path, schema: str) -> str:
    """Return a shipped recipe's text with references that work from any folder: base recipes by shipped name."""
    from rag_ft.recipe.shipped import shipped_folder

    def shipped_name(match: re.Match[str]) -> str:
        base = Path(os.path.normpath(source.parent / match["path"]))
        return f"{match['key']}{base.relative_to(shipped_folder()).with_suffix('').as_posix()}"

    text = source.read_text(encoding="utf-8")
    text = re.sub(rf"^{re.escape(_SCHEMA_LINE)}.*$", _SCHEMA_LINE + schema, text, flags=re.MULTILINE)
    return re.sub(r"^(?P<key>extends:\s*)(?P<path>[^\s#]+\.yaml)", shipped_name, text, flags=re.MULTILINE)


def _write(path: Path, text: str) -> None:
    from data_builders.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
