"""Settings of the retrievers; their code is in the modules of the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings

Language = Literal[
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "hungarian", "italian", "korean",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "turkish", "none",
]  # fmt: skip


class Bm25Settings(Settings):
    """Okapi BM25 in Lucene's form, with the scores of bm25s."""

    kind: Literal["bm25"] = "bm25"
    """Sparse retrieval; no model, no GPU."""
    name: str = ""
    """What pools and reports call it; empty takes the kind."""
    language: Language = "english"
    """Language of the passages: its Snowball stemmer and stop words; Korean is cut into morphemes by kiwipiepy."""
    k1: Annotated[float, Field(ge=0)] = 0.9
    """Term-frequency saturation."""
    b: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Length normalisation, 0 (none) to 1 (full)."""


class DenseSettings(Settings):
    """Dense retrieval with a sentence-transformers model and faiss."""

    kind: Literal["dense"]
    """Embeddings of passages, searched by inner product."""
    name: str = ""
    """What pools and reports call it; empty takes the kind."""
    model: str
    """A Hub id, a local folder, or package:NAME for a model inside an installed package."""
    revision: str | None = None
    """Revision of a Hub model."""
    query_prefix: str = ""
    """Put before every question; e5 models need "query: ". Empty takes the prompt saved with the model, if any."""
    passage_prefix: str = ""
    """Put before every passage; e5 models need "passage: ". Empty takes the prompt saved with the model, if any."""
    normalize: bool = True
    """Cosine similarity; false takes the inner product as it is (Contriever, DPR)."""
    max_length: Annotated[int, Field(ge=16)] | None = None
    """Tokens of a passage that are read; null takes the model's own limit."""
    index: Literal["flat", "ivf", "hnsw"] = "flat"
    """faiss index: flat is exact; ivf and hnsw are approximate and faster above a million passages."""
    probes: Annotated[int, Field(ge=1)] = 32
    """Clusters looked at per query (ivf) or candidates kept while searching (hnsw: four times as many)."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Passages embedded at once; null takes 8 on a CPU and 256 on a GPU. Lower it when memory runs out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU if there is one."""


class TrecRunSettings(Settings):
    """Rankings of any other engine, as TREC run files: `question Q0 passage rank score tag`."""

    kind: Literal["trec_run"]
    """Reads rankings; searches nothing."""
    name: str = ""
    """What pools and reports call it; empty takes the kind."""
    path: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """The run file, plain or .gz, or several (one per split)."""


class SourceRankingSettings(Settings):
    """The rankings that the source's own file carries (`ctxs` of DPR, `passages` with scores)."""

    kind: Literal["source"]
    """Reads the rankings the importer found; searches nothing."""
    name: str = ""
    """What pools and reports call it. With rankings of several retrievers in the source, the one of this name is taken;
    empty fuses them by reciprocal rank."""


RetrieverSettings = Annotated[
    Bm25Settings | DenseSettings | TrecRunSettings | SourceRankingSettings, Field(discriminator="kind")
]
