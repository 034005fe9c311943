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
