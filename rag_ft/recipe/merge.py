"""Base recipes and command-line overrides: how nodes are laid over nodes. Validates no value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.recipe.fields import default_entries, default_kind
from rag_ft.recipe.problems import KeyPath, Node, Origin, Problem, report
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

    The entries of a list have their places as keys, from 0; the place behind the last adds one.

    Raises:
        RagFtError: an override that is not `key.path=value`, whose value is not YAML, or that names no place of a list.
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
    if isinstance(node.value, list):
        return _put_in_list(node, path, value, done)
    entries = dict(node.value) if isinstance(node.value, dict) else {}
    kind = default_kind(done)
    if kind is not None and "kind" not in entries:
        entries = {"kind": Node(kind, value.origin), **entries}
    if path == ("kind",) and "kind" in entries and entries["kind"].value != value.value:
        entries = {}  # the keys of another kind would only be errors
    inside = (*done, path[0])
    start = entries.get(path[0]) or _node(default_entries(inside), value.origin)
    entries[path[0]] = _put(start, path[1:], value, inside)
    return Node(entries, node.origin if isinstance(node.value, dict) else value.origin)


def _put_in_list(node: Node, path: tuple[str, ...], value: Node, done: KeyPath) -> Node:
    items = list(node.value)
    if not re.fullmatch(r"[0-9]{1,4}", path[0]) or int(path[0]) > len(items):
        message = f'"{path[0]}" is no place of this list: write 0 to {len(items) - 1}, or {len(items)} to add an entry.'
        raise report([Problem(done, message, value.origin)])
    place = int(path[0])
    if place == len(items):
        items.append(Node({}, value.origin))
    items[place] = _put(items[place], path[1:], value, (*done, place))
    return Node(items, node.origin)


def _node(value: Any, origin: Origin) -> Node:
    """Return plain data as nodes of one origin."""
    if isinstance(value, dict):
        return Node({key: _node(item, origin) for key, item in value.items()}, origin)
    return Node([_node(item, origin) for item in value] if isinstance(value, list) else value, origin)
