"""Which keys a recipe may have at which path, read from the settings classes. Validates nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from data_builders.settings import Settings
from rag_ft.recipe.problems import KeyPath
from rag_ft.recipe.settings import Recipe


def settings_at(path: KeyPath, data: Any) -> list[type[Settings]]:
    """Return the settings classes the mapping at `path` may be, given the recipe's plain data (for `kind`)."""
    found: list[Any] = [Recipe]
    for key in path:
        data = _entry(data, key)
        found = [inner for annotation in found for inner in _step(annotation, key)]
        found = _of_kind([inner for annotation in found for inner in _members(annotation)], data)
    return [annotation for annotation in found if _is_settings(annotation)]


def names_at(path: KeyPath, data: Any) -> list[str]:
    """Return the keys the mapping at `path` may have."""
    return list(dict.fromkeys(name for settings in settings_at(path, data) for name in settings.model_fields))


def kinds_at(path: KeyPath, data: Any) -> list[str]:
    """Return the values `kind` may have in the mapping at `path`."""
    fields = [settings.model_fields["kind"] for settings in settings_at(path, data) if "kind" in settings.model_fields]
    return [kind for field in fields for kind in get_args(field.annotation)]


def kinds_with(path: KeyPath, name: str) -> list[str]:
    """Return the kinds of the mapping at `path` that have a setting of this name."""
    having = [settings for settings in settings_at(path, None) if {name, "kind"} <= settings.model_fields.keys()]
    return [kind for settings in having for kind in get_args(settings.model_fields["kind"].annotation)]


def default_kind(path: KeyPath) -> str | None:
    """Return the `kind` that the mapping at `path` has where the recipe does not give it."""
    return getattr(_default_at(path), "kind", None)


def default_entries(path: KeyPath) -> list[Any] | None:
    """Return, as plain data, the entries of the list at `path` where the recipe gives none; None if it is no list."""
    default = _default_at(path)
    if not isinstance(default, tuple):
        return None
    return [entry.model_dump(mode="json") if isinstance(entry, Settings) else entry for entry in default]


def _default_at(path: KeyPath) -> Any:
    """Return the default of the setting at `path`; None where there is no such setting or what holds it has none."""
    owner: Any = Recipe
    for key in path:
        if not (_is_settings(owner) or isinstance(owner, Settings)):
            return None
        fields = owner.model_fields if _is_settings(owner) else type(owner).model_fields
        if key not in fields:
            return None
        owner = fields[key].default if _is_settings(owner) else getattr(owner, str(key))
    return owner


@cache
def every_path() -> tuple[KeyPath, ...]:
    """Return the path of every setting that is not inside a list."""
    return tuple(_paths(Recipe, ()))


def _paths(settings: type[Settings], prefix: KeyPath) -> Iterator[KeyPath]:
    for name, field in settings.model_fields.items():
        yield (*prefix, name)
        for member in _members(field.annotation):
            if _is_settings(member):
                yield from _paths(member, (*prefix, name))


def _entry(data: Any, key: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    return data[key] if isinstance(data, list) and isinstance(key, int) and key < len(data) else None


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union without their annotations; anything else as one member."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for argument in get_args(annotation) for member in _members(argument)]
    return [annotation]


def _step(annotation: Any, key: str | int) -> list[Any]:
    if _is_settings(annotation):
        field = annotation.model_fields.get(key)
        return [field.annotation] if field else []
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(key, int) and arguments:
        return [arguments[0] if Ellipsis in arguments else arguments[min(key, len(arguments) - 1)]]
    return [arguments[1]] if get_origin(annotation) is dict else []


def _of_kind(annotations: list[Any], data: Any) -> list[Any]:
    """Keep the members of a union whose `kind` is the one given; all of them where it names none."""
    kind = _entry(data, "kind")
    matching = [
        annotation
        for annotation in annotations
        if _is_settings(annotation)
        and "kind" in annotation.model_fields
        and kind in get_args(annotation.model_fields["kind"].annotation)
    ]
    return matching or annotations
