"""Near-duplicate passages by shared runs of words. Works on the normal form of text.py, decides nothing about answers.

A passage's shingles are the hashes of all runs of `size` consecutive tokens (Broder 1997, "On the resemblance and
containment of documents"). Containment is the share of the smaller set that the larger one holds too, so that a chunk
cut a little earlier or later than the gold passage is found as well as a copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

Shingles = np.ndarray[Any, np.dtype[np.uint32]]

SIZE = 5
"""Tokens of a run: long enough that unrelated passages share almost none."""
FEW = 8
"""Below so many shingles (twelve tokens) a passage counts as short."""

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_SPACE = ord(" ")
_SLOTS = 1 << 14


def shingles(joined_text: str, size: int = SIZE) -> Shingles:
    """Return the distinct hashes of all runs of `size` tokens, sorted.

    A text of fewer tokens has one run, all of it; one without tokens has none. Hashes are the same on every machine.

    Args:
        joined_text: a passage as `text.joined` makes it.
        size: tokens per run.
    """
    signs = np.frombuffer(joined_text.encode(), np.uint8)
    borders = np.flatnonzero(signs == _SPACE)
    tokens = len(borders) - 1
    if tokens < 1 or len(signs) == 2:
        return np.empty(0, np.uint32)
    starts, ends = borders[: -min(size, tokens)], borders[min(size, tokens) :]
    length = 1 << len(signs).bit_length()  # of the tables: a power of two, so that few are made
    sums = np.cumsum(signs * _powers(_BASE, length)[: len(signs)], dtype=np.uint64)
    runs = (sums[ends] - sums[starts]) * _powers(_INVERSE, length)[starts]  # polynomials over the bytes of the runs
    return _distinct(_mixed(runs))


def near_duplicates(gold: Sequence[Shingles], others: Sequence[Shingles], threshold: float) -> np.ndarray[Any, Any]:
    """Tell which of the `others` is a near-duplicate of any gold passage.

    It is one if containment reaches `threshold`. Below `FEW` shingles (twelve words) a few shared words, of a title
    say, would reach any threshold, so the smaller of the two must then be inside the larger one completely.

    Args:
        gold: shingles of the gold passages.
        others: shingles of the passages asked about.
        threshold: share of the smaller set, above 0 and up to 1.
    """
    found = np.zeros(len(others), bool)
    sizes = np.fromiter((len(one) for one in others), np.int64, len(others))
    if not sizes.any():
        return found
    borders = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.concatenate(others)
    slots = flat & np.uint32(_SLOTS - 1)
    for one in gold:
        smaller = np.minimum(sizes, len(one))
        needed = np.where(smaller < FEW, smaller, threshold * smaller)
        found |= (_shared(one, flat, slots, borders) >= needed) & (smaller > 0)
    return found


def _shared(one: Shingles, flat: Shingles, slots: Shingles, borders: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return, per passage between `borders` of `flat`, how many of its shingles are in `one`."""
    table = np.zeros(_SLOTS, bool)  # a sieve: looking up all shingles in `one` itself would take ten times as long
    table[one & np.uint32(_SLOTS - 1)] = True
    places = np.flatnonzero(table[slots])
    candidates = flat[places]
    at = np.searchsorted(one, candidates)
    places = places[one[np.minimum(at, len(one) - 1)] == candidates] if len(one) else places
    return np.diff(np.searchsorted(places, borders))


@lru_cache(maxsize=64)
def _powers(base: int, length: int) -> np.ndarray[Any, Any]:
    powers = np.full(length, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _mixed(hashes: np.ndarray[Any, Any]) -> Shingles:
    """Spread 64 bits over 32: the low bits of a polynomial modulo 2**64 depend on little."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _distinct(hashes: Shingles) -> Shingles:
    hashes.sort()
    fresh = np.empty(len(hashes), bool)
    fresh[0] = True
    np.not_equal(hashes[1:], hashes[:-1], out=fresh[1:])
    return hashes[fresh]
