"""pydantic's validation errors -> our problems: what was given, why it cannot work, the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rag_ft.recipe.fields import every_path, kinds_at, kinds_with, names_at, settings_at
from rag_ft.recipe.problems import KeyPath, Node, Problem, dotted, nearest, shown
from rag_ft.recipe.trainer_fields import trainer_fields

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def problems_of(errors: Sequence[Mapping[str, Any]], recipe: Node) -> list[Problem]:
    """Translate `ValidationError.errors()` of a recipe whose nodes are `recipe`."""
    data = recipe.plain()
    grouped: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for error in errors:
        grouped.setdefault(data_path(error, data), []).append(error)
    return [
        Problem(path, _message(path, group, data), list(recipe.walk(path))[-1].origin)
        for path, group in grouped.items()
        if not _said_better(path, grouped, data)
    ]


def _said_better(path: KeyPath, grouped: Mapping[KeyPath, Sequence[Mapping[str, Any]]], data: Any) -> bool:
    """Tell whether what is wrong at `path` is explained by the message for another path."""
    types = {error["type"] for error in grouped[path]}
    if types == {"missing"}:  # the key is there, misspelt
        siblings = [other for other in grouped if other[:-1] == path[:-1] and other != path]
        misspelt = [other[-1] for other in siblings if grouped[other][0]["type"] == "extra_forbidden"]
        return any(nearest(str(name), names_at(path[:-1], data)) == path[-1] for name in misspelt)
    if types <= {"missing", "extra_forbidden"}:
        return False
    if _lacks_a_name(path, data):
        return path[-1] != "kind"
    # Where one member of a union fails inside, the other members' complaints about the outside only distract.
    return any(len(other) > len(path) and other[: len(path)] == path for other in grouped)


def _lacks_a_name(path: KeyPath, data: Any) -> bool:
    """Tell whether a key stands where the recipe's own names do, beside a `kind`: {sources: {kind: jsonl, ...}}."""
    parent, holder = path[:-1], data
    for key in parent:
        holder = holder.get(key) if isinstance(holder, dict) else None
    holds_kind = isinstance(holder, dict) and isinstance(holder.get("kind"), str)
    return holds_kind and not settings_at(parent, data) and bool(kinds_at((*parent, "kind"), data))


def data_path(error: Mapping[str, Any], data: Any) -> KeyPath:
    """Return the key path in the recipe that an error is about: pydantic's, without the names of union members."""
    location, path = error["loc"], []
    for index, key in enumerate(location):
        inside = key < len(data) if isinstance(data, list) and isinstance(key, int) else False
        if inside or (isinstance(data, dict) and key in data):
            data = data[key]
        elif not (error["type"] == "missing" and index == len(location) - 1):
            continue
        path.append(key)
    return (*path, "kind") if error["type"].startswith("union_tag") else tuple(path)


def _message(path: KeyPath, errors: list[Mapping[str, Any]], data: Any) -> str:
    # of a union's complaints, one about the value says more than those about its type
    error = next((error for error in errors if error["type"] not in _EXPECTED), errors[0])
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, data)
    if kind == "missing":
        return _missing(path, data)
    if kind.startswith("union_tag"):
        kinds = kinds_at(path[:-1], data)
        if "tag" not in context:
            return f"the key is missing: add kind: with one of {', '.join(kinds)}."
        return f"{shown(context['tag'])} is not one of {', '.join(kinds)}{_near(context['tag'], kinds)}."
    if kind == "value_error":  # raised by a validator of the settings class, with the fix
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return f"{shown(given)} is not one of {', '.join(choices)}{_near(given, choices)}."
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{shown(given)} is out of range: it must be {words} {context[name]:g}."
    if kind == "too_short":
        holder = "mapping" if isinstance(given, dict) else "list"
        return f"the {holder} has {context['actual_length']} entries; it needs at least {context['min_length']}."
    if kind == "too_long":
        return f"the list has {context['actual_length']} entries; it takes at most {context['max_length']}."
    if kind == "string_pattern_mismatch":
        return f"{shown(given)} is not a name: begin with a letter or digit, then letters, digits and . _ - only."
    if _lacks_a_name(path, data):
        return f"an entry of {dotted(path[:-1])} needs a name of your choice: write {dotted(path[:-1])}.NAME.kind."
    expected = [_EXPECTED[error["type"]] for error in errors if error["type"] in _EXPECTED]
    if expected and given in kinds_at(path, data):
        return f"{shown(given)} is text, but a mapping of keys to values is expected: write {{kind: {given}}}."
    return _wrong_type(given, expected) if expected else f"{shown(given)}: {error['msg']}."


def _unknown_key(path: KeyPath, data: Any) -> str:
    *parent, name = path
    if path == ("extends",):
        return "extends belongs in the recipe file, not on the command line."
    siblings = names_at(tuple(parent), data)
    if kinds := kinds_with(tuple(parent), str(name)):
        return f"there is no such key with this kind, but with kind: {' or '.join(kinds)}."
    if near := nearest(str(name), siblings):
        return f"there is no such key; did you mean {dotted((*parent, near))}?"
    if tuple(parent) == ("training",) and name in trainer_fields():
        return f"there is no such key; fields of trl.SFTConfig go under training.trainer.{name}."
    elsewhere = [dotted(other) for other in every_path() if other[-1] == name]
    if elsewhere:
        return f"there is no such key here; did you mean {' or '.join(elsewhere[:3])}?"
    return f"there is no such key; valid here: {', '.join(siblings)}."


def _missing(path: KeyPath, data: Any) -> str:
    if path == ("name",):
        return "the recipe has no name: add the line name: NAME (the run folder is called so)."
    if isinstance(path[-1], int):
        return "the list has too few entries."
    return f"the key is missing: add {path[-1]}: VALUE below {dotted(path[:-1])}."


def _near(given: Any, choices: Sequence[str]) -> str:
    near = nearest(given, choices) if isinstance(given, str) else None
    return f"; the nearest is {near}" if near else ""


def _wrong_type(given: Any, expected: Sequence[str]) -> str:
    wanted = " or ".join(dict.fromkeys(expected))
    return f"{shown(given)} is {_kind_of(given)}, but {wanted} is expected{_hint(given, wanted)}."


def _kind_of(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "nothing" if value is None else "a mapping")


def _hint(given: Any, wanted: str) -> str:
    if given is None:
        return "; leave the key out to take its default"
    if isinstance(given, dict) and wanted == "a list":
        return ': begin each entry with "- "'
    if not isinstance(given, str):
        scalar_hint = ": put it in quotes" if wanted == "text" else ": put it in [ ]" if wanted == "a list" else ""
        return "" if isinstance(given, (dict, list)) else scalar_hint
    if wanted == "true or false" and given.lower() in ("yes", "on", "no", "off"):
        return f": write {'true' if given.lower() in ('yes', 'on') else 'false'}"
    if "number" in wanted and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", given.replace("_", ""), re.IGNORECASE):
        return f": write {given.replace('_', '')} without quotes or underscores"
    return f": write [{given}]" if wanted == "a list" else ""
