"""Which questions get contexts, how often, in which order; data sets mixed; contexts shared by several questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_split import Ranked, split_of

from data_builders.context_rows import Turn, ask, compose_row, plan_rows, row_id
from data_builders.contexts import Case, ContextsSettings, Plan
from data_builders.manifest import Tally
from data_builders.mixing import mixed
from data_builders.negatives import NegativesSettings
from data_builders.ranked import Split
from data_builders.records import ContextRow
from data_builders.shared_contexts import SharedTurn, context_row, plan_shared, planned_contexts


def plan_of(
    cap: int | None = None, weights: dict[str, float | None] | None = None, training: bool = True, **contexts: Any
) -> Plan:
    chosen = ContextsSettings.model_validate({"passages": {"kind": "fixed", "count": 4}, **contexts})
    return Plan(chosen, NegativesSettings(), 1, cap, weights or {}, training=training)


def ring(*sizes: int, per_passage: int = 1, blank: int = 0) -> Split:
    """Return questions of data sets a, b, ...: each finds its gold first and then the passages after it.

    The last `blank` questions are annotated as unanswerable.
    """
    total = sum(sizes) // per_passage
    sources = [name for name, size in zip("abcd", sizes, strict=False) for _ in range(size)]
    questions = []
    for row, source in enumerate(sources):
        gold = row // per_passage % total
        order = [(gold + step) % total for step in range(min(8, total))]
        without = row >= len(sources) - blank
        questions.append(
            Ranked(() if without else (gold,), order, () if without else (f"answer {row}",), source=source)
        )
    return split_of([f"word{number}" for number in range(total)], *questions)


def turns(split: Split, plan: Plan, tally: Tally | None = None) -> list[Turn]:
    return plan_rows(split, plan, tally or Tally())


def composed(split: Split, plan: Plan, tally: Tally | None = None) -> list[ContextRow]:
    """Return the rows of all contexts that a plan makes, one after the other."""
    tally = tally or Tally()
    return [context_row(split, planned, plan, tally) for planned in planned_contexts(split, plan, tally)]


# what a row says of its question


def test_a_question_is_answerable_where_all_its_gold_is_shown() -> None:
    split = split_of(["a", "b", "c"], Ranked((0, 1), [0, 1, 2]))
    for shown, gold, answerable in (((2, 0, 1), (1, 2), True), ((2, 0), (1,), False), ((2,), (), False)):
        asked_there = ask(split, Case.of(split, 0), shown)
        assert (asked_there.gold, asked_there.answerable) == (gold, answerable)


def test_passages_outside_the_pool_are_read_for_the_answer() -> None:
    split = split_of(["gold", "the answer stands here", "another answer", "nothing"], Ranked((0,), [0, 2], bearing={2}))
    asked_there = ask(split, Case.of(split, 0), (3, 1, 0, 2))
    assert asked_there.has_answer == (1, 3)
    assert [found and found.rank for found in asked_there.retrieved] == [None, None, 1, 2]


# one question, one context


def test_one_pass_takes_every_question_once() -> None:
    planned = turns(ring(20), plan_of())
    assert sorted(one.row for one in planned) == list(range(20))
    assert {one.turn for one in planned} == {0}


def test_epochs_compose_every_question_again_with_other_draws() -> None:
    split = ring(20)
    rows = composed(split, plan_of(epochs=3))
    assert Counter(row.questions[0].id for row in rows) == dict.fromkeys(split.ids, 3)
    assert len({row.id for row in rows}) == 60
    assert {row.id for row in rows[40:]} == {f"{name}#3" for name in split.ids}
    by_id = {row.id: [passage.id for passage in row.passages] for row in rows}
    assert sum(by_id[name] != by_id[f"{name}#2"] for name in split.ids) > 15


def test_validation_is_composed_once_and_at_the_end_of_the_curriculum() -> None:
    curriculum = {"kind": "curriculum", "start": 1, "end": 4}
    planned = turns(ring(20), plan_of(training=False, epochs=3, passages=curriculum))
    assert len(planned) == 20
    assert {one.progress for one in planned} == {1.0}


def test_curriculum_grows_over_the_rows_as_they_are_written() -> None:
    plan = plan_of(passages={"kind": "curriculum", "start": 1, "end": 4})
    counts = [len(row.passages) for row in composed(ring(20), plan)]
    assert counts == sorted(counts)
    assert Counter(counts) == {1: 5, 2: 5, 3: 5, 4: 5}


def test_every_beginning_covers_as_many_gold_passages_as_it_can() -> None:
    planned = turns(ring(30, per_passage=3), plan_of())
    golds = [one.row // 3 for one in planned]
    assert all(len(set(golds[start : start + 10])) == 10 for start in (0, 10, 20))


def test_contexts_do_not_depend_on_what_was_composed_before() -> None:
    split, plan = ring(30), plan_of(epochs=2)
    planned = turns(split, plan)
    forth = {one: compose_row(split, one, plan, Tally()) for one in planned}
    back = {one: compose_row(split, one, plan, Tally()) for one in reversed(planned)}
    assert forth == back


def test_unanswerable_questions_never_show_gold_and_leave_the_share_of_the_others_alone() -> None:
    split = ring(300, blank=100)
    plan, tally = plan_of(gold_probability=0.75), Tally()
    rows = composed(split, plan, tally)
    blank = [row.questions[0] for row in rows if not row.questions[0].answers]
    assert len(blank) == 100
    assert not any(question.answerable or question.gold for question in blank)
    answerable = sum(row.questions[0].answerable for row in rows)
    assert answerable == pytest.approx(150, abs=25)
    # spread evenly: a third of every tenth of the rows, give or take one
    for start in range(0, 300, 30):
        assert 9 <= sum(not row.questions[0].answers for row in rows[start : start + 30]) <= 11


def test_questions_with_answers_but_no_gold_are_left_out_and_counted() -> None:
    split = split_of(["text"] * 4, Ranked((0,), [0, 1]), Ranked((), [1, 2]), Ranked((), [1, 2], answers=()))
    tally = Tally()
    assert sorted(one.row for one in turns(split, plan_of(), tally)) == [0, 2]
    assert tally.dropped == {"questions with answers but without a gold passage": 1}


# several data sets


def sources_of(split: Split, rows: Sequence[int]) -> str:
    return "".join(split.sources[row] for row in rows)


def test_a_mix_begins_as_sainte_lague_deals_seats() -> None:
    assert "".join(mixed([(3, "aaaaaa"), (1, "bb")])) == "aabaaaba"  # 1/3, 1, 5/3 ... against 1, 3: ties to the first


def test_data_sets_without_weights_are_taken_whole_and_spread_evenly() -> None:
    split = ring(30, 10)
    order = sources_of(split, [one.row for one in turns(split, plan_of(weights={"a": None, "b": None}))])
    assert Counter(order) == {"a": 30, "b": 10}
    assert all(Counter(order[start : start + 4]) == {"a": 3, "b": 1} for start in range(0, 40, 4))


def test_weights_are_kept_in_every_beginning_and_no_question_comes_twice() -> None:
    split = ring(30, 40)
    planned = turns(split, plan_of(weights={"a": 3.0, "b": 1.0}))
    order = sources_of(split, [one.row for one in planned])
    assert Counter(order) == {"a": 30, "b": 10}
    assert len({one.row for one in planned}) == 40
    assert all(abs(order[:end].count("a") - 0.75 * end) <= 1 for end in range(41))


def test_questions_that_get_no_context_are_counted() -> None:
    tally = Tally()
    weights: dict[str, float | None] = {"a": 3.0, "b": 1.0}
    turns(ring(30, 40), plan_of(weights=weights), tally)
    assert tally.dropped == {"questions of b that get no context (weights, cap)": 30}  # 30 of a bring 10 of b

    tally = Tally()
    turns(ring(30, 40), plan_of(weights=weights, epochs=2), tally)  # the second pass takes 10 others of b
    assert tally.dropped == {"questions of b that get no context (weights, cap)": 20}

    tally = Tally()
    turns(ring(20), plan_of(cap=5), tally)
    assert tally.dropped == {"questions that get no context (weights, cap)": 15}


def test_how_often_each_data_set_is_asked_is_told_where_there_are_several() -> None:
    weights: dict[str, float | None] = {"a": 1.0, "b": 1.0}
    tally = Tally()
    turns(ring(10, 40), plan_of(cap=50, weights=weights), tally)  # 25 of each: five of a come a third time
    turns(ring(2, 4), plan_of(weights=weights, training=False), tally)
    assert tally.counts == {
        "asked in training": {
            "a": {"questions": 10, "asked": 10, "times asked": 25, "most often": 3},
            "b": {"questions": 40, "asked": 25, "times asked": 25, "most often": 1},
        },
        "asked in validation": {
            "a": {"questions": 2, "asked": 2, "times asked": 2, "most often": 1},
            "b": {"questions": 4, "asked": 2, "times asked": 2, "most often": 1},
        },
    }
    tally = Tally()
    turns(ring(10), plan_of(cap=50, weights={"a": 1.0}), tally)
    assert not tally.counts


def test_how_often_shared_contexts_ask_each_data_set_is_told() -> None:
    split, tally = ring(20, 40, per_passage=2), Tally()
    plan = plan_of(questions_per_context=3, epochs=2, weights={"a": None, "b": None})
    times = asked(composed(split, plan, tally))
    assert tally.counts["asked in training"] == {
        "a": {"questions": 20, "asked": 20, "times asked": 40, "most often": 2},
        "b": {"questions": 40, "asked": 40, "times asked": 80, "most often": 2},
    }
    assert times == dict.fromkeys(split.ids, 2)


@given(st.lists(st.tuples(st.sampled_from(["a", "a#1", "a#2", "a#2#1", "a#2#2", "a#", "a#x"]), st.integers(0, 3))))
def test_names_of_rows_never_meet(turns: list[tuple[str, int]]) -> None:
    assert len({row_id(*turn) for turn in turns}) == len(set(turns))


def test_rows_are_named_after_their_questions_and_later_passes_by_number() -> None:
    assert [row_id("a", 0), row_id("a", 1), row_id("a#2", 0)] == ["a", "a#2", "a#2#1"]


@pytest.mark.parametrize("cap", [None, 3])
def test_shared_contexts_and_what_gets_none_are_all_questions(cap: int | None) -> None:
    split, tally = ring(12, 40), Tally()
    plan = plan_of(cap=cap, weights={"a": 1.0, "b": 1.0}, questions_per_context=3)
    asked = {row for planned in plan_shared(split, plan, tally) for row in planned.questions}
    assert len(asked) < 52
    assert tally.dropped.total() == 52 - len(asked)


def test_data_set_without_a_weight_stays_whole_beside_weighted_ones() -> None:
    split = ring(30, 40, 7)
    order = sources_of(split, [one.row for one in turns(split, plan_of(weights={"a": 3, "b": 1, "c": None}))])
    assert Counter(order) == {"a": 30, "b": 10, "c": 7}


def test_cap_repeats_small_data_sets_with_new_draws_in_the_set_shares() -> None:
    split = ring(10, 40)
    planned = turns(split, plan_of(cap=80, weights={"a": 1.0, "b": 1.0}))
    order = sources_of(split, [one.row for one in planned])
    assert Counter(order) == {"a": 40, "b": 40}
    assert Counter(one.turn for one in planned if split.sources[one.row] == "a") == dict.fromkeys(range(4), 10)
    assert {one.turn for one in planned if split.sources[one.row] == "b"} == {0}


def test_order_of_one_data_set_does_not_depend_on_its_weight() -> None:
    split = ring(20)
    assert turns(split, plan_of(weights={"a": 2.0})) == turns(split, plan_of())


@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from([None, 0.5, 1.0, 3.0])), min_size=1, max_size=4),
    st.sampled_from([None, 0, 7, 90]),
)
def test_any_mix_keeps_its_promises(parts: list[tuple[int, float | None]], cap: int | None) -> None:
    split = ring(*(size for size, _ in parts))
    weights = {name: weight for name, (_, weight) in zip("abcd", parts, strict=False)}
    planned = turns(split, plan_of(cap=cap, weights=weights))
    assert len({(one.row, one.turn) for one in planned}) == len(planned)
    if cap is not None:
        assert len(planned) == cap
        return
    taken = Counter(split.sources[one.row] for one in planned)
    assert len({one.row for one in planned}) == len(planned)
    assert all(taken[name] == size for name, (size, weight) in zip("abcd", parts, strict=False) if weight is None)
    weighted = [name for name in weights if weights[name] is not None]
    assert not weighted or any(taken[name] == dict(zip("abcd", parts, strict=False))[name][0] for name in weighted)


# several questions, one context


def asked(rows: Sequence[ContextRow]) -> Counter[str]:
    return Counter(question.id for row in rows for question in row.questions)


@pytest.mark.parametrize("epochs", [1, 2])
def test_shared_contexts_ask_every_question_once_an_epoch(epochs: int) -> None:
    split = ring(60, per_passage=2)
    rows = composed(split, plan_of(questions_per_context=6, epochs=epochs))
    assert asked(rows) == dict.fromkeys(split.ids, epochs)
    assert len({row.id for row in rows}) == len(rows) < 40 * epochs


@pytest.mark.parametrize("own", [1, 2])
def test_every_question_of_a_shared_context_keeps_hard_negatives_of_its_own(own: int) -> None:
    # The first of two questions over a passage finds the passages after it, the second only far ones.
    questions = []
    for row in range(40):
        gold, step = row // 2, 1 if row % 2 == 0 else 7
        questions.append(Ranked((gold,), [gold, *((gold + step * n) % 20 for n in range(1, 6))], (f"answer {row}",)))
    split = split_of([f"word{number}" for number in range(20)], *questions)
    tally = Tally()
    rows = composed(split, plan_of(questions_per_context=6, gold_probability=1.0, own_negatives=own), tally)
    for context in rows:
        for question in context.questions:
            shown = [n for n, found in enumerate(question.retrieved) if found and n not in question.gold]
            assert len(shown) >= own
    assert asked(rows) == dict.fromkeys(split.ids, 1)
    assert tally.counts["questions kept out of a shared context for want of hard negatives of their own"] > 0


@pytest.mark.parametrize("pool", [Ranked((1,), [1, 0, 2], ("east",), bearing={0}), Ranked((1,), [1, 2], ("east",))])
def test_a_question_joins_no_context_that_shows_its_answer_outside_gold(pool: Ranked) -> None:
    # The second question's context shows the first one's gold p1 beside p0, which bears the first one's answer.
    split, tally = split_of(["in the east", "east", "c"], pool, Ranked((0,), [0, 1, 2], ("west",))), Tally()
    rows = composed(split, plan_of(questions_per_context=2, gold_probability=1.0), tally)
    assert [[question.id for question in row.questions] for row in rows] == [["q1"], ["q0"]]
    assert [passage.id for passage in rows[0].passages].count("p1") == 1
    assert tally.counts["questions the guard kept out of a shared context"] == 1


def test_hardness_is_reported_against_contexts_of_their_own() -> None:
    # Both questions share gold p0 and show p1 and p2, ranked 2 and 3 by the one and 8 and 9 by the other.
    one = Ranked((0,), [0, 1, 2, 3, 4], ("one",))
    two = Ranked((0,), [0, 3, 4, 5, 6, 7, 8, 1, 2], ("two",))
    split, tally = split_of([f"word{number}" for number in range(9)], one, two), Tally()
    plan = plan_of(questions_per_context=2, gold_probability=1.0, passages={"kind": "fixed", "count": 3})
    row = context_row(split, SharedTurn(0, 0, (0, 1, 2), (0, 1)), plan, tally)
    assert [question.id for question in row.questions] == ["q0", "q1"]
    assert tally.histogram("own hard negatives per question, shared") == {2: 2}
    assert tally.histogram("rank of own hard negatives, shared") == {2: 1, 3: 1, 8: 1, 9: 1}
    assert tally.histogram("rank of own hard negatives, separate") == {2: 2, 3: 2}  # 0.8 of 2 places, rounded


def test_unanswerable_questions_join_shared_contexts_in_their_share() -> None:
    split = ring(80, per_passage=2, blank=20)
    rows = composed(split, plan_of(questions_per_context=6, gold_probability=0.8))
    assert asked(rows) == dict.fromkeys(split.ids, 1)
    blank = [question for row in rows for question in row.questions if not question.answers]
    assert len(blank) == 20
    assert not any(question.answerable or question.gold for question in blank)
    answerable = sum(question.answerable for row in rows for question in row.questions)
    assert answerable == pytest.approx(0.8 * 60, abs=5)


def test_shared_contexts_of_unanswerable_questions_alone_hold_together() -> None:
    split = ring(12, blank=12)
    rows = composed(split, plan_of(questions_per_context=4))
    assert asked(rows) == dict.fromkeys(split.ids, 1)
    assert not any(question.answerable for row in rows for question in row.questions)


def test_shared_contexts_keep_the_shares_of_data_sets_by_question() -> None:
    split = ring(120, 60, per_passage=2)
    plan = plan_of(questions_per_context=4, weights={"a": 1.0, "b": 1.0})
    planned = list(plan_shared(split, plan, Tally()))
    counts = Counter(split.sources[row] for one in planned for row in one.questions)
    assert counts["b"] == 60
    assert counts["a"] == pytest.approx(60, abs=4)
    assert max(Counter(row for one in planned for row in one.questions).values()) == 1


def test_capped_shared_contexts_repeat_the_small_data_set() -> None:
    split = ring(120, 10, per_passage=2)
    plan = plan_of(cap=20, questions_per_context=4, weights={"a": 1.0, "b": 1.0})
    planned = list(plan_shared(split, plan, Tally()))
    counts = Counter(split.sources[row] for one in planned for row in one.questions)
    assert len(planned) == 20
    assert counts["b"] == pytest.approx(sum(counts.values()) / 2, abs=6)
    assert len({(one.row, one.turn) for one in planned}) == 20


def test_shared_curriculum_grows_over_the_contexts() -> None:
    plan = plan_of(questions_per_context=3, passages={"kind": "curriculum", "start": 2, "end": 8})
    counts = [len(one.passages) for one in plan_shared(ring(120, per_passage=2), plan, Tally())]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (2, 8)


@pytest.mark.parametrize("questions_per_context", [1, 5])
@pytest.mark.parametrize("cap", [None, 0, 3, 50])
def test_planning_and_composing_apart_gives_the_same_rows(questions_per_context: int, cap: int | None) -> None:
    split = ring(30, 12, per_passage=2)
    plan = plan_of(cap=cap, questions_per_context=questions_per_context, weights={"a": None, "b": 2.0})
    planned = list(planned_contexts(split, plan, Tally()))
    apart = [context_row(split, one, plan, Tally()) for one in reversed(planned)][::-1]
    assert apart == composed(split, plan)
    assert cap is None or len(planned) == cap


@pytest.mark.parametrize("questions_per_context", [1, 4])
def test_split_without_questions_has_no_contexts(questions_per_context: int) -> None:
    for cap in (None, 5):
        plan = plan_of(cap=cap, questions_per_context=questions_per_context)
        assert list(planned_contexts(split_of(["text"]), plan, Tally())) == []
