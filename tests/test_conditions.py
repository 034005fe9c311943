"""Contexts of every condition by hand: which passages are shown, in which order, and what is said where none can be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from data_builders.files import seeded
from data_builders.records import Pool, PoolPassage, Retrieved
from rag_ft.evaluation.conditions import Condition, axes_of, conditions
from rag_ft.evaluation.contexts import Composed, Surroundings, compose
from rag_ft.evaluation.counterfactual import NO_PLANT, Plants, altered, original_id, shape_of
from rag_ft.evaluation.grid import Omission, evident, grouped_by_hops, grouped_by_source, points, recall_rows
from rag_ft.evaluation.settings import EvaluationSettings, SweepSettings, SystemSettings
from rag_ft.report.findings import axes_of as report_axes


def pool(ranked: str, gold: str = "", bearing: str = "", missed: str = "", name: str = "q") -> Pool:
    """A pool of one-letter passages: `ranked` best first, `missed` gold behind them, `bearing` ones hold the answer."""
    passages = [
        PoolPassage(
            p, "", f"text {p}", p in gold, p in gold + bearing, "bm25", rank, 1 / rank, _guard(p, gold, bearing)
        )
        for rank, p in enumerate(ranked, 1)
    ]
    passages += [PoolPassage(p, "", f"text {p}", True, True, "gold", 0, 0.0, "gold") for p in missed]
    return Pool(name, "Who?", ("Ada Byron",), "test", "", tuple(passages))


def _guard(letter: str, gold: str, bearing: str) -> str:
    return "gold" if letter in gold else "answer" if letter in bearing else ""


def shown(found: Pool, condition: Condition, around: Surroundings | None = None) -> str:
    composed = compose(found, condition, around)
    assert isinstance(composed, Composed), composed
    return "".join(passage.id for passage in composed.passages)


ABCDEF = pool("abcdef", gold="c", bearing="b")


@pytest.mark.parametrize(
    ("condition", "letters"),
    [
        # gold leaves, and so does b, which holds the answer without being annotated
        (Condition("absent", 3), "ade"),
        # one passage of gold among three others that hold no answer: places 0, 1.5 rounded up, 3
        (Condition("kept", 4, position=0.0), "cade"),
        (Condition("kept", 4, position=0.5), "adce"),
        (Condition("kept", 4, position=1.0), "adec"),
        # as it was retrieved, only moved
        (Condition("retrieved", 4, position=1.0), "abdc"),
        # best at both ends: 1 3 4 2
        (Condition("kept", 4, order="reordered"), "acdb"),
        # RGB: ceil(5 * 0.4) = 2 without an answer; only b and c have one, so noise takes the place of the third
        (Condition("kept", 5, noise=0.4), "abcde"),
        (Condition("kept", 5, noise=0.8), "adcef"),
        (Condition("kept", 3, noise=0.0), "abc"),
        (Condition("kept", 4, noise=1.0), "adef"),
        # as ranked, with b, which holds the answer too; the best and the worst ranked without one, gold in its place
        (Condition("kept", 3), "abc"),
        (Condition("kept", 3, negatives="hard"), "adc"),
        (Condition("kept", 3, negatives="weak"), "fec"),
        (Condition("closed_book", 0), ""),
        (Condition("gold_only", 0), "c"),
    ],
)
def test_passages_of_a_condition(condition: Condition, letters: str) -> None:
    assert shown(ABCDEF, condition) == letters


def test_hard_is_as_ranked_where_only_gold_answers_anyway() -> None:
    sweeps = [
        SweepSettings(passages=(3,), negatives=("ranked", "hard"), **axes)
        for axes in ({}, {"gold": ("absent", "counterfactual")}, {"position": (0.0,)}, {"noise": (0.5,)})
    ]
    found = conditions(EvaluationSettings(passages=(1,), gold=("kept",), sweeps=tuple(sweeps), references=()))
    assert [f"{one.gold} {one.variant}".strip() for one in found] == [
        *("kept", "kept", "kept negatives=hard", "absent", "counterfactual", "kept position=0", "kept noise=0.5")
    ]


def test_an_alternative_is_evidence_where_one_passage_is_enough() -> None:
    def with_alternative(found: Pool) -> Pool:
        passages = (replace(one, guard="gold") if one.id == "b" else one for one in found.passages)
        return replace(found, passages=tuple(passages))

    one, two = with_alternative(pool("abcd", gold="c")), with_alternative(pool("abcd", gold="cd"))
    assert [evident(one, shown) for shown in ("a", "ab", "ac", "bc")] == [False, True, True, True]
    assert [evident(two, shown) for shown in ("ab", "bc", "cd")] == [False, False, True]
    assert not evident(with_alternative(pool("abcd")), "abcd")  # names no gold: nothing is known to answer
    assert [row["recall"] for row in recall_rows([one, two], (1, 2, 4))] == [0, 0.5, 1]


def test_noise_takes_gold_before_other_passages_with_the_answer() -> None:
    found = pool("abcdef", gold="f", bearing="ab")
    assert shown(found, Condition("kept", 4, noise=0.75)) == "cdef"  # one positive: the gold one, last by rank
    assert shown(found, Condition("kept", 4, noise=0.5)) == "acdf"


def test_shuffles_depend_on_question_seed_and_draw_only() -> None:
    contexts = [shown(ABCDEF, Condition("kept", 6, order="shuffled", draw=draw)) for draw in range(3)]
    assert all(sorted(context) == list("abcdef") for context in contexts)
    assert len(set(contexts)) == 3
    again = list("abcdef")
    seeded(0, "shuffle", "q", 1).shuffle(again)
    assert contexts[1] == "".join(again)
    assert shown(replace(ABCDEF, id="other"), Condition("kept", 6, order="shuffled")) != contexts[0]
    assert shown(ABCDEF, Condition("kept", 6, order="shuffled"), Surroundings(seed=1)) != contexts[0]


def test_random_passages_are_of_other_questions_and_hold_no_answer() -> None:
    told = PoolPassage("z", "", "It was Ada Byron.", False, False, "bm25", 1, 1.0)
    others = [pool("uvwxy", gold="uv", name="o1"), replace(pool("", name="o2"), passages=(told,)), ABCDEF]
    around = Surroundings(others=others)
    contexts = [shown(ABCDEF, Condition("kept", count, negatives="random"), around) for count in (1, 2, 4, 6)]
    assert contexts[0] == "c"
    assert all(set(context) - {"c"} <= set("uvwxy") for context in contexts)
    assert [len(set(context)) for context in contexts] == [1, 2, 4, 6]
    assert all(set(few) <= set(more) for few, more in pairwise(contexts))
    assert contexts[3].index("c") == 2  # gold stands where its rank puts it
    assert shown(ABCDEF, Condition("kept", 4, negatives="random"), Surroundings(seed=9, others=others)) != contexts[2]
    composed = compose(ABCDEF, Condition("absent", 5, negatives="random"), around)
    assert isinstance(composed, Composed)
    assert {"u", "v"} <= {one.id for one in composed.passages}  # gold of another question is nothing to this one
    assert not any(one.is_gold or one.is_alternative or one.has_answer for one in composed.passages)


def test_a_context_without_any_passage_is_none() -> None:
    """The prompt would be that without passages, which does not offer to decline."""
    for condition in (Condition("absent", 3), Condition("absent", 3, negatives="random")):
        assert (
            compose(pool("ab", gold="a", bearing="b"), condition) == "no passage without an answer is there to be shown"
        )


def test_a_retriever_alone_ranks_by_its_own_list_and_misses_gold_it_did_not_find() -> None:
    found = {"a": {"bm25": 1}, "b": {"dense": 1, "bm25": 3}, "c": {"bm25": 2}, "d": {"dense": 2}}
    passages = tuple(
        replace(one, found=tuple(Retrieved(name, rank, 10.0 - rank) for name, rank in found.get(one.id, {}).items()))
        for one in ABCDEF.passages
    )
    both = replace(ABCDEF, passages=passages)
    assert shown(both, Condition("retrieved", 3, retriever="bm25")) == "acb"
    assert shown(both, Condition("retrieved", 3, retriever="dense")) == "bd"
    assert shown(both, Condition("kept", 2, retriever="dense")) == "bc"
    composed = compose(both, Condition("retrieved", 1, retriever="dense"))
    assert isinstance(composed, Composed)
    assert (composed.passages[0].rank, composed.passages[0].score) == (1, 9.0)
    assert compose(both, Condition("kept", 2, retriever="splade")) == "retriever splade found nothing"


def counterfactual() -> tuple[Pool, Surroundings]:
    gold = PoolPassage("g", "Ada Byron", "In 1843 ADA  BYRON wrote it, not Adabyron.", True, True, "bm25", 1, 1.0)
    asked = replace(pool("xy", bearing="y"), passages=(gold, *pool("-xy", bearing="y").passages[1:]))
    other = replace(pool("a", name="o"), answers=("Mary Shelley",))
    number = replace(pool("a", name="n"), answers=("1843",))
    return asked, Surroundings(plants=Plants.of([asked, other, number]))


def test_a_counterfactual_passage_states_the_answer_of_another_question() -> None:
    asked, around = counterfactual()
    composed = compose(asked, Condition("counterfactual", 3), around)
    assert isinstance(composed, Composed)
    first, *others = composed.passages
    assert composed.planted == "Mary Shelley"
    assert first.text == "In 1843 Mary Shelley wrote it, not Adabyron."
    assert (first.title, original_id(first.id), first.id != "g") == ("Mary Shelley", "g", True)
    assert [passage.id for passage in others] == ["x"]  # y holds the true answer


def test_why_a_question_has_no_counterfactual_is_told() -> None:
    asked, around = counterfactual()
    number = replace(asked, answers=("1843", "in 1843"))
    assert "of like shape" in str(compose(number, Condition("counterfactual", 1), around))
    silent = replace(asked, passages=(replace(asked.passages[0], text="She wrote it."), *asked.passages[1:]))
    assert "in so many words" in str(compose(silent, Condition("counterfactual", 1), around))
    assert "names no gold passage" in str(compose(pool("ab"), Condition("counterfactual", 1), around))
    verdict = replace(silent, answers=("no",), passages=(replace(asked.passages[0], text="There is no sea."),))
    verdicts = Surroundings(plants=Plants.of([verdict, replace(pool("a", name="o"), answers=("yes",))]))
    assert "there is none, or yes or no" in str(compose(verdict, Condition("counterfactual", 1), verdicts))
    unanswerable = replace(asked, answers=())
    assert "there is none, or yes or no" in str(compose(unanswerable, Condition("counterfactual", 1), around))


def test_the_longest_mention_is_replaced_and_other_words_are_left() -> None:
    passage = PoolPassage("p", "", "New York City, New York; Yorkshire.", True, True, "bm25", 1, 1.0)
    assert altered(passage, ["York", "New York", "New York City"], "Rome").text == "Rome, Rome; Yorkshire."
    assert altered(passage, ["Paris"], "Rome") is passage
    assert shape_of("12 May 1990") == ("2 digits", "capital", "4 digits")


def test_a_title_that_states_the_answer_states_the_planted_one_too() -> None:
    asked, around = counterfactual()
    second = PoolPassage("h", "Ada Byron", "She was a daughter of Lord Byron.", True, True, "bm25", 2, 0.5)
    both = replace(asked, passages=(asked.passages[0], second))
    composed = compose(both, Condition("counterfactual", 2), around)
    assert isinstance(composed, Composed)
    assert [(one.title, original_id(one.id)) for one in composed.passages] == [
        ("Mary Shelley", "g"),
        ("Mary Shelley", "h"),
    ]
    assert composed.passages[1].text == second.text
    spelt = replace(both, passages=(asked.passages[0], replace(second, title="Ada-Byron")))
    assert "in other words" in str(compose(spelt, Condition("counterfactual", 2), around))


def test_a_question_with_a_counterfactual_at_one_count_has_it_at_every_larger_one() -> None:
    asked, around = counterfactual()
    spelt = PoolPassage("h", "", "It was Ada-Byron.", True, True, "bm25", 2, 0.5)
    both = replace(asked, passages=(asked.passages[0], spelt))
    found = [compose(both, Condition("counterfactual", count), around) for count in (1, 2)]
    assert [str(one) for one in found] == ["a gold passage states an accepted answer in other words, too"] * 2
    silent = replace(asked, passages=(replace(asked.passages[0], id="h", title="", text="She did."), asked.passages[0]))
    again = [compose(silent, Condition("counterfactual", count), around) for count in (1, 2)]
    assert [isinstance(one, Composed) for one in again] == [False, True]


def test_what_has_no_word_is_not_planted() -> None:
    asked, _ = counterfactual()
    dot = replace(asked, answers=(".",), passages=(replace(asked.passages[0], title="", text="It is . there"),))
    around = Surroundings(plants=Plants.of([dot, replace(pool("a", name="o"), answers=("?",))]))
    assert around.plants.plant(dot, 0) == NO_PLANT


def test_a_variant_is_read_back_whatever_its_retriever_is_called() -> None:
    condition = Condition("kept", 5, position=0.5, retriever="bge small, k=1.2")
    assert axes_of(condition.variant) == {"position": "0.5", "retriever": "bge small, k=1.2"}
    assert report_axes(condition.variant) == axes_of(condition.variant)
    assert axes_of(Condition("kept", 5).variant) == {}


def test_what_a_question_cannot_give_is_counted() -> None:
    settings = EvaluationSettings(passages=(1,), gold=("kept",), sweeps=(SweepSettings(position=(0.0,)),))
    omitted: list[Omission] = []
    made = list(points(pool("ab"), settings.systems[:1], settings, None, omitted))
    assert [(one.condition.gold, one.reason) for one in omitted] == [
        ("kept", "no gold passage is shown that could be moved"),
        ("gold_only", "the pool names no gold passage"),
    ]
    assert [point.gold for point in made] == ["kept", "closed_book"]


def test_a_strategy_that_arranges_passages_is_given_no_order() -> None:
    sweep = SweepSettings(passages=(4,), position=(0.0, 1.0))
    settings = EvaluationSettings(passages=(4,), gold=("kept",), references=(), sweeps=(sweep,))
    systems = [SystemSettings(name="a"), SystemSettings(name="b", strategy="reorder")]
    made = [(point.system, axes_of(point.variant).get("position")) for point in points(ABCDEF, systems, settings)]
    assert made == [("a", None), ("a", "0"), ("a", "1"), ("b", None)]


def test_questions_that_need_several_passages_are_a_group_where_the_data_name_none() -> None:
    pools = [pool("abc", gold="a"), pool("abc", gold="ab", name="r")]
    assert [one.group for one in grouped_by_hops(pools)] == ["one_gold", "several_gold"]
    assert [one.group for one in grouped_by_hops(pools[:1])] == [""]


def test_data_sets_are_groups_where_there_are_several() -> None:
    pools = [pool("q1"), replace(pool("q2"), source="squad"), replace(pool("q3"), group="hard")]
    assert [one.group for one in grouped_by_source(pools)] == [pools[0].source, "squad", "hard"]
    assert [one.group for one in grouped_by_source(pools[:1])] == [""]


def test_answers_are_planted_among_their_own_script() -> None:
    assert shape_of("1990년 서울") == ("4 digits년", "hangul")
    assert shape_of("東京") == ("unspaced",)
    passage = PoolPassage("p", "", "서울은 한국의 수도이다.", True, True, "bm25", 1, 1.0)
    gold = replace(pool("a", name="q"), answers=("서울",), passages=(passage,))
    plants = Plants.of([gold, *(replace(pool("a", name=name), answers=(name,)) for name in ("파리", "Rome", "rome"))])
    composed = compose(gold, Condition("counterfactual", 1), Surroundings(plants=plants))
    assert isinstance(composed, Composed)
    assert composed.passages[0].text == "파리는 한국의 수도이다."
