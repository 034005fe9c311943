"""Mixing sequences so that every beginning of the whole has their shares. Knows nothing of what is mixed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from typing import TypeVar

Item = TypeVar("Item")
Name = TypeVar("Name", bound=str)


def mixed(parts: Iterable[tuple[float, Iterable[Item]]]) -> Iterator[Item]:
    """Merge sequences, endless ones too, by their weights: every beginning is a Sainte-Lague apportionment.

    Args:
        parts: weight above 0 and items of each sequence; where two are due at once the earlier part goes first.
    """
    keyed = (_keyed(number, weight, items) for number, (weight, items) in enumerate(parts))
    return (item for _, _, item in merge(*keyed, key=lambda entry: entry[:2]))


def _keyed(number: int, weight: float, items: Iterable[Item]) -> Iterator[tuple[float, int, Item]]:
    return (((place + 0.5) / weight, number, item) for place, item in enumerate(items))


def quotas(wanted: int, shares: Mapping[Name, float], rng: random.Random) -> dict[Name, int]:
    """Share `wanted` places out; a fraction of a place becomes a chance of one, so the mean is exact. One draw.

    Args:
        wanted: places.
        shares: relative shares, at least one above 0.
        rng: gives the one draw that all fractions are rounded by.
    """
    start, total, behind, given = rng.random(), sum(shares.values()), 0.0, 0
    places: dict[Name, int] = {}
    for name, share in shares.items():
        behind += share / total
        upto = min(wanted, int(wanted * behind + start))
        places[name], given = upto - given, upto
    return places
