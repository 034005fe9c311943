"""Near-duplicate questions: an exact Jaccard join over word sets. Decides nothing about splits or dropping.

Two sets of a and b words with Jaccard similarity t or more share at least `need` = ceil(t (a + b) / (1 + t)) words.
In a fixed order of all words, the first `depth` words they share stand among the first a - need + depth words of the
one and the first b - need + depth of the other (with depth 1 this is the prefix filter of AllPairs, Bayardo et al.
2007, and PPJoin, Xiao et al. 2008). So every `depth`-subset of these prefixes is hashed, and sets that share a hash are
compared. The deeper, the fewer false candidates: lists of single words are as long as the data for questions made from
a template, those of many words are not. `depth` is the largest whose number of subsets stays below `_SUBSETS`; with
depth = need a shared hash is all but proof, and the work is linear in the number of questions however alike they are.
Longer questions of one template fall back to smaller depths: exact all the same, but quadratic where they share that
many words and are no near-duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from data_builders.hygiene.forms import digest64, question_form
from data_builders.text import answer_tokens

Array = np.ndarray[Any, Any]
Pairs = tuple[Array, Array]
_SUBSETS = 700  # of one set at most, so that depth = need up to 37 words at 0.9 and 26 at 0.8 (sets of equal size)
_HASHES_AT_ONCE = 1 << 22  # 32 MB, several times over while sorting
_PAIRS_AT_ONCE = 1 << 16


@lru_cache(maxsize=1 << 18)
def word_hash(word: str) -> int:
    """Return 64 bits that stand for a word."""
    return digest64(word)


def word_set(text: str) -> Array:
    """Return the sorted hashes of the different words of a text (`answer_tokens`)."""
    return np.unique(np.array([word_hash(token) for token in answer_tokens(text)], np.uint64))


@dataclass(frozen=True)
class WordSets:
    """Word sets by size: for each size, which texts have it (by place in the input) and their words, one row each.

    Texts without words are in none.
    """

    sizes: dict[int, Pairs]

    @classmethod
    def of(cls, sets: Iterable[tuple[int, Array]]) -> WordSets:
        """Collect (place, words as `word_set` returns them); 8 bytes a word stay in memory."""
        places: dict[int, list[int]] = {}
        words: dict[int, list[bytes]] = {}
        for place, found in sets:
            if len(found):
                places.setdefault(len(found), []).append(place)
                words.setdefault(len(found), []).append(found.tobytes())
        return cls(
            {
                size: (np.array(places[size]), np.frombuffer(b"".join(words.pop(size)), np.uint64).reshape(-1, size))
                for size in sorted(places)
            }
        )


def near_duplicate_groups(questions: Iterable[str], threshold: float) -> Array:
    """Group questions so that near-duplicates, and near-duplicates of these, share a group.

    Returns:
        For each question the place of the first question of its group.
    """
    first: dict[bytes | str, int] = {}
    twins: list[int] = []
    for place, question in enumerate(questions):
        twins.append(first.setdefault(word_set(question).tobytes() or question_form(question), place))
    labels = np.array(twins, np.int64)
    sets = WordSets.of((place, np.frombuffer(key, np.uint64)) for key, place in first.items() if isinstance(key, bytes))
    del first
    for left, right in near_pairs(sets, sets, threshold, lambda left, right: labels[left] != labels[right]):
        merge(labels, left, right)
    return labels


def merge(labels: Array, left: Array, right: Array) -> None:
    """Join the groups of `left[i]` and `right[i]` in place; `labels` names each member's group by its first member."""
    while True:
        one, other = labels[left], labels[right]
        apart = one != other
        if not apart.any():
            return
        left, right, one, other = left[apart], right[apart], one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, shorter := labels[labels]):
            labels[:] = shorter


