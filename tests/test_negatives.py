"""What counts as a hard negative, and how negatives of each kind are chosen."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_split import Ranked, split_of

from data_builders.hits import Hit
from data_builders.mixing import mixed, quotas
from data_builders.negatives import (
    NegativesSettings,
    hard_negatives,
    other_negatives,
    pick_low,
    pick_top,
    random_negatives,
)

HITS = tuple(
    Hit(passage, "bm25", rank, 1.0, passage == 30, "answer" if passage == 30 else "")
    for rank, passage in enumerate([10, 20, 30, 40, 50], 1)
)


def passages(hits: tuple[Hit, ...]) -> list[int]:
    return [hit.passage for hit in hits]


def test_hard_negatives_are_ranked_not_gold_and_unguarded() -> None:
    found = hard_negatives(HITS, {20}, NegativesSettings())
    assert (passages(found.kept), passages(found.guarded)) == ([10, 40, 50], [30])


@pytest.mark.parametrize("guard", ["near_duplicate", "cross_encoder"])
def test_every_reason_of_the_guard_keeps_a_passage_out(guard: str) -> None:
    found = hard_negatives(
        [Hit(1, "bm25", 1, 1.0, False, guard), Hit(2, "bm25", 2, 1.0, True)], (), NegativesSettings()
    )
    assert (passages(found.kept), passages(found.guarded)) == ([2], [1])


def test_other_gold_is_neither_a_negative_nor_counted_as_guarded() -> None:
    found = hard_negatives(
        [Hit(1, "bm25", 1, 1.0, True, "gold"), Hit(2, "bm25", 2, 1.0, False)], (), NegativesSettings()
    )
    assert (passages(found.kept), found.guarded) == ([2], ())


def test_rank_window_counts_gold_places() -> None:
    assert passages(hard_negatives(HITS, {20}, NegativesSettings(rank_low=2, rank_high=4)).kept) == [40]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank_low": 9, "rank_high": 3}, "set rank_high to 9 or more"),
        ({"shares": {"top": 0, "random": 0}}, "write for example {top: 1}"),
        ({"shares": {}}, "write for example {top: 1}"),
        ({"shares": {"low": 1}, "low_from": 60}, "set low_from to 50 or less"),
        ({"shares": {"top": -1}}, "greater than or equal to 0"),
        ({"shares": {"hard": 1}}, "'top', 'low', 'other' or 'random'"),
        ({"retriever_shares": {}}, "at least 1"),
        ({"retriever_shares": {"bm25": 0}}, "greater than 0"),
    ],
)
def test_settings_that_choose_nothing_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NegativesSettings.model_validate(wrong)


# top-ranked


def test_best_pick_takes_the_ranking_as_it_is() -> None:
    chosen = pick_top([HITS[0], HITS[3], HITS[4]], 2, NegativesSettings(), random.Random(0))
    assert [(one.passage, one.kind, one.retriever) for one in chosen] == [(10, "top", "bm25"), (40, "top", "bm25")]


def test_sampled_pick_draws_places_by_one_over_place() -> None:
    kept, chosen = [HITS[0], HITS[3], HITS[4]], NegativesSettings(top_pick="sample")
    first = Counter(pick_top(kept, 1, chosen, random.Random(seed))[0].passage for seed in range(4000))
    # weights 1, 1/2, 1/3: 6, 3 and 2 of 11
    assert first[10] == pytest.approx(4000 * 6 / 11, abs=150)
    assert first[40] == pytest.approx(4000 * 3 / 11, abs=150)
    assert first[50] == pytest.approx(4000 * 2 / 11, abs=150)
    assert {one.passage for one in pick_top(kept, 3, chosen, random.Random(0))} == {10, 40, 50}


def several(*rows: tuple[int, dict[str, int]]) -> list[Hit]:
    """Return hits found by several retrievers: (passage, {retriever: rank}), in the merged order."""
    return [
        Hit(passage, next(iter(ranks)), place, 1.0, False, "", tuple(ranks.items()))
        for place, (passage, ranks) in enumerate(rows, start=1)
    ]


FOUND = several(
    (1, {"bm25": 1}),
    (2, {"dense": 1}),
    (3, {"bm25": 2, "dense": 2}),
    (4, {"bm25": 3}),
    (5, {"dense": 3}),
    (6, {"bm25": 4}),
)


def test_retrievers_serve_their_shares_each_in_its_own_order() -> None:
    chosen = pick_top(FOUND, 4, NegativesSettings(retriever_shares={"bm25": 3.0, "dense": 1.0}), random.Random(0))
    # bm25 is due 3 times: 1, then 3 and 4 of its list; dense is due once: 2
    assert [(one.passage, one.retriever) for one in chosen] == [(1, "bm25"), (3, "bm25"), (4, "bm25"), (2, "dense")]


def test_passage_that_both_found_counts_for_the_one_it_was_taken_for() -> None:
    settings = NegativesSettings(retriever_shares={"dense": 1.0, "bm25": 1.0})
    chosen = pick_top(FOUND, 6, settings, random.Random(0))
    assert sorted(one.passage for one in chosen) == [1, 2, 3, 4, 5, 6]
    # turns: dense 2, bm25 1, dense 3 (both have it), bm25 4, dense 5, bm25 6
    assert [(one.passage, one.retriever) for one in chosen] == [
        (2, "dense"), (1, "bm25"), (3, "dense"), (4, "bm25"), (5, "dense"), (6, "bm25"),
    ]  # fmt: skip


def test_retriever_that_runs_out_is_made_up_for_and_an_unnamed_one_serves_nothing() -> None:
    found = several((1, {"bm25": 1}), (2, {"dense": 1}), (3, {"other": 1}), (4, {"dense": 2}))
    shares = {"bm25": 2.0, "dense": 1.0}
    chosen = pick_top(found, 4, NegativesSettings(retriever_shares=shares), random.Random(0))
    assert [one.passage for one in chosen] == [1, 2, 4]


def test_window_holds_for_each_retrievers_own_ranks() -> None:
    settings = NegativesSettings(rank_low=2, rank_high=3, retriever_shares={"bm25": 1.0})
    assert passages(hard_negatives(FOUND, (), settings).kept) == [3, 4]
    assert [one.passage for one in pick_top(FOUND, 9, settings, random.Random(0))] == [3, 4]


# the other kinds


def test_low_ones_come_from_the_end_of_the_window() -> None:
    settings = NegativesSettings(shares={"low": 1}, low_from=4)
    seen = {pick_low(HITS, 1, settings, random.Random(seed))[0].passage for seed in range(20)}
    assert seen == {40, 50}
    assert len(pick_low(HITS, 9, settings, random.Random(0))) == 2


def test_other_questions_give_the_passage_retrieved_first_for_them() -> None:
    split = split_of(["text"] * 6, Ranked((0,), [5, 1]), Ranked((1,), [1, 2]), Ranked((2,), [2, 3]), Ranked((3,), [3]))
    chosen = other_negatives(split, 0, 9, lambda passage: passage != 3, {1}, random.Random(0))
    assert chosen == [2]  # 5 is its own, 1 is used, 3 is not allowed


def test_random_negatives_are_distinct_allowed_and_unused() -> None:
    chosen = random_negatives(1000, 20, lambda position: position % 2 == 0, {0, 2, 4}, random.Random(1))
    assert len(set(chosen)) == 20
    assert all(position % 2 == 0 and position > 4 for position in chosen)


def test_random_negatives_of_a_small_corpus_are_all_there_are() -> None:
    chosen = random_negatives(6, 10, lambda position: position != 3, {0}, random.Random(1))
    assert sorted(chosen) == [1, 2, 4, 5]


# sharing out


def test_fraction_of_a_place_is_a_chance_of_one() -> None:
    shares = {"top": 3.0, "low": 1.0}
    drawn = Counter(tuple(quotas(2, shares, random.Random(seed)).values()) for seed in range(2000))
    assert set(drawn) == {(1, 1), (2, 0)}  # 1.5 and 0.5 places
    assert drawn[1, 1] == pytest.approx(1000, abs=100)


@given(st.integers(0, 50), st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 5), min_size=1), st.integers())
def test_places_add_up_and_miss_their_share_by_less_than_one(wanted: int, shares: dict[str, float], seed: int) -> None:
    places, total = quotas(wanted, shares, random.Random(seed)), sum(shares.values())
    assert wanted - 1 <= sum(places.values()) <= wanted
    assert all(abs(places[name] - wanted * share / total) < 1 + 1e-6 for name, share in shares.items())


def test_mixed_sequences_keep_their_shares_in_every_beginning() -> None:
    assert "".join(mixed([(3, "aaaaaa"), (1, "bb")])) == "aabaaaba"
    assert "".join(mixed([(1, "xyz"), (1, "uvw")])) == "xuyvzw"


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), min_size=1, max_size=3))
def test_mixing_loses_nothing_and_keeps_each_order(parts: list[tuple[int, int]]) -> None:
    named = [(weight, [(name, place) for place in range(size)]) for name, (weight, size) in enumerate(parts)]
    merged = list(mixed(named))
    assert [[one for one in merged if one[0] == name] for name in range(len(parts))] == [items for _, items in named]
