"""Retrievers behind one small protocol, chosen by `kind`. Settings are in settings.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from data_builders.corpus import Corpus


@dataclass(frozen=True)
class Query:
    """What a retriever is asked: the question's id (for rankings made elsewhere) and its text."""

    id: str
    text: str


@dataclass(frozen=True)
class Found:
    """What a retriever found for one query, best first, ties by position: positions (int32) and scores (float32)."""

    positions: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]


class Retriever(Protocol):
    """Indexes a corpus once into a folder, then ranks it for batches of queries.

    `build` may be killed at any time and called again on the same folder; it goes on where it stopped.
    """

    parallel: bool
    """Whether several processes may each open the index and search their share of the queries."""

    def index_settings(self) -> dict[str, Any]:
        """Return all that the index depends on beside the corpus; settings of searching alone are not part of it."""
        ...

    def build(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        """Write the index of `corpus` into `folder`, which exists."""
        ...

    def open(self, corpus: Corpus, folder: Path) -> None:
        """Load the index that `build` wrote, memory-mapped where possible."""
        ...

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return, per query, at most `depth` passages. The answer to a query does not depend on its neighbours."""
        ...


def open_retriever(settings: Any, rankings: Path) -> Retriever:
    """Return the retriever a recipe asks for, without an index yet. `rankings` is the file of the sources' own."""
    return _OPENERS[settings.kind](settings, rankings)


def retriever_names(settings: Sequence[Any]) -> list[str]:
    """Name each retriever by its name or kind, a second one of the same name with a number: bm25, bm25-2."""
    names = [one.name or one.kind for one in settings]
    earlier = [names[:place].count(name) for place, name in enumerate(names)]
    return [name if not before else f"{name}-{before + 1}" for name, before in zip(names, earlier, strict=True)]


def _bm25(settings: Any, rankings: Path) -> Retriever:
    from data_builders.retrievers.bm25 import Bm25

    return Bm25(settings)


def _dense(settings: Any, rankings: Path) -> Retriever:
    from data_builders.retrievers.dense import Dense

    return Dense(settings)


def _trec_run(settings: Any, rankings: Path) -> Retriever:
    from data_builders.retrievers.rankings import TrecRun

    return TrecRun(settings)


def _source(settings: Any, rankings: Path) -> Retriever:
    from data_builders.retrievers.rankings import SourceRanking

    return SourceRanking(settings, rankings)


# Modules are imported when asked for: they bring numpy, bm25s and torch, which `rag-ft check` does without.
_OPENERS: dict[str, Callable[[Any, Path], Retriever]] = {
    "bm25": _bm25,
    "dense": _dense,
    "trec_run": _trec_run,
    "source": _source,
}