def near_pairs(
    left: WordSets, right: WordSets, threshold: float, wanted: Callable[[Array, Array], Array]
) -> Iterator[Pairs]:
    """Yield batches of (places in `left`, places in `right`) whose Jaccard similarity is `threshold` or more.

    Not all such pairs, but enough of them: whoever has a partner comes with one, and the pairs of a join of sets with
    themselves connect all that belongs together.

    Args:
        left: the sets for which partners are sought.
        right: the sets among which they are sought.
        threshold: Jaccard similarity, above 0 and at most 1.
        wanted: tells which candidate pairs are worth comparing; may look at what was done with earlier batches.
    """
    for a, ours in left.sizes.items():
        for b, theirs in right.sizes.items():
            need = _least_shared(a, b, threshold)
            if need <= min(a, b):
                yield from _close(ours, theirs, need, wanted)


def _least_shared(a: int, b: int, threshold: float) -> int:
    """Return how many words sets of a and b words must share; more than both have if they never can."""
    guess = max(int(threshold * (a + b) / (1 + threshold)) - 1, 1)
    while guess <= min(a, b) and guess / (a + b - guess) < threshold:
        guess += 1
    return guess


def _close(left: Pairs, right: Pairs, need: int, wanted: Callable[[Array, Array], Array]) -> Iterator[Pairs]:
    """Yield places that share `need` words: a partner of each on the left, or all of them where depth < need."""
    sizes = (left[1].shape[1], right[1].shape[1])
    depth = _depth(max(sizes) - need, need)
    amounts = [len(side[0]) * comb(size - need + depth, depth) for side, size in zip((left, right), sizes, strict=True)]
    parts = -(-sum(amounts) // _HASHES_AT_ONCE)
    for part in range(parts):
        ours = _subset_hashes(left[1], need, depth, (part, parts))
        theirs = ours if right is left else _subset_hashes(right[1], need, depth, (part, parts))
        for x, y in _meetings(ours, theirs, all_of_them=depth < need):
            keep = wanted(left[0][x], right[0][y])
            x, y = x[keep], y[keep]
            same = _share(left[1][x], right[1][y], need)
            yield left[0][x[same]], right[0][y[same]]


def _depth(spare: int, need: int) -> int:
    """Return the size of the subsets hashed, for sets with up to `spare` words more than they must share."""
    return next((depth for depth in range(need, 1, -1) if comb(spare + depth, depth) <= _SUBSETS), 1)


def _subset_hashes(words: Array, need: int, depth: int, part: tuple[int, int]) -> Pairs:
    """Return sorted hashes of all `depth`-subsets of each row's prefix, and their rows; of one part of all hashes."""
    prefix = words[:, : words.shape[1] - need + depth]
    spare = prefix.shape[1] - depth
    total, few = prefix.sum(axis=1, dtype=np.uint64), min(spare, depth)
    hashes: list[Array] = []
    rows: list[Array] = []
    for chosen in combinations(range(prefix.shape[1]), few):
        sums = prefix[:, list(chosen)].sum(axis=1, dtype=np.uint64)
        sums = total - sums if spare < depth else sums
        here = np.flatnonzero(sums % np.uint64(part[1]) == part[0]) if part[1] > 1 else np.arange(len(sums))
        hashes.append(sums[here])
        rows.append(here)
    found = np.concatenate(hashes)
    order = np.argsort(found)
    return found[order], np.concatenate(rows)[order]


def _meetings(ours: Pairs, theirs: Pairs, all_of_them: bool) -> Iterator[Pairs]:
    """Yield batches of (our row, their row) that have a hash in common: with their first of that hash, or with all."""
    low, high = (np.searchsorted(theirs[0], ours[0], side=side) for side in ("left", "right"))
    active = np.flatnonzero(low < high)
    while len(active):
        for start in range(0, len(active), _PAIRS_AT_ONCE):
            batch = active[start : start + _PAIRS_AT_ONCE]
            yield ours[1][batch], theirs[1][low[batch]]
        low += 1
        active = active[low[active] < high[active]] if all_of_them else active[:0]


def _share(ours: Array, theirs: Array, need: int) -> Array:
    """Tell which rows of two tables of words share `need` words."""
    shared = np.zeros(len(ours), np.int32)
    for column in range(ours.shape[1]):
        shared += (theirs == ours[:, column, None]).any(axis=1)
    return shared >= need
