"""How the results of several retrievers become one ranking. Searches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings

if TYPE_CHECKING:
    from data_builders.retrievers import Found


class InterleaveSettings(Settings):
    """The first of every retriever, then the second of every retriever, and so on."""

    kind: Literal["interleave"] = "interleave"
    """A passage found twice keeps its first place."""


class RrfSettings(Settings):
    """Reciprocal-rank fusion (Cormack et al., SIGIR 2009): passages that several retrievers rank high come first."""

    kind: Literal["rrf"]
    """Ranked by the sum of 1 / (k + rank) over the retrievers."""
    k: Annotated[int, Field(ge=1)] = 60
    """Larger values make differences among the first ranks matter less."""
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Retriever name -> weight; null weighs all alike."""


RankingSettings = Annotated[InterleaveSettings | RrfSettings, Field(discriminator="kind")]


@dataclass(frozen=True)
class Placed:
    """A passage's place in a pool: who put it there, and every retriever's (name, rank, score)."""

    passage: int
    retriever: str
    rank: int
    score: float
    found: tuple[tuple[str, int, float], ...]


def merge(found: Mapping[str, Found], settings: InterleaveSettings | RrfSettings) -> list[Placed]:
    """Merge what each retriever found for one question, best first."""
    places: dict[int, list[tuple[str, int, float]]] = {}
    order = list(_interleaved(found))
    for name, rank, passage, score in order:
        places.setdefault(passage, []).append((name, rank, score))
    if isinstance(settings, RrfSettings):
        return list(_fused(found, settings, places))
    return [Placed(passage, *where[0], tuple(where)) for passage, where in places.items()]


def _interleaved(found: Mapping[str, Found]) -> Iterator[tuple[str, int, int, float]]:
    columns = [zip(one.positions.tolist(), one.scores.tolist(), strict=True) for one in found.values()]
    for rank, row in enumerate(zip_longest(*columns), start=1):
        for name, hit in zip(found, row, strict=True):
            if hit is not None:
                yield name, rank, *hit


def _fused(
    found: Mapping[str, Found], settings: RrfSettings, places: dict[int, list[tuple[str, int, float]]]
) -> Iterator[Placed]:
    from data_builders.retrievers.fusion import reciprocal_rank_fusion

    fused = reciprocal_rank_fusion(found, settings.k, settings.weights)
    for rank, (passage, score) in enumerate(zip(fused.positions.tolist(), fused.scores.tolist(), strict=True), start=1):
        yield Placed(passage, "rrf", rank, score, tuple(places[passage]))
