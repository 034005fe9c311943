"""Retrievers behind one small protocol, chosen by `kind`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from data_builders.records import Passage
from data_builders.settings import Settings


class Bm25Settings(Settings):
    """Okapi BM25 in Lucene's form, through bm25s."""

    kind: Literal["bm25"] = "bm25"
    """Sparse retrieval; no model, no GPU."""
    k1: Annotated[float, Field(ge=0)] = 0.9
    """Term-frequency saturation."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Length normalisation, 0 (none) to 1 (full)."""
    stemmer: Literal["english", "german", "french", "spanish", "none"] = "english"
    """Snowball stemmer of the passages' language."""
    stopwords: Literal["en", "de", "fr", "es", "none"] = "en"
    """Stop words that are left out of the index and the queries."""


RetrieverSettings = Bm25Settings  # a union discriminated by `kind` as soon as there is a second retriever


class Retriever(Protocol):
    """Indexes the passages of one split once, then ranks them for batches of queries."""

    def index(self, passages: Sequence[Passage]) -> None:
        """Take the corpus; positions in it are what `search` returns."""
        ...

    def search(self, queries: list[str], depth: int) -> list[list[tuple[int, float]]]:
        """Return, per query, at most `depth` (position in the corpus, score), best first, ties by position."""
        ...


def open_retriever(settings: RetrieverSettings) -> Retriever:
    """Return the retriever a recipe asks for, without an index yet."""
    from data_builders.retrievers.bm25 import Bm25  # brings numpy and bm25s, which `rag-ft check` does without

    return {"bm25": Bm25}[settings.kind](settings)


def retriever_names(settings: Sequence[RetrieverSettings]) -> list[str]:
    """Name each retriever by its kind, a second one of the same kind with a number: bm25, bm25-2."""
    kinds = [one.kind for one in settings]
    earlier = [kinds[:place].count(kind) for place, kind in enumerate(kinds)]
    return [kind if not before else f"{kind}-{before + 1}" for kind, before in zip(kinds, earlier, strict=True)]
