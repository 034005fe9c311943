"""Reciprocal-rank fusion against values worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.retrievers import Found
from data_builders.retrievers.fusion import reciprocal_rank_fusion


def ranked(*positions: int) -> Found:
    return Found(np.array(positions, np.int32), np.linspace(9, 1, len(positions), dtype=np.float32))


def test_a_passage_that_two_retrievers_rank_second_beats_the_first_of_either() -> None:
    fused = reciprocal_rank_fusion({"bm25": ranked(4, 7), "dense": ranked(9, 7)})
    assert fused.positions.tolist() == [7, 4, 9]  # 2/62 > 1/61 = 1/61, ties by position
    assert fused.scores.tolist() == pytest.approx([2 / 62, 1 / 61, 1 / 61])
    assert (fused.positions.dtype, fused.scores.dtype) == (np.int32, np.float32)


def test_small_k_lets_the_first_rank_win() -> None:
    lists = {"a": ranked(1, 2, 3), "b": ranked(5, 3, 2)}
    # k=1: 1: 1/2; 5: 1/2; 2: 1/3 + 1/4 = 7/12; 3: 1/4 + 1/3 = 7/12
    assert reciprocal_rank_fusion(lists, k=1).positions.tolist() == [2, 3, 1, 5]
    # k=0: 1: 1; 5: 1; 2: 1/2 + 1/3; 3: 1/3 + 1/2
    assert reciprocal_rank_fusion(lists, k=0).positions.tolist() == [1, 5, 2, 3]


def test_weights_shift_the_order_and_zero_leaves_a_retriever_out() -> None:
    lists = {"a": ranked(1, 2), "b": ranked(2, 3)}
    # a counts double: 1: 2/61 = 0.0328; 2: 2/62 + 1/61 = 0.0487; 3: 1/62 = 0.0161
    weighted = reciprocal_rank_fusion(lists, weights={"a": 2.0})
    assert weighted.positions.tolist() == [2, 1, 3]
    assert weighted.scores.tolist() == pytest.approx([2 / 62 + 1 / 61, 2 / 61, 1 / 62])
    assert reciprocal_rank_fusion(lists, weights={"a": 0.0}).positions.tolist() == [2, 3]


def test_nothing_found_fuses_to_nothing() -> None:
    assert reciprocal_rank_fusion({}).positions.tolist() == []
    assert reciprocal_rank_fusion({"a": ranked(), "b": ranked()}).scores.tolist() == []


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), max_size=5), st.integers(1, 100))
def test_the_order_is_that_of_exact_fractions_whatever_the_order_of_retrievers(lists: list[list[int]], k: int) -> None:
    exact: dict[int, Fraction] = {}
    for one in lists:
        for rank, position in enumerate(one, start=1):
            exact[position] = exact.get(position, Fraction(0)) + Fraction(1, k + rank)
    named = {str(number): ranked(*one) for number, one in enumerate(lists)}
    fused = reciprocal_rank_fusion(named, k)
    turned = reciprocal_rank_fusion(dict(reversed(named.items())), k)
    assert sorted(fused.positions.tolist()) == sorted(exact)
    assert fused.positions.tolist() == turned.positions.tolist()
    values = [exact[position] for position in fused.positions.tolist()]
    assert all(float(lower - higher) < 1e-15 for higher, lower in pairwise(values))
    assert fused.scores.tolist() == pytest.approx([float(value) for value in values], rel=1e-6)
