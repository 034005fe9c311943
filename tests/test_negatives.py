"""What counts as a hard negative, and the guard."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_builders.negatives import Hit, NegativesSettings, bears_answer, hard_negatives, random_negatives
from data_builders.text import contains_answer

HITS = tuple(Hit(passage, "bm25", rank, 1.0, passage == 30) for rank, passage in enumerate([10, 20, 30, 40, 50], 1))


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("They live in a house.", ["us"], False),
        ("It concerns us.", ["us"], True),
        ("Anything at all.", [""], False),
        ("Anything at all.", ["..."], False),
        ("Anything at all.", [], False),
        ("Built in 1,802 by Corin", ["1802"], True),
        ("Built in 18021", ["1802"], False),
        ("The Lord of the Rings", ["lord of rings"], True),
        ("new york city", ["York", "Paris"], True),
    ],
)
def test_guard_matches_at_token_borders(text: str, answers: list[str], expected: bool) -> None:
    assert bears_answer(text, answers) is expected


words = st.text(alphabet="ab 1,.é", max_size=12)


@given(words, st.lists(words, max_size=3))
def test_fast_guard_tells_what_the_plain_one_tells(text: str, answers: list[str]) -> None:
    assert bears_answer(text, answers) == contains_answer(text, answers)


def test_hard_negatives_are_ranked_not_gold_and_without_the_answer() -> None:
    found = hard_negatives(HITS, {20}, NegativesSettings())
    assert found.kept == (10, 40, 50)
    assert found.guarded == (30,)


def test_guard_can_be_switched_off() -> None:
    found = hard_negatives(HITS, {20}, NegativesSettings(answer_guard=False))
    assert (found.kept, found.guarded) == ((10, 30, 40, 50), ())


def test_rank_window_counts_gold_places() -> None:
    assert hard_negatives(HITS, {20}, NegativesSettings(rank_low=2, rank_high=4)).kept == (40,)


def test_empty_rank_window_is_refused() -> None:
    with pytest.raises(ValidationError, match="set rank_high to 9 or more"):
        NegativesSettings(rank_low=9, rank_high=3)


def test_random_negatives_are_distinct_allowed_and_unused() -> None:
    chosen = random_negatives(1000, 20, lambda position: position % 2 == 0, {0, 2, 4}, random.Random(1))
    assert len(set(chosen)) == 20
    assert all(position % 2 == 0 and position > 4 for position in chosen)


def test_random_negatives_of_a_small_corpus_are_all_there_are() -> None:
    chosen = random_negatives(6, 10, lambda position: position != 3, {0}, random.Random(1))
    assert sorted(chosen) == [1, 2, 4, 5]
