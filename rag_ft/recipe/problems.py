"""What is wrong in a recipe and where: values with their origin, problems, nearest names. Reads no file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

from data_builders.errors import RagFtError

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a line of a file, or an override (line 0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else f'override "{self.source}"'


@dataclass(frozen=True)
class Node:
    """A value of a recipe and its origin. Mappings hold `dict[str, Node]`, lists hold `list[Node]`."""

    value: Any
    origin: Origin

    def plain(self) -> Any:
        """Return the value without origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """Return the entry under `key`, or None where there is none."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def walk(self, path: KeyPath) -> Iterator[Node]:
        """Yield this node and those along `path`, as far as they exist."""
        node: Node | None = self
        yield self
        for key in path:
            node = node.child(key) if node else None
            if node is None:
                return
            yield node


@dataclass(frozen=True)
class Problem:
    """One mistake: the key path (empty for the file as a whole), what is wrong with the fix, and where it stands."""

    path: KeyPath
    message: str
    origin: Origin

    def __str__(self) -> str:
        return f"{self.origin}: {dotted(self.path)}: {self.message}" if self.path else f"{self.origin}: {self.message}"


def dotted(path: KeyPath) -> str:
    """Return a key path as the command line takes it: `data.contexts.order`."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """Return a value as the recipe would write it, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name a typing mistake most likely meant, or None if nothing is near."""
    by_folded = {candidate.casefold(): candidate for candidate in names}
    matches = get_close_matches(str(name).casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return `did you mean X?`, or the valid names where none is near."""
    names = list(names)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"valid here: {', '.join(names)}"


def report(problems: Iterable[Problem]) -> RagFtError:
    """Return the error that lists problems, in order of files and lines, each once."""
    unique = dict.fromkeys(problems)
    files = list(dict.fromkeys(problem.origin.source for problem in unique))
    ordered = sorted(unique, key=lambda problem: (files.index(problem.origin.source), problem.origin.line))
    head = f"{len(ordered)} mistakes in the recipe:\n" if len(ordered) > 1 else ""
    return RagFtError(head + "\n".join(map(str, ordered)))
