"""Retrievers behind one small protocol, chosen by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
