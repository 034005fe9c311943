"""From a recipe file and overrides to a checked `Recipe`, with all mistakes at once. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_builders.errors import RagFtError
from rag_ft.recipe import (
    evaluation_rules,
    label_rules,
    model_rules,
    rules,
    stage_rules,
    synthesis_rules,
    training_rules,
)
from rag_ft.recipe.merge import apply_overrides, overlay
from rag_ft.recipe.messages import data_path, problems_of
from rag_ft.recipe.problems import KeyPath, Node, Problem, nearest, report, shown
from rag_ft.recipe.rule import broken_rules
from rag_ft.recipe.settings import Recipe
from rag_ft.recipe.shipped import shipped_recipes
from rag_ft.recipe.yaml_tree import read_yaml

RULE_BOOKS = (
    rules,
    model_rules,
    training_rules,
    stage_rules,
    evaluation_rules,
    label_rules,
    synthesis_rules,
)  # a rule is known once its module is imported


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe, lay it over the recipes it extends, apply overrides and check everything.

    Args:
        path: a recipe file, or the name of a shipped recipe (`quickstart`).
        overrides: `key.path=value`, the value written as YAML.

    Raises:
        RagFtError: every mistake in the recipe, its base recipes and the overrides, each with file, line and key.
    """
    problems: list[Problem] = []
    node = apply_overrides(_read_chain(find_recipe(path), str(path), problems), overrides)
    recipe, bad = _validate(node, problems)
    problems += broken_rules(recipe, node, bad)
    if problems:
        raise report(problems)
    return recipe


def find_recipe(path: str | Path, folder: Path | None = None) -> Path:
    """Return the file that `path` means: a file (relative to `folder`), else a shipped recipe of that name.

    Raises:
        RagFtError: neither exists; the message has the nearest names.
    """
    file = (folder or Path()) / Path(path).expanduser()
    if _exists(file) and not file.is_dir():
        return file
    shipped = shipped_recipes()
    name = str(path).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    if _exists(file):
        raise RagFtError(f"{path} is a folder: name the recipe file in it, for example {path}/recipe.yaml.")
    near = _nearest_file(file) or nearest(name, shipped)
    hint = f"Did you mean {near}? " if near else ""
    raise RagFtError(f"there is no recipe {shown(str(path))}. {hint}See the shipped ones with: rag-ft recipes list")


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name too long, a zero byte
        return False


def _nearest_file(file: Path) -> Path | None:
    if not _exists(file.parent):
        return None
    names = [other.name for pattern in ("*.yaml", "*.yml") for other in file.parent.glob(pattern)]
    near = nearest(file.name, names)
    return file.parent / near if near else None


def _read_chain(file: Path, label: str, problems: list[Problem]) -> Node:
    """Read a recipe and the chain it extends; return the merged mapping."""
    label = label if Path(label).expanduser() == file else str(file)
    chain: list[Node] = []
    seen: list[Path] = []
    next_file: Path | None = file
    while next_file is not None:
        seen.append(next_file.resolve())
        node, mistakes = read_yaml(next_file, label)
        problems += mistakes
        next_file = _base_file(node, next_file.parent, seen)
        label = str(next_file)
        chain.append(Node({key: child for key, child in node.value.items() if key != "extends"}, node.origin))
    merged = chain.pop()
    while chain:
        merged = overlay(merged, chain.pop())
    return merged


def _base_file(node: Node, folder: Path, seen: Sequence[Path]) -> Path | None:
    extends = node.value.get("extends")
    if extends is None:
        return None
    if not isinstance(extends.value, str):
        message = f"{shown(extends.plain())} is not a path: write extends: FILE, relative to this file."
        raise report([Problem(("extends",), message, extends.origin)])
    try:
        base = find_recipe(extends.value, folder)
    except RagFtError as error:
        raise report([Problem(("extends",), str(error), extends.origin)]) from error
    if base.resolve() in seen:
        message = f"{extends.value} extends this recipe in turn: break the circle."
        raise report([Problem(("extends",), message, extends.origin)])
    return base


def _validate(node: Node, problems: list[Problem]) -> tuple[Recipe, set[KeyPath]]:
    """Validate; where that fails, note the problems and replace what is wrong by defaults.

    Returns:
        A recipe for the cross-field rules, and the paths in it that are not what the user wrote.
    """
    data, bad = node.plain(), set[KeyPath]()
    while True:
        try:
            return Recipe.model_validate_json(json.dumps(data)), bad
        except ValidationError as error:
            errors = error.errors(include_url=False)
            if not bad:
                problems += problems_of(errors, node)
            wrong = {_setting(mistake, data) for mistake in errors}
            for path in wrong:
                _take_out(data, path)
            bad |= wrong


def _setting(error: Mapping[str, Any], data: dict[str, Any]) -> KeyPath:
    """Return the path of the setting to take out: never inside a list, and the mapping where a key of it is missing."""
    path = data_path(error, data)
    path = path[: next((i for i, key in enumerate(path) if isinstance(key, int)), len(path))]
    return path[:-1] or path if error["type"] == "missing" or path[-1] == "kind" else path


def _take_out(data: dict[str, Any], path: KeyPath) -> None:
    """Remove a setting so that its default stands in; what holds it may be gone already."""
    if path == ("name",):
        data["name"] = "unnamed"
        return
    owner: Any = data
    for key in path[:-1]:
        owner = owner.get(key) if isinstance(owner, dict) else None
    if isinstance(owner, dict) and path[-1] in owner:
        del owner[path[-1]]
    else:
        data.pop(str(path[0]), None)  # never leave `data` as it was, or validation would not end
