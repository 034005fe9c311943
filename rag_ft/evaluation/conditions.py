"""What a question is asked under: the axes of the evaluation grid, alone or crossed. Composes no context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal, TypeAlias

from rag_ft.evaluation.settings import EvaluationSettings, SweepSettings

GoldMode: TypeAlias = Literal[
    "kept", "retrieved", "absent", "counterfactual", "closed_book", "gold_only", "full_document"
]
REFERENCES = ("closed_book", "gold_only", "full_document")
"""Gold modes that are one point each, whatever counts a sweep has."""


@dataclass(frozen=True)
class Condition:
    """One point of the grid, the same for every question and system.

    Attributes:
        gold: what the context holds of the gold passages; a reference is one point without a count.
        passages: how many passages are shown; 0 for a reference.
        position: where the gold passages stand among the others, 0 first, 1 last; None leaves them at their rank.
        order: `retrieved` as the system's strategy arranges them, `reordered` best at both ends, `shuffled`.
        draw: which of several shuffles; 0 elsewhere.
        noise: share of the passages that hold no answer; None leaves it as it comes.
        negatives: what fills a context up: what is ranked next (`ranked`), or passages without an answer: the best
            ranked (`hard`), the worst ranked of the pool (`weak`), or those of other questions (`random`).
        retriever: whose ranking; empty is the pool's own.
    """

    gold: GoldMode
    passages: int
    position: float | None = None
    order: Literal["retrieved", "reordered", "shuffled"] = "retrieved"
    draw: int = 0
    noise: float | None = None
    negatives: Literal["ranked", "hard", "weak", "random"] = "ranked"
    retriever: str = ""

    @property
    def variant(self) -> str:
        """All axes but gold and count that are not at rest, as text: `position=0.5 order=shuffled draw=1`."""
        told = [(one.name, getattr(self, one.name)) for one in fields(self) if one.name not in ("gold", "passages")]
        at_rest = Condition("kept", 0)
        return " ".join(f"{name}={_text(value)}" for name, value in told if value != getattr(at_rest, name))


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def axes_of(variant: str) -> dict[str, str]:
    """Read a variant back: axis to value, both as text. A retriever's name may hold spaces."""
    return dict(part.split("=", 1) for part in _NEXT_AXIS.split(variant)) if variant else {}


_NEXT_AXIS = re.compile(rf" (?=(?:{'|'.join(one.name for one in fields(Condition))})=)")


def conditions(settings: EvaluationSettings) -> list[Condition]:
    """Return every different point of the grid: the main sweep, the further sweeps, the references."""
    main = SweepSettings(passages=settings.passages, gold=settings.gold)
    found = [one for sweep in (main, *settings.sweeps) for one in _crossed(sweep)]
    references = [Condition(gold, 0) for gold in settings.references]
    return list(dict.fromkeys([*found, *references]))


def _crossed(sweep: SweepSettings) -> Iterator[Condition]:
    """Yield the points of a sweep: every value of each axis with every value of the others."""
    for retriever, negatives, noise, position, gold, order, count in product(
        sweep.retriever or ("",),
        sweep.negatives,
        sweep.noise or (None,),
        sweep.position or (None,),
        sweep.gold,
        sweep.order,
        sweep.passages,
    ):
        same = negatives == "hard" and answers_only_gold(gold, position, noise)
        for draw in range(sweep.draws if order == "shuffled" else 1):
            yield Condition(gold, count, position, order, draw, noise, "ranked" if same else negatives, retriever)


def answers_only_gold(gold: str, position: float | None, noise: float | None) -> bool:
    """Tell whether what fills a context up holds no answer under a condition, even where it is ranked as it comes."""
    return gold in ("absent", "counterfactual") or noise is not None or (gold == "kept" and position is not None)
