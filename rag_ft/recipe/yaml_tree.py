"""YAML text -> nodes with line numbers; YAML 1.2 scalars, no duplicate keys, tags or merge keys. Knows no recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from rag_ft.recipe.problems import KeyPath, Node, Origin, Problem

_MAX_BYTES = 1_000_000
_MAX_NODES = 20_000  # aliases can make a small file expand without end
_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"^[-+]?(?:0o[0-7]+|0x[0-9a-fA-F]+|[0-9]+)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2: `1e-4` is a float; `no`, `1:30` and dates are text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # replaces SafeLoader's table of YAML 1.1


_Loader.add_implicit_resolver(_CORE + "null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_CORE + "bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver(_CORE + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_CORE + "float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path, label: str) -> tuple[Node, list[Problem]]:
    """Read a recipe file.

    Args:
        path: the file.
        label: how messages call it.

    Returns:
        The top-level mapping, and mistakes that do not stop the reading (duplicate keys, tags).

    Raises:
        RagFtError: no such file, not a file, not UTF-8, too large, not YAML, or not a mapping.
    """
    text = _read_text(path, label)
    node, problems = parse_yaml(text, label)
    if node is None:
        raise RagFtError(f"{label} is empty: a recipe has at least the line name: NAME.")
    if not isinstance(node.value, dict):
        kind = "a list" if isinstance(node.value, list) else "a single value"
        raise RagFtError(f"{label}:{node.origin.line}: the top of the file is {kind}; a recipe starts with name: NAME.")
    return node, problems


def parse_yaml(text: str, label: str, line: int | None = None) -> tuple[Node | None, list[Problem]]:
    """Parse one YAML document. `line` overrides the line numbers (0 for command-line overrides)."""
    loader = None
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        builder = _Builder(label, line)
        return (builder.build(tree, ()) if tree is not None else None), builder.problems
    except yaml.MarkedYAMLError as error:
        raise RagFtError(_syntax_message(error, label, line)) from error
    except yaml.YAMLError as error:
        raise RagFtError(f"{label} is not YAML: {str(error).splitlines()[0]}.") from error
    except RecursionError as error:
        raise RagFtError(f"{label} nests values too deeply, or an alias contains itself.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _read_text(path: Path, label: str) -> str:
    if path.is_dir():
        raise RagFtError(
            f"{label} is a folder: name the recipe file in it, for example {label.rstrip('/')}/recipe.yaml."
        )
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RagFtError(f"cannot read {label}: {reason}.") from error
    if len(data) > _MAX_BYTES:
        raise RagFtError(f"{label} is larger than {_MAX_BYTES:,} bytes: it is not a recipe.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RagFtError(f"{label}:{line}: byte {error.start} is not UTF-8: save the file as UTF-8.") from error


def _syntax_message(error: yaml.MarkedYAMLError, label: str, line: int | None) -> str:
    mark = error.problem_mark or error.context_mark
    number = line if line is not None else (mark.line + 1 if mark else 1)
    problem = error.problem or error.context or "syntax error"
    if problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    hint = " YAML indents with spaces: replace the tab." if "\\t" in problem else ""
    if "mapping values are not allowed" in problem:
        hint = ' Check the indentation of this line; text that holds ": " needs quotes.'
    return f"{Origin(label, number)}: this is not valid YAML: {problem}.{hint}"


class _Builder:
    """Turns PyYAML's nodes into ours, counting them and collecting mistakes."""

    def __init__(self, label: str, line: int | None) -> None:
        self.label = label
        self.line = line
        self.problems: list[Problem] = []
        self.count = 0

    def origin(self, node: yaml.Node) -> Origin:
        return Origin(self.label, self.line if self.line is not None else node.start_mark.line + 1)

    def build(self, node: yaml.Node, path: KeyPath, at: Origin | None = None) -> Node:
        self.count += 1
        if self.count > _MAX_NODES:
            raise RagFtError(f"{self.label} expands to more than {_MAX_NODES:,} values: write fewer aliases (*name).")
        origin = at or self.origin(node)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), origin)
        if isinstance(node, yaml.SequenceNode):
            items: Sequence[yaml.Node] = node.value
            return Node([self.build(item, (*path, index)) for index, item in enumerate(items)], origin)
        try:
            return Node(_scalar(node), origin)
        except ValueError as error:
            self.problems.append(Problem(path, str(error), origin))
            return Node(None, origin)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self.origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or not _encodable(key_node.value):
                self.problems.append(Problem(path, "a key must be a plain name.", origin))
            elif key_node.value == "<<":
                message = "merge keys are not part of a recipe: use extends: FILE, or repeat the lines."
                self.problems.append(Problem((*path, "<<"), message, origin))
            elif key_node.value in entries:
                first = entries[key_node.value].origin.line
                message = f"the key is given twice (first on line {first}): remove one of the two."
                self.problems.append(Problem((*path, key_node.value), message, origin))
            else:
                entries[key_node.value] = self.build(value_node, (*path, key_node.value), origin)
        return entries


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _scalar(node: yaml.Node) -> Any:
    """Return a scalar's value.

    Raises:
        ValueError: a tag outside the core ones, or text the tag cannot hold.
    """
    text, tag = str(node.value), node.tag.removeprefix(_CORE)
    if not _encodable(text):
        raise ValueError("the text holds a character that no file can hold (a surrogate or a zero byte): remove it.")
    if tag not in _CONVERT:
        raise ValueError(f"the tag {node.tag} is not part of a recipe: remove it.")
    pattern, convert = _CONVERT[tag]
    if not pattern.match(text):
        raise ValueError(f"{text!r} cannot be read as {tag}: remove the tag.")
    try:
        return convert(text)
    except ValueError as error:
        raise ValueError("the number has too many digits.") from error


def _integer(text: str) -> int:
    base = 16 if "0x" in text else 8 if "0o" in text else 10
    return int(text, base)


def _floating(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text  # JSON has no infinity; as text it fails with "a number is expected"


_CONVERT: dict[str, tuple[re.Pattern[str], Any]] = {
    "null": (_NULL, lambda text: None),
    "bool": (_BOOL, lambda text: text.lower() == "true"),
    "int": (_INT, _integer),
    "float": (_FLOAT, _floating),
    "str": (re.compile(""), str),
}
