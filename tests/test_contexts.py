"""How contexts are composed: counts, gold, order; by hand and as invariants."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tiny_world import corpus_of, ranked

from data_builders.contexts import ContextsSettings, CountSettings, compose, draw_count, reordered
from data_builders.negatives import NegativesSettings, bears_answer

COUNTS: TypeAdapter[CountSettings] = TypeAdapter(CountSettings)
CORPUS = corpus_of([f"word{number}" for number in range(30)] + ["the answer stands here"] * 10)
BEARING = set(range(30, 40))
QUESTION = ranked((3, 5), [30, 5, 7, 8, 9, 10, 31, 11, 3, 12], ("answer",), BEARING)


def settings(**changes: object) -> ContextsSettings:
    return ContextsSettings.model_validate({"passages": {"kind": "fixed", "count": 6}, **changes})


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 3, 2]),
        (4, [1, 3, 4, 2]),
        (5, [1, 3, 5, 4, 2]),
        (6, [1, 3, 5, 6, 4, 2]),
        (7, [1, 3, 5, 7, 6, 4, 2]),
        (8, [1, 3, 5, 7, 8, 6, 4, 2]),
    ],
)
def test_reordering_puts_the_best_at_both_ends(count: int, expected: list[int]) -> None:
    assert reordered(list(range(1, count + 1))) == expected


@given(st.integers(0, 60))
def test_reordering_follows_the_papers_slots(count: int) -> None:
    slots = {rank: (rank + 1) // 2 if rank % 2 else count + 1 - rank // 2 for rank in range(1, count + 1)}
    assert reordered(list(range(1, count + 1))) == sorted(slots, key=lambda rank: slots[rank])


def drawn(given: dict[str, object], times: int = 4000) -> Counter[int]:
    rng, kind = random.Random(7), COUNTS.validate_python(given)
    return Counter(draw_count(kind, rng) for _ in range(times))


def test_fixed_count_is_always_the_same() -> None:
    assert drawn({"kind": "fixed", "count": 5}) == {5: 4000}


def test_range_count_is_uniform_with_both_ends() -> None:
    counts = drawn({"kind": "range", "low": 2, "high": 5})
    assert set(counts) == {2, 3, 4, 5}
    assert all(900 < counts[value] < 1100 for value in counts)


def test_choices_follow_their_weights() -> None:
    counts = drawn({"kind": "choices", "weights": {10: 3.0, 2: 1.0}})
    assert set(counts) == {2, 10}
    assert 900 < counts[2] < 1100


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"passages": {"kind": "range", "low": 5, "high": 2}}, "set high to 5 or more"),
        ({"questions_per_context": 4, "gold_position": "first"}, "set gold_position to uniform"),
        ({"passages": {"kind": "choices", "weights": {}}}, "at least 1"),
    ],
)
def test_settings_that_cannot_hold_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ContextsSettings.model_validate(wrong)


@pytest.mark.parametrize(("where", "places"), [("first", {(0, 1)}), ("middle", {(2, 3)}), ("last", {(4, 5)})])
def test_gold_stands_where_it_is_asked_to(where: str, places: set[tuple[int, int]]) -> None:
    fixed = settings(gold_probability=1.0, gold_position=where)
    seen = set()
    for seed in range(20):
        shown = compose(QUESTION, CORPUS, fixed, NegativesSettings(), random.Random(seed)).passages
        seen.add(tuple(index for index, passage in enumerate(shown) if passage in (3, 5)))
    assert seen == places


def test_uniform_gold_positions_are_uniform() -> None:
    one = ranked((3,), [7, 8, 9, 10], ("answer",), set())
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 4})
    counts = Counter(
        compose(one, CORPUS, fixed, NegativesSettings(), random.Random(seed)).passages.index(3) for seed in range(2000)
    )
    assert set(counts) == {0, 1, 2, 3}
    assert all(420 < counts[place] < 580 for place in counts)


def test_retrieved_order_keeps_the_ranks_and_puts_missed_gold_last() -> None:
    question = ranked((5, 20), [7, 5, 8, 9], ("answer",), set())
    fixed = settings(gold_probability=1.0, order="retrieved", hard_share=1.0, passages={"kind": "fixed", "count": 5})
    assert compose(question, CORPUS, fixed, NegativesSettings(), random.Random(0)).passages == (7, 5, 8, 9, 20)
    fixed = fixed.model_copy(update={"order": "reordered"})
    assert compose(question, CORPUS, fixed, NegativesSettings(), random.Random(0)).passages == (7, 8, 20, 9, 5)


def test_gold_is_kept_as_often_as_set() -> None:
    kept = sum(
        compose(QUESTION, CORPUS, settings(gold_probability=0.7), NegativesSettings(), random.Random(seed)).with_gold
        for seed in range(2000)
    )
    assert 1330 < kept < 1470


def test_hard_negatives_are_the_best_ranked_ones_in_their_share() -> None:
    one = ranked((3,), [30, 7, 8, 9, 10, 11], ("answer",), BEARING)
    fixed = settings(gold_probability=1.0, hard_share=0.5, passages={"kind": "fixed", "count": 5})
    composition = compose(one, CORPUS, fixed, NegativesSettings(rank_high=3), random.Random(0))
    assert {7, 8} <= set(composition.passages)  # 2 of 4 negatives are hard; rank 1 bears the answer
    assert composition.hard == 2
    assert composition.guarded == (30,)


def test_too_few_negatives_make_a_smaller_context() -> None:
    fixed = settings(gold_probability=1.0, hard_share=1.0, passages={"kind": "fixed", "count": 20})
    composition = compose(QUESTION, CORPUS, fixed, NegativesSettings(), random.Random(0))
    assert sorted(composition.passages) == [3, 5, 7, 8, 9, 10, 11, 12]
    assert composition.wanted == 20


def test_all_gold_is_shown_even_in_a_context_drawn_too_small() -> None:
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 1})
    assert set(compose(QUESTION, CORPUS, fixed, NegativesSettings(), random.Random(0)).passages) == {3, 5}


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 12),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    order=st.sampled_from(["shuffled", "retrieved", "reordered"]),
    guard=st.booleans(),
)
def test_compose_keeps_its_promises(
    seed: int, count: int, probability: float, share: float, order: str, guard: bool
) -> None:
    chosen = settings(
        passages={"kind": "fixed", "count": count}, gold_probability=probability, hard_share=share, order=order
    )
    negatives = NegativesSettings(answer_guard=guard)
    composition = compose(QUESTION, CORPUS, chosen, negatives, random.Random(seed))
    shown = composition.passages
    assert composition == compose(QUESTION, CORPUS, chosen, negatives, random.Random(seed))
    assert len(set(shown)) == len(shown) <= max(count, 2)
    assert share == 1.0 or len(shown) == composition.wanted
    assert set(shown) & {3, 5} == ({3, 5} if composition.with_gold else set())
    if guard:
        assert not any(bears_answer(CORPUS.text(p), QUESTION.answers) for p in shown)
