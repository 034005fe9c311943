"""Remembers what was made lately, up to a size in bytes. Knows nothing of what is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Remembered(Generic[Key, Item]):
    """Calls `make` for a key and remembers what was asked for last, up to `most` bytes of it.

    `functools.lru_cache` counts entries, and 16,000 passages may be 10 MB or 10 GB. Here what is remembered comes in
    two halves: when the younger is full it becomes the older, whose entries are forgotten unless they are asked for
    again. So no more than `most` bytes and one entry of each half are kept, whatever the size of an entry.

    Args:
        make: gives the same for the same key, never None; asked again for what was forgotten.
        most: bytes as `sys.getsizeof` tells them, so of texts and arrays that own their data.
    """

    def __init__(self, make: Callable[[Key], Item], most: int) -> None:
        self._make, self._half, self._size = make, most // 2, 0
        self._young: dict[Key, Item] = {}
        self._old: dict[Key, Item] = {}

    def __call__(self, key: Key) -> Item:
        """Return what `make` gives for `key`."""
        found = self._young.get(key)
        if found is not None:
            return found
        found = self._old.get(key)
        if found is None:
            found = self._make(key)
        self._young[key] = found
        self._size += sys.getsizeof(found)
        if self._size > self._half:
            self._old, self._young, self._size = self._young, {}, 0
        return found
