"""What a rule over several settings of a recipe is, and the one list of them. Holds no rule itself.

A rule names the settings it reads and returns what is wrong with the fix, or None; a rule over a free mapping returns
that per key. It is skipped where one of those settings is itself wrong, and its message points at the first of them
that the recipe sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rag_ft.recipe.problems import KeyPath, Node, Problem
from rag_ft.recipe.settings import Recipe

Check: TypeAlias = Callable[[Recipe], str | dict[str, str] | None]


@dataclass(frozen=True)
class Rule:
    """A check over a valid recipe and the paths of the settings it reads."""

    reads: tuple[KeyPath, ...]
    check: Check


RULES: list[Rule] = []


def rule(*reads: str) -> Callable[[Check], Check]:
    """Register a function as the rule over the settings at the dotted paths `reads`."""

    def register(check: Check) -> Check:
        RULES.append(Rule(tuple(tuple(path.split(".")) for path in reads), check))
        return check

    return register


def broken_rules(recipe: Recipe, node: Node, bad: set[KeyPath]) -> Iterator[Problem]:
    """Yield a problem for every rule that a recipe breaks.

    Args:
        recipe: the recipe, with defaults in place of the settings that are wrong.
        node: what the user wrote, for lines.
        bad: the paths of those wrong settings; rules that read them are skipped.
    """
    for item in RULES:
        if any(_overlap(read, path) for read in item.reads for path in bad):
            continue
        wrong = item.check(recipe)
        if isinstance(wrong, dict):
            yield from (_locate([(*item.reads[0], key)], message, node) for key, message in wrong.items())
        elif wrong:
            yield _locate(item.reads, wrong, node)


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _locate(reads: Sequence[KeyPath], message: str, node: Node) -> Problem:
    trails = [list(node.walk(path)) for path in reads]
    written = [trail[-1] for path, trail in zip(reads, trails, strict=True) if len(trail) == len(path) + 1]
    return Problem(reads[0], message, (written or [trails[0][-1]])[0].origin)
