"""What is remembered: the same as made anew, within its size, whatever the size of an entry."""

from __future__ import annotations

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from data_builders.remembered import Remembered


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 1000))
def test_what_is_remembered_is_what_was_made(keys: list[int], most: int) -> None:
    remembered = Remembered[int, str](lambda key: "x" * (10 * key), most)
    assert [remembered(key) for key in keys] == ["x" * (10 * key) for key in keys]


def test_what_was_asked_for_lately_is_not_made_again() -> None:
    made: list[int] = []
    size = sys.getsizeof("x" * 1000)

    def make(key: int) -> str:
        made.append(key)
        return "x" * 1000

    remembered = Remembered[int, str](make, 20 * size)
    for key in (*range(10), *range(10), *range(10)):
        remembered(key)
    assert made == list(range(10))
    for key in range(10, 40):
        remembered(0)
        remembered(key)
    assert made == list(range(40))  # the first was asked for all the while
    remembered(5)
    assert made[-1] == 5


def test_large_entries_are_kept_within_the_size_like_small_ones() -> None:
    for length, keys in ((1_000, 3_000), (100_000, 60)):
        remembered = Remembered[int, str](lambda key, length=length: str(key).ljust(length), 1_000_000)
        tracemalloc.start()
        for key in range(keys):
            remembered(key)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 400_000 < kept < 1_400_000
