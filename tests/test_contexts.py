"""How contexts are composed: counts, gold, order; by hand and as invariants."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tiny_split import Ranked, split_of

from data_builders.context_rows import note
from data_builders.contexts import Case, Composition, ContextsSettings, Plan, compose, reordered
from data_builders.manifest import Tally
from data_builders.negatives import NegativesSettings
from data_builders.passage_counts import AnyCount, CountSettings, draw_count, estimated_tokens
from data_builders.text import contains_answer

COUNTS: TypeAdapter[AnyCount] = TypeAdapter(CountSettings)
TEXTS = [f"word{number}" for number in range(30)] + ["the answer stands here"] * 10
BEARING = set(range(30, 40))
QUESTION = Ranked((3, 5), [30, 5, 7, 8, 9, 10, 31, 11, 3, 12], bearing=BEARING)


def settings(**changes: object) -> ContextsSettings:
    return ContextsSettings.model_validate({"passages": {"kind": "fixed", "count": 6}, **changes})


def composed(
    question: Ranked, contexts: ContextsSettings, seed: int = 0, progress: float = 1.0, **negatives: object
) -> Composition:
    """Compose a context of the first question of a split; two further ones rank p20 and p21 first."""
    split = split_of(TEXTS, question, Ranked((1,), [20, 1]), Ranked((2,), [21, 2]))
    plan = Plan(contexts, NegativesSettings.model_validate(negatives), 1, None)
    return compose(split, Case.of(split, 0), plan, random.Random(seed), progress)


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
        ({"passages": {"kind": "curriculum", "start": 2, "end": 9, "low": 3}}, "set low to 2 or less"),
        (
            {"gold_position": {"index": 10}},
            r"\{index: 10\} lies outside contexts of at most 10 passages: set index to 9",
        ),
        ({"gold_position": {"index": 1}, "questions_per_context": 2}, "set gold_position to uniform"),
        ({"gold_partial": 0.5, "questions_per_context": 2}, "set gold_partial to 0.0"),
        ({"epochs": 2, "contexts": {"train": 5}}, "set epochs to 1 or remove the cap"),
    ],
)
def test_settings_that_cannot_hold_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ContextsSettings.model_validate(wrong)


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ("first", {(0, 1)}),
        ("middle", {(2, 3)}),
        ("last", {(4, 5)}),
        ({"index": 0}, {(0, 1)}),
        ({"index": 3}, {(3, 4)}),
        ({"index": 5}, {(4, 5)}),  # two gold passages end with the context
    ],
)
def test_gold_stands_where_it_is_asked_to(where: object, places: set[tuple[int, int]]) -> None:
    fixed = settings(gold_probability=1.0, gold_position=where)
    seen = set()
    for seed in range(20):
        shown = composed(QUESTION, fixed, seed).passages
        seen.add(tuple(index for index, passage in enumerate(shown) if passage in (3, 5)))
    assert seen == places


def test_uniform_gold_positions_are_uniform() -> None:
    one = Ranked((3,), [7, 8, 9, 10])
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 4})
    counts = Counter(composed(one, fixed, seed).passages.index(3) for seed in range(1000))
    assert set(counts) == {0, 1, 2, 3}
    assert all(200 < counts[place] < 300 for place in counts)


def test_retrieved_order_keeps_the_ranks_and_puts_missed_gold_last() -> None:
    question = Ranked((5, 20), [7, 5, 8, 9])
    fixed = settings(gold_probability=1.0, order="retrieved", passages={"kind": "fixed", "count": 5})
    assert composed(question, fixed, shares={"top": 1}).passages == (7, 5, 8, 9, 20)
    fixed = fixed.model_copy(update={"order": "reordered"})
    assert composed(question, fixed, shares={"top": 1}).passages == (7, 8, 20, 9, 5)


# gold


def test_gold_is_kept_as_often_as_set() -> None:
    kept = sum(bool(composed(QUESTION, settings(gold_probability=0.7), seed).gold) for seed in range(1000))
    assert 650 < kept < 750


def test_all_gold_is_shown_even_in_a_context_drawn_too_small() -> None:
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 1})
    assert set(composed(QUESTION, fixed).passages) == {3, 5}


def test_part_of_the_gold_is_shown_as_often_as_set_and_never_its_answer() -> None:
    question = Ranked((3, 5, 30), [30, 5, 7, 8, 9, 10, 3], bearing={30})
    chosen = settings(gold_probability=0.0, gold_partial=0.5)
    parts = Counter(tuple(sorted(composed(question, chosen, seed).gold)) for seed in range(1000))
    assert set(parts) == {(), (3,), (5,), (3, 5)}  # 30 holds the answer
    assert parts[()] == pytest.approx(500, abs=50)
    assert parts[3, 5] == pytest.approx(250, abs=50)


@pytest.mark.parametrize("bearing", [set(), {3}])
def test_one_gold_passage_has_no_part(bearing: set[int]) -> None:
    chosen = settings(gold_probability=0.0, gold_partial=1.0)
    assert not any(composed(Ranked((3,), [3, 7, 8], bearing=bearing), chosen, seed).gold for seed in range(20))


# negatives


def test_hard_negatives_are_the_best_ranked_ones_in_their_share() -> None:
    one = Ranked((3,), [30, 7, 8, 9, 10, 11], bearing=BEARING)
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 5})
    composition = composed(one, fixed, shares={"top": 0.5, "random": 0.5}, rank_high=3)
    # 2 of 4 negatives are hard; rank 1 bears the answer
    assert [(n.passage, n.kind) for n in composition.negatives[:2]] == [(7, "top"), (8, "top")]
    assert [n.kind for n in composition.negatives[2:]] == ["random", "random"]
    assert [hit.passage for hit in composition.guarded] == [30]


def kinds(composition: Composition) -> Counter[str]:
    return Counter(negative.kind for negative in composition.negatives)


def test_kinds_come_in_their_shares() -> None:
    question = Ranked((3,), [7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 7})
    composition = composed(question, fixed, shares={"top": 2, "low": 2, "other": 2}, low_from=6)
    assert kinds(composition) == {"top": 2, "low": 2, "other": 2}
    by_kind = {kind: {n.passage for n in composition.negatives if n.kind == kind} for kind in ("top", "low", "other")}
    assert by_kind["top"] == {7, 8}
    assert by_kind["low"] < {12, 13, 14, 15, 16}
    assert by_kind["other"] == {20, 21}


def test_what_one_kind_lacks_the_next_make_up() -> None:
    question = Ranked((3,), [7, 8])
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 9})
    everything = composed(question, fixed, shares={"top": 5, "other": 1, "random": 2})
    assert kinds(everything) == {"top": 2, "other": 2, "random": 4}
    without_random = composed(question, fixed, shares={"top": 6, "other": 2})
    assert kinds(without_random) == {"top": 2, "other": 2}
    assert (len(without_random.passages), without_random.wanted) == (5, 9)


def test_what_comes_short_at_the_end_is_taken_from_the_top() -> None:
    question = Ranked((3,), [7, 8, 9, 10, 11, 12])
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 7})
    assert kinds(composed(question, fixed, shares={"top": 1, "other": 5})) == {"top": 4, "other": 2}


def test_too_few_negatives_make_a_smaller_context() -> None:
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 20})
    composition = composed(QUESTION, fixed, shares={"top": 1})
    assert sorted(composition.passages) == [3, 5, 7, 8, 9, 10, 11, 12]
    assert composition.wanted == 20


def test_guarded_and_alternative_passages_are_not_drawn_at_random_either() -> None:
    guards = {7: "near_duplicate", 8: "cross_encoder"}
    question = Ranked((3,), [7, 8, 9], bearing=BEARING, guards=guards, alternatives=("p10", "p11"))
    fixed = settings(gold_probability=1.0, passages={"kind": "fixed", "count": 40})
    shown = composed(question, fixed, shares={"random": 1}).passages
    assert sorted(shown) == [p for p in range(30) if p not in (7, 8, 10, 11)]  # 30 and on hold the answer


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 12),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    shares=st.dictionaries(st.sampled_from(["top", "low", "other", "random"]), st.sampled_from([0.2, 1.0]), min_size=1),
    order=st.sampled_from(["shuffled", "retrieved", "reordered"]),
    pick=st.sampled_from(["best", "sample"]),
)
def test_compose_keeps_its_promises(
    seed: int, count: int, probability: float, shares: dict[str, float], order: str, pick: str
) -> None:
    chosen = settings(passages={"kind": "fixed", "count": count}, gold_probability=probability, order=order)
    negatives = {"shares": shares, "top_pick": pick, "low_from": 4}
    composition = composed(QUESTION, chosen, seed, **negatives)
    shown = composition.passages
    assert composition == composed(QUESTION, chosen, seed, **negatives)
    assert len(set(shown)) == len(shown) <= max(count, 2)
    assert "random" not in shares or len(shown) == composition.wanted
    assert set(shown) & {3, 5} == set(composition.gold)
    assert composition.gold in ((), (3, 5))
    assert {n.kind for n in composition.negatives} <= set(shares)
    assert not any(contains_answer(TEXTS[p], QUESTION.answers) for p in shown)


# how many


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("one", 2),  # 1.3, rounded up
        ("ten words make thirteen tokens whatever it is they say", 13),
        ("서울은 수도이다", 7),
        ("日本の首都は東京です", 10),
        ("กรุงเทพ", 7),
        ("NASA는 1958년에 생겼다.", 10),  # NASA, 1958 and the full stop: 3 words, 4 tokens; 6 syllables of Hangul
    ],
)
def test_tokens_are_estimated_by_words_and_by_letters_of_scripts_without_spaces(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


def budgeted(budget: int, seed: int = 0, **changes: object) -> Composition:
    """Every passage is 13 estimated tokens; the second gold passage is 26."""
    ten = "ten words make thirteen tokens whatever it is they say"
    texts = [f"{ten}"] * 30
    texts[5] = f"{ten} {ten}"
    split = split_of(texts, Ranked((3, 5), [5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 3]))
    chosen = settings(passages={"kind": "tokens", "budget": budget, "most": 9}, gold_probability=1.0)
    plan = Plan(chosen, NegativesSettings.model_validate(changes), 1, None)
    return compose(split, Case.of(split, 0), plan, random.Random(seed))


@pytest.mark.parametrize(("budget", "passages"), [(10, 2), (39, 2), (51, 2), (52, 3), (91, 6), (10_000, 9)])
def test_negatives_are_added_while_they_fit_the_budget(budget: int, passages: int) -> None:
    composition = budgeted(budget)
    assert len(composition.passages) == composition.wanted == passages
    assert {3, 5} <= set(composition.passages)


@pytest.mark.parametrize(("budget", "over"), [(38, True), (39, False), (10_000, False)])
def test_gold_above_the_budget_is_told(budget: int, over: bool) -> None:
    composition, tally = budgeted(budget), Tally()
    split = split_of(["text"] * 30, Ranked((3, 5), [3, 5]))
    note(composition, Case.of(split, 0), tally)
    assert ("contexts whose gold alone is above the token budget" in tally.counts) is over


def test_kinds_keep_their_shares_in_a_budget() -> None:
    composition = budgeted(39 + 4 * 13, shares={"top": 0.5, "random": 0.5})
    assert kinds(composition) == {"top": 2, "random": 2}
    assert {n.passage for n in composition.negatives if n.kind == "top"} == {7, 8}


def test_budget_that_the_pool_cannot_fill_leaves_a_smaller_context() -> None:
    assert budgeted(10_000, shares={"top": 1}, rank_high=4).wanted == 9
    assert len(budgeted(10_000, shares={"top": 1}, rank_high=4).passages) == 5


@pytest.mark.parametrize(
    ("progress", "count"), [(0.0, 2), (0.24, 2), (0.25, 3), (0.5, 4), (0.74, 4), (0.75, 5), (1.0, 5)]
)
def test_curriculum_gives_each_count_an_equal_share_of_training(progress: float, count: int) -> None:
    up = COUNTS.validate_python({"kind": "curriculum", "start": 2, "end": 5})
    down = COUNTS.validate_python({"kind": "curriculum", "start": 5, "end": 2})
    assert draw_count(up, random.Random(0), progress) == count
    assert draw_count(down, random.Random(0), progress) == 7 - count


def test_curriculum_with_a_low_end_draws_up_to_the_count_of_the_moment() -> None:
    kind = COUNTS.validate_python({"kind": "curriculum", "start": 2, "end": 5, "low": 1})
    assert {draw_count(kind, random.Random(seed), 0.5) for seed in range(50)} == {1, 2, 3, 4}
