"""Retrieval quality on three questions and two retrievers, every share worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_builders.manifest import Tally
from data_builders.quality import Relevant, advise_on_recall, count_quality, quality_report
from data_builders.retrievers import Found

Asked = tuple[dict[str, list[int]], set[int], set[int]]
"""What each retriever ranked, gold, passages with the answer. Merged is what the second ranked, then the first."""

ASKED: list[Asked] = [
    ({"a": [3, 0, 5], "b": [0, 3]}, {0}, {0, 3}),
    ({"a": [1, 7, 2, 8, 9], "b": [7]}, {1, 2}, {1}),
    ({"a": [6, 4], "b": []}, set(), {4}),
]


def counted(asked: Sequence[Asked], alternatives: Collection[int] = ()) -> Tally:
    tally = Tally()
    for ranked, gold, bearing in asked:
        found = {
            name: Found(np.array(ids, np.int32), np.linspace(1, 0, len(ids), dtype=np.float32))
            for name, ids in ranked.items()
        }
        merged = list(dict.fromkeys(id_ for ids in reversed(ranked.values()) for id_ in ids))
        count_quality(found, merged, Relevant(gold, {*gold, *alternatives}, bearing), tally)
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


def test_the_merged_ranking_is_told_under_its_own_name() -> None:
    report = quality_report(counted(ASKED).counts["quality"])
    # 0 3 5 of the first, 7 1 2 8 9 of the second, 6 4 of the third
    assert report["merged"] == {
        "recall (all gold in the top k)": {"1": 0.5, "2": 0.5, "5": 1.0, "all": 1.0},
        "any gold in the top k": {"1": 0.5, "2": 1.0, "5": 1.0, "all": 1.0},
        "precision (gold among the top k)": {"1": 0.5, "2": 0.5, "5": 0.3},
        "answer in the top k": {"1": 0.3333, "2": 1.0, "5": 1.0, "all": 1.0},
        "share of negatives at rank k that bear the answer": {"1": 0.0, "2": 1.0, "5": 0.0},  # 7 and 6; 3 and 4; 9
    }
    assert [name for name in report if "in common" in name] == ["share of the first 10 in common: a and b"]


def test_a_single_ranking_is_not_told_twice_and_a_retriever_may_be_called_merged() -> None:
    alone: Asked = ({"a": [1]}, {1}, set())
    assert set(quality_report(counted([alone]).counts["quality"])) == {"a"}
    named: Asked = ({"merged": [1], "b": [2]}, {1}, set())
    report = quality_report(counted([named]).counts["quality"])
    assert report["merged"]["any gold in the top k"] == {"1": 1.0, "all": 1.0}
    assert report["merged (all)"]["any gold in the top k"] == {"1": 0.0, "2": 1.0, "all": 1.0}


def test_alternatives_to_gold_are_no_negatives_that_bear_the_answer() -> None:
    report = quality_report(counted(ASKED, alternatives={3, 4, 7}).counts["quality"])
    shares = "share of negatives at rank k that bear the answer"
    assert report["a"][shares] == {"1": 0.0, "2": 0.0, "5": 0.0}  # of 6; of none; of 9
    assert report["b"][shares] == {"1": 0.0, "2": 0.0}
    two: Asked = ({"a": [3, 8]}, {0}, {3, 8})
    assert quality_report(counted([two], {3}).counts["quality"])["a"][shares] == {"1": 0.0, "2": 1.0}


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
