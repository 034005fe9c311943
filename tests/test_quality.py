"""Retrieval quality on three questions and two retrievers, every share worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_builders.manifest import Tally
from data_builders.quality import advise_on_recall, count_quality, quality_report
from data_builders.retrievers import Found

Asked = tuple[dict[str, list[int]], set[int], set[int]]
"""What each retriever ranked, gold, passages with the answer."""

ASKED: list[Asked] = [
    ({"a": [3, 0, 5], "b": [0, 3]}, {0}, {0, 3}),
    ({"a": [1, 7, 2, 8, 9], "b": [7]}, {1, 2}, {1}),
    ({"a": [6, 4], "b": []}, set(), {4}),
]


def counted(asked: Sequence[Asked]) -> Tally:
    tally = Tally()
    for ranked, gold, bearing in asked:
        found = {
            name: Found(np.array(ids, np.int32), np.linspace(1, 0, len(ids), dtype=np.float32))
            for name, ids in ranked.items()
        }
        count_quality(found, gold, bearing, tally)
    return tally


def test_shares_of_three_questions() -> None:
    report = quality_report(counted(ASKED).counts["quality"])
    assert report["a"] == {
        "recall (all gold in the top k)": {"1": 0.0, "2": 0.5, "5": 1.0, "all": 1.0},  # of two questions with gold
        "any gold in the top k": {"1": 0.5, "2": 1.0, "5": 1.0, "all": 1.0},
        "precision (gold among the top k)": {"1": 0.5, "2": 0.5, "5": 0.3},  # 1 of 2, 2 of 4, 3 of 10
        "answer in the top k": {"1": 0.6667, "2": 1.0, "5": 1.0, "all": 1.0},  # of three
        "share of negatives at rank k that bear the answer": {"1": 0.5, "2": 0.5, "5": 0.0},  # 3 and 6; 7 and 4; 9
    }
    assert report["b"] == {
        "recall (all gold in the top k)": {"1": 0.5, "2": 0.5, "all": 0.5},
        "any gold in the top k": {"1": 0.5, "2": 0.5, "all": 0.5},
        "precision (gold among the top k)": {"1": 0.5, "2": 0.25},
        "answer in the top k": {"1": 0.3333, "2": 0.3333, "all": 0.3333},
        "share of negatives at rank k that bear the answer": {"1": 0.0, "2": 1.0},  # 7; 3
    }
    assert report["share of the first 10 in common: a and b"] == 0.3  # 2 of 3, 1 of 5, 0 of 2


def test_overlap_is_that_of_the_first_ten() -> None:
    deep: Asked = ({"a": list(range(20)), "b": [*range(10, 20), *range(10)], "c": [9, 30, 0]}, {0}, set())
    report = quality_report(counted([deep]).counts["quality"])
    assert report["share of the first 10 in common: a and b"] == 0.0
    assert report["share of the first 10 in common: a and c"] == 0.2
    assert report["share of the first 10 in common: b and c"] == 0.0
    assert report["a"]["recall (all gold in the top k)"] == {
        "1": 1.0,
        "2": 1.0,
        "5": 1.0,
        "10": 1.0,
        "20": 1.0,
        "all": 1.0,
    }
    assert report["b"]["recall (all gold in the top k)"] == {
        "1": 0.0,
        "2": 0.0,
        "5": 0.0,
        "10": 0.0,
        "20": 1.0,
        "all": 1.0,
    }


def test_questions_without_gold_count_for_answers_only() -> None:
    report = quality_report(counted([ASKED[2]]).counts["quality"])["a"]
    assert set(report["recall (all gold in the top k)"].values()) == {0.0}
    assert report["answer in the top k"] == {"1": 0.0, "2": 1.0, "all": 1.0}


@given(st.lists(st.integers(0, 2), max_size=7), st.lists(st.integers(1, 3), max_size=6))
def test_sums_of_parts_are_the_sums_of_the_whole(chosen: list[int], cuts: list[int]) -> None:
    asked = [ASKED[number] for number in chosen]
    whole, start = Tally(), 0
    for size in [*cuts, len(asked)]:
        part = counted(asked[start : start + size])
        whole.add(Tally.of_state(json.loads(json.dumps(part.state()))))  # as it is kept beside a part
        start += size
    assert whole.counts == counted(asked).counts


def test_low_recall_of_the_best_retriever_is_told_and_what_to_change_stands_once_at_the_end() -> None:
    tally = Tally(advice=["Something else."])
    for names, split in [("b", "train"), ("ab", "validation"), ("b", "test")]:
        asked = [({name: ranked[name] for name in names}, gold, bearing) for ranked, gold, bearing in ASKED]
        advise_on_recall(quality_report(counted(asked).counts["quality"]), split, tally)
    assert tally.advice[:3] == [
        "Something else.",
        "b does not find all gold passages of 50 % of the train questions.",
        "b does not find all gold passages of 50 % of the test questions.",
    ]
    (remedy,) = tally.advice[3:]
    assert "data.depth" in remedy
