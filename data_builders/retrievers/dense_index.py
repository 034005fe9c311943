"""Nearest passages by inner product: exact from mapped vectors by blocks, or through a faiss IVF or HNSW index.

faiss proposes candidates; their order is decided here by scores in double precision, so that it depends neither on the
other queries of a block nor on how a matrix product is cut. faiss stays on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import faiss as faiss_module
import numpy as np

from data_builders.files import atomic_path
from data_builders.retrievers import Found

faiss: Any = faiss_module  # its stubs lack half of what it has
IndexKind = Literal["flat", "ivf", "hnsw"]
Array = np.ndarray[Any, Any]
_BLOCK = 65_536  # passages compared at once
_SPARE = 32  # candidates beyond the depth asked for
_DECIMALS = 5  # scores nearer than this are ties: embedding the same text twice differs by about 1e-7
_PER_CLUSTER = 39  # passages that faiss wants to learn a cluster from
_SAMPLE_PER_CLUSTER = 64
_LINKS = 32  # M of HNSW, faiss' own default


def index_file(folder: Path, kind: IndexKind) -> Path:
    """Return where an index of this kind is saved."""
    return folder / f"{kind}.faiss"


def build_index(vectors: Array, kind: IndexKind, folder: Path, report: Callable[[str], None]) -> None:
    """Write a faiss index over the rows of `vectors` into `folder`, unless it is there; flat needs none.

    One thread links the graph of HNSW, whose shape would otherwise depend on chance; IVF learns round(sqrt(n)) clusters
    from a seeded sample. Either way the same vectors give the same bytes.
    """
    target = index_file(folder, kind)
    if kind == "flat" or not len(vectors) or target.is_file():
        return
    report(f"  {kind} index of {len(vectors)} passages")
    index = _BUILDERS[kind](vectors)
    with atomic_path(target) as temporary:
        faiss.write_index(index, str(temporary))


def _ivf(vectors: Array) -> Any:
    clusters = max(1, min(isqrt(len(vectors)), len(vectors) // _PER_CLUSTER))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(vectors.shape[1]), vectors.shape[1], clusters, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.min_points_per_centroid = 1  # fewer are only so in tiny corpora; no warning on stderr
    size = min(len(vectors), _SAMPLE_PER_CLUSTER * clusters)
    sample = np.sort(np.random.default_rng(0).choice(len(vectors), size, replace=False))
    index.train(np.ascontiguousarray(vectors[sample]))
    for _, block in _blocks(vectors):
        index.add(block)
    return index


def _hnsw(vectors: Array) -> Any:
    index = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    with _one_thread():
        for _, block in _blocks(vectors):
            index.add(block)
    return index


_BUILDERS: dict[str, Callable[[Array], Any]] = {"ivf": _ivf, "hnsw": _hnsw}


@dataclass(frozen=True)
class DenseIndex:
    """An index that can be searched.

    Attributes:
        vectors: a row per passage (float32), mapped.
        kind: flat, ivf or hnsw.
        probes: clusters looked at (ivf), a quarter of the candidates kept while searching (hnsw).
        index: the faiss index; None for flat.
    """

    vectors: Array
    kind: IndexKind
    probes: int
    index: Any = None

    @classmethod
    def open(cls, vectors: Array, kind: IndexKind, probes: int, folder: Path) -> DenseIndex:
        """Map what `build_index` wrote."""
        if kind == "flat" or not len(vectors):
            return cls(vectors, "flat", probes)
        return cls(vectors, kind, probes, faiss.read_index(str(index_file(folder, kind)), faiss.IO_FLAG_MMAP_IFC))

    def search(self, queries: Array, depth: int) -> list[Found]:
        """Return, per query, the `depth` best passages: highest inner product first, ties by position."""
        wanted = min(depth + _SPARE, len(self.vectors))
        found: list[Found | None] = [None] * len(queries)
        open_ = np.arange(len(queries))
        while len(open_):
            floors, candidates = self._candidates(queries[open_], wanted)
            for row, floor, positions in zip(open_.tolist(), floors.tolist(), candidates, strict=True):
                ranked = self._ranked(queries[row], positions, depth)
                found[row] = ranked if self._settled(ranked, floor, wanted, depth) else None
            open_ = np.array([row for row in open_.tolist() if found[row] is None], np.int64)
            wanted = min(4 * wanted, len(self.vectors))
        return [one for one in found if one is not None]

    def _settled(self, ranked: Found, floor: float, wanted: int, depth: int) -> bool:
        """Tell whether no passage that was not a candidate can belong to the result, for want of score or by a tie.

        `floor` is the least score of a candidate; the others score at most that, give or take rounding in float32.
        """
        if self.kind != "flat" or wanted == len(self.vectors) or not depth:
            return True
        margin = 10.0**-_DECIMALS + 1e-5 * abs(float(ranked.scores[0]))
        return bool(ranked.scores[-1] > floor + margin)

    def _ranked(self, query: Array, positions: Array, depth: int) -> Found:
        positions = np.sort(positions[positions >= 0])
        scores = np.round(self.vectors[positions].astype(np.float64) @ query.astype(np.float64), _DECIMALS)
        best = np.argsort(-scores, kind="stable")[:depth]
        return Found(positions[best].astype(np.int32), scores[best].astype(np.float32))

    def _candidates(self, queries: Array, wanted: int) -> tuple[Array, Array]:
        """Return, per query, the least score of its candidates, and the candidates in any order (-1: none)."""
        if not wanted:
            return np.zeros(len(queries)), np.zeros((len(queries), 0), np.int64)
        scores, positions = (
            self._approximate(queries, wanted) if self.index is not None else self._exact(queries, wanted)
        )
        return scores.min(axis=1), positions

    def _exact(self, queries: Array, wanted: int) -> tuple[Array, Array]:
        scores: Array = np.zeros((len(queries), 0), np.float32)
        positions: Array = np.zeros((len(queries), 0), np.int64)
        for start, block in _blocks(self.vectors):
            more = faiss.knn(queries, block, min(wanted, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            scores, positions = np.hstack([scores, more[0]]), np.hstack([positions, more[1] + start])
            if scores.shape[1] > wanted:
                best = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]
                scores, positions = (np.take_along_axis(array, best, axis=1) for array in (scores, positions))
        return scores, positions

    def _approximate(self, queries: Array, wanted: int) -> tuple[Array, Array]:
        if self.kind == "ivf":
            chosen = faiss.SearchParametersIVF(nprobe=min(self.probes, self.index.nlist))
        else:
            chosen = faiss.SearchParametersHNSW(efSearch=max(4 * self.probes, wanted))
        with _without_blas():
            scores, positions = self.index.search(queries, wanted, params=chosen)
        return scores, positions


def _blocks(vectors: Array) -> Iterator[tuple[int, Array]]:
    for start in range(0, len(vectors), _BLOCK):
        yield start, np.asarray(vectors[start : start + _BLOCK])


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextmanager
def _without_blas() -> Iterator[None]:
    """Compare queries with clusters one by one: which are nearest must not depend on how many queries there are."""
    threshold = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1 << 30
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = threshold
