"""Base recipes and command-line overrides: how nodes are laid over nodes. Validates no value."""

from __future__ import annotations

from collections.abc import Sequence

from data_builders.errors import RagFtError
from rag_ft.recipe.fields import default_kind
from rag_ft.recipe.problems import KeyPath, Node, Origin
from rag_ft.recipe.yaml_tree import parse_yaml


def overlay(base: Node, child: Node, path: KeyPath = ()) -> Node:
    """Lay `child` over `base`: mappings merge key by key; anything else, and a mapping of another kind, replaces."""
    if not isinstance(base.value, dict) or not isinstance(child.value, dict) or _other_kind(base, child, path):
        return child
    merged = dict(base.value)
    for key, node in child.value.items():
        merged[key] = overlay(merged[key], node, (*path, key)) if key in merged else node
    return Node(merged, child.origin)


def _other_kind(base: Node, child: Node, path: KeyPath) -> bool:
    new = child.child("kind")
    old = base.child("kind")
    return new is not None and new.value != (old.value if old else default_kind(path))


def apply_overrides(recipe: Node, overrides: Sequence[str]) -> Node:
    """Apply `a.b=c` overrides, the last of equal ones winning. A new `kind` takes effect before the keys beside it.

    Raises:
        RagFtError: an override that is not `key.path=value`, or whose value is not YAML.
    """
    parsed = [_parse(override) for override in overrides]
    for path, value in sorted(parsed, key=lambda item: item[0][-1] != "kind"):
        recipe = _put(recipe, path, value)
    return recipe


def _parse(override: str) -> tuple[tuple[str, ...], Node]:
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise RagFtError(
            f'"{override}" is not an override: write key.path=value, for example training.learning_rate=1e-4.'
        )
    node, problems = parse_yaml(text, override, line=0)
    if problems:
        raise RagFtError("\n".join(map(str, problems)))
    return path, node or Node(None, Origin(override))


def _put(node: Node, path: tuple[str, ...], value: Node, done: KeyPath = ()) -> Node:
    if not path:
        return value
    key: str | int = path[0]
    if isinstance(node.value, list) and path[0].isdecimal() and int(path[0]) < len(node.value):
        key = int(path[0])
        items = list(node.value)
        items[key] = _put(items[key], path[1:], value, (*done, key))
        return Node(items, node.origin)
    entries = dict(node.value) if isinstance(node.value, dict) else {}
    kind = default_kind(done)
    if kind is not None and "kind" not in entries:
        entries = {"kind": Node(kind, value.origin), **entries}
    if path == ("kind",) and "kind" in entries and entries["kind"].value != value.value:
        entries = {}  # the keys of another kind would only be errors
    start = entries.get(path[0], Node({}, value.origin))
    entries[path[0]] = _put(start, path[1:], value, (*done, path[0]))
    return Node(entries, node.origin if isinstance(node.value, dict) else value.origin)
