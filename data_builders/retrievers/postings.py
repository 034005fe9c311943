"""An inverted index with its scores, on disk: built chunk by chunk, opened memory-mapped, ranked exactly.

Knows terms as numbers and strings; how text becomes terms is in words.py, what the scores mean in bm25.py.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_builders.mapped import map_table

Array = np.ndarray[Any, Any]
Weigh = Callable[[Array, Array, Array], Array]

_TERMS, _STARTS, _PASSAGES, _SCORES = "terms.arrow", "starts.npy", "passages.npy", "scores.npy"
_COMMON_TERMS, _ROWS = "common_terms.npy", "common_scores.npy"
_COUNTS = "counts.partial"
# A term in more than one of so many passages has its scores in a row with a place for every passage: adding a row
# takes about as long as adding scores by position to one passage of sixteen.
_COMMON = 8
_PER_COLUMN = 64  # passages that share one maximum when the cut is estimated


@dataclass(frozen=True)
class Counts:
    """How often terms stand in the passages of one chunk: runs of passages, sorted by term, then by passage."""

    terms: Array
    """The term of each run."""
    sizes: Array
    """How many passages each run has."""
    passages: Array
    """The passages of all runs, int32."""
    times: Array
    """How often the term of the run stands in each of them, int32."""

    @property
    def starts(self) -> Array:
        """Where each run begins."""
        return np.cumsum(self.sizes) - self.sizes

    @classmethod
    def of(cls, terms: Array, passages: Array) -> Counts:
        """Count pairs of a term and the passage it stands in; both arrays have an entry per word."""
        pairs = np.sort(terms.astype(np.int64) << 32 | passages)
        firsts = _firsts(pairs)
        kept = pairs[firsts]
        runs = _firsts(kept >> 32)
        times = np.diff(firsts, append=len(pairs)).astype(np.int32)
        sizes = np.diff(runs, append=len(kept))
        return cls((kept >> 32)[runs].astype(np.int32), sizes, kept.astype(np.int32), times)

    def write(self, stream: IO[bytes]) -> None:
        """Append these counts to a file."""
        for part in (self.terms, self.sizes, self.passages, self.times):
            np.save(stream, part)

    @classmethod
    def read(cls, stream: IO[bytes]) -> Counts:
        """Read the next counts of a file."""
        return cls(*(np.load(stream) for _ in range(4)))


def _firsts(values: Array) -> Array:
    """Return where each run of equal values begins."""
    return np.flatnonzero(np.diff(values, prepend=values[:1] - 1)) if len(values) else np.zeros(0, np.int64)


class PostingsWriter:
    """Collects counts chunk by chunk in a file, then writes the index sorted by term.

    The files depend on the counts and the weights only, not on how the corpus was cut into chunks or in which order
    terms were met. Memory holds one chunk and a few numbers per term and passage.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream = (folder / _COUNTS).open("w+b")
        self._passages = 0
        self._written = 0
        self._found_in = np.zeros(0, np.int64)
        self._lengths: list[Array] = []

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Remove the collected counts."""
        self._stream.close()
        (self._folder / _COUNTS).unlink()

    def add(self, terms: Array, lengths: Array) -> None:
        """Count one chunk: the numbers of its terms in reading order, and how many of them each passage has."""
        if len(terms):
            passages = np.repeat(np.arange(self._passages, self._passages + len(lengths)), lengths)
            counts = Counts.of(terms, passages)
            counts.write(self._stream)
            self._written += 1
            self._count(counts)
        self._passages += len(lengths)
        self._lengths.append(lengths.astype(np.int32))

    def _count(self, counts: Counts) -> None:
        missing = int(counts.terms[-1]) + 1 - len(self._found_in)
        if missing > 0:
            self._found_in = np.concatenate([self._found_in, np.zeros(missing, np.int64)])
        self._found_in[counts.terms] += counts.sizes

    def finish(self, terms: Sequence[str], weighing: Callable[[Array, Array], Weigh]) -> None:
        """Write the index.

        Args:
            terms: the term of each number.
            weighing: takes how many passages each term is in and how many terms each passage has; returns what
                weighs (terms, passages, times).
        """
        column = pa.array(terms, pa.large_string())
        order = pc.sort_indices(column).to_numpy()
        lengths = np.concatenate([np.zeros(0, np.int32), *self._lengths])
        self._fill(order, weighing(self._found_in, lengths))
        table = pa.table({"term": column.take(pa.array(order))})
        with pa.OSFile(str(self._folder / _TERMS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())

    def _fill(self, order: Array, weigh: Weigh) -> None:
        """Deal the counts out to their terms, which the index has in this order."""
        common = np.flatnonzero(self._found_in[order] * _COMMON > self._passages)
        rare = self._found_in[order]
        rare[common] = 0
        starts = np.concatenate([[0], np.cumsum(rare)])
        np.save(self._folder / _STARTS, starts)
        np.save(self._folder / _COMMON_TERMS, common.astype(np.int32))
        heads, lines = np.empty(len(order), np.int64), np.full(len(order), -1)
        heads[order], lines[order[common]] = starts[:-1], np.arange(len(common))
        rows = _new_array(self._folder / _ROWS, np.float32, (len(common), self._passages))
        passages = _new_array(self._folder / _PASSAGES, np.int32, (int(starts[-1]),))
        scores = _new_array(self._folder / _SCORES, np.float32, (int(starts[-1]),))
        for counts in self._chunks():
            weights = weigh(np.repeat(counts.terms, counts.sizes), counts.passages, counts.times)
            line = np.repeat(lines[counts.terms], counts.sizes)
            places = np.repeat(heads[counts.terms] - counts.starts, counts.sizes) + np.arange(len(line))
            heads[counts.terms] += counts.sizes
            here, there = line < 0, line >= 0
            passages[places[here]], scores[places[here]] = counts.passages[here], weights[here]
            rows[line[there], counts.passages[there]] = weights[there]

    def _chunks(self) -> Iterator[Counts]:
        self._stream.seek(0)
        for _ in range(self._written):
            yield Counts.read(self._stream)


def _new_array(path: Path, kind: type, shape: tuple[int, ...]) -> Array:
    """Return an array of zeros on disk."""
    array = np.lib.format.open_memmap(path, "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash where a mapped page is written
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return np.asarray(array)


class Postings:
    """The index that a `PostingsWriter` wrote: which passages each term is in, and the score it adds to each.

    Args:
        folder: where it was written; the files stay there, mapped.
        size: how many passages the corpus has.
    """

    def __init__(self, folder: Path, size: int) -> None:
        chunks = map_table(folder / _TERMS)["term"].chunks
        self._terms = chunks[0] if chunks else pa.array([], pa.large_string())
        self._starts = np.load(folder / _STARTS)
        self._passages, self._scores = _array(folder / _PASSAGES), _array(folder / _SCORES)
        self._rows = dict(zip(np.load(folder / _COMMON_TERMS).tolist(), _array(folder / _ROWS), strict=True))
        self._sums = np.zeros(size, np.float32)

    def number(self, term: str) -> int:
        """Return the number of a term, -1 if no passage has it."""
        place = bisect_left(range(len(self._terms)), term, key=lambda number: self._terms[number].as_py())
        return place if place < len(self._terms) and self._terms[place].as_py() == term else -1

    def rank(self, numbers: Sequence[int], depth: int) -> tuple[Array, Array]:
        """Return at most `depth` passages with any of the terms (repeats count again), best first, and their scores.

        Of equal scores the passage that comes first in the corpus is better. The order of additions depends on
        `numbers` alone, so that scores are the same to the last bit everywhere.
        """
        self._sum(numbers)
        found = _contenders(self._sums, depth)
        scores = self._sums[found]
        order = (-scores).argsort(kind="stable")[:depth]
        return found[order].astype(np.int32), scores[order]

    def _sum(self, numbers: Sequence[int]) -> None:
        """Let `_sums` be the sum of the terms' scores: common terms first, since two of them fill it at once."""
        sums = self._sums
        rows = [self._rows[number] for number in numbers if number in self._rows]
        if len(rows) > 1:
            np.add(rows[0], rows[1], out=sums)
        else:
            sums[:] = rows[0] if rows else 0
        for row in rows[2:]:
            np.add(sums, row, out=sums)
        for number in numbers:
            if number not in self._rows:
                low, high = self._starts[number], self._starts[number + 1]
                np.add.at(sums, self._passages[low:high], self._scores[low:high])


def _array(path: Path) -> Array:
    """Map an array from disk, as a plain one: slices of numpy's own class for mapped arrays are slow."""
    array = np.load(path, mmap_mode="r")
    return np.asarray(array)


def _contenders(scores: Array, depth: int) -> Array:
    """Return, in order, positions of positive scores that hold the `depth` best; few more than that, but for ties.

    The scores are laid out in columns. Each of the `depth` columns with the highest maxima holds a score of at least
    the least of these maxima, so `depth` scores are not below it, and nothing below it is among the best. That takes
    one fast pass, where partitioning all scores takes many times as long.
    """
    rows = max(1, min(_PER_COLUMN, len(scores) // (4 * depth)))
    width = len(scores) // rows
    if width > depth:
        maxima = np.maximum.reduce(scores[: rows * width].reshape(rows, width))
        maxima.partition(width - depth)
        if maxima[width - depth] > 0:
            return (scores >= maxima[width - depth]).nonzero()[0]
    return scores.nonzero()[0]


def idf(found_in: Array, size: int) -> Array:
    """Return Lucene's inverse document frequency of terms found in `found_in` of `size` passages, as float32.

    Through `math.log` for each different count: numpy's own logarithm differs between processors in the last bit.
    """
    different, which = np.unique(found_in, return_inverse=True)
    values = [math.log(1 + (size - count + 0.5) / (count + 0.5)) for count in different.tolist()]
    return np.array(values, np.float32)[which]
