"""The numbers of the robustness summary, routing and confidence curves, worked out by hand."""

from dataclasses import replace
from math import log

import pytest

from data_builders.servers.settings import EndpointSettings
from rag_ft.evaluation.notices import about_falls
from rag_ft.evaluation.robustness import MEASURES
from rag_ft.evaluation.scores import score_cases
from rag_ft.evaluation.settings import SystemSettings
from tests.scored_cases import cases_of, find, prediction, sampling, split_options, sweep


def score(rows, **changes):
    drawn, told = split_options({"resamples": 1000, "run_name": "try", "partial": False, **changes})
    return score_cases(cases_of(rows), sampling(**drawn), **told)[0]


def summary(rows, system="base", gold="kept", group="all", **options):
    return find(score(rows, **options)["robustness"], system=system, gold=gold, group=group)


def reference(system, gold, hits):
    passages = 1 if gold == "gold_only" else 0
    return sweep(system, {passages: hits}, gold=gold)


def test_area_is_under_accuracy_over_the_logarithm_of_the_count():
    # Accuracies 1, 1/2, 0 at 1, 2, 8: between 1 and 2 a third of the width at 3/4, from 2 to 8 two thirds at 1/4.
    row = summary(sweep("base", {1: "1111", 2: "1100", 8: "0000"}))
    assert row["auc"]["mean"] == pytest.approx((log(2) * 0.75 + log(4) * 0.25) / log(8), abs=1e-6)
    assert row["auc"]["mean"] == pytest.approx(5 / 12, abs=1e-6)
    assert row["auc"]["n"] == 4


def test_a_system_that_is_always_right_has_the_whole_area_and_no_uncertainty():
    row = summary(sweep("base", {1: "111", 3: "111", 20: "111"}))
    assert row["auc"] == {"mean": 1, "low": 1, "high": 1, "n": 3}
    assert row["retention"] == {"mean": 1, "low": 1, "high": 1, "n": 3}


def test_drop_and_retention_are_those_of_their_own_tables():
    rows = sweep("base", {1: "1110", 2: "1111", 10: "1000"})
    scores = score(rows)
    row = find(scores["robustness"], group="all")
    assert row["drop_from_peak"] == find(scores["drops"], group="all")["accuracy"]
    assert row["drop_from_peak"]["mean"] == 0.75
    assert row["retention"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
    assert row["retention"]["low"] == 0
    assert row["retention"]["high"] <= 1  # who is right at 10 is right at 1


def test_the_fall_is_over_questions_that_can_be_answered_at_every_count():
    two_hop = [
        replace(row, answerable=row.passages > 1) for row in sweep("base", {1: "00", 4: "11"}, "two", prefix="t")
    ]
    row = summary(sweep("base", {1: "1111", 4: "1100"}) + two_hop)
    assert (row["auc"]["mean"], row["auc"]["n"]) == (0.75, 4)


def test_a_single_count_has_no_curve():
    row = summary(sweep("base", {5: "10"}))
    assert [row[name] for name in MEASURES] == [None] * len(MEASURES)


def test_distraction_is_wrong_among_many_of_those_right_with_gold_alone():
    # Right with gold only: q0, q1, q2; of them wrong at 9 passages: q1, q2. q3 was never right.
    rows = reference("base", "gold_only", "1110") + sweep("base", {1: "1111", 9: "1001"})
    row = summary(rows)
    assert row["distraction_rate"]["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert row["distraction_rate"]["n"] == 3
    retrieved = [replace(one, gold="retrieved") if one.gold == "kept" else one for one in rows]
    assert summary(retrieved, gold="retrieved")["distraction_rate"] is None


def test_nobody_right_with_gold_alone_leaves_no_distraction_rate():
    assert summary(reference("base", "gold_only", "00") + sweep("base", {1: "11", 9: "11"}))["distraction_rate"] is None


def test_harm_is_what_passages_cost_and_how_often_they_cost_an_answer():
    # Closed book right: q0, q1; at 9 passages right: q0, q3. q1 is lost, q3 won: one of four each.
    rows = reference("base", "closed_book", "1100") + sweep("base", {1: "0000", 9: "1001"})
    assert (summary(rows)["net_harm"]["mean"], summary(rows)["harm_rate"]["mean"]) == (0, 0.25)
    assert summary(rows)["net_harm"]["n"] == 4
    helped = reference("base", "closed_book", "1000") + sweep("base", {9: "0111"})
    assert (summary(helped)["net_harm"]["mean"], summary(helped)["harm_rate"]["mean"]) == (-0.5, 0.25)


def test_references_of_the_same_weights_serve_every_strategy():
    rows = reference("base", "closed_book", "1100") + sweep("base", {9: "1111"}) + sweep("reordered", {9: "0000"})
    assert summary(rows, "reordered")["net_harm"] is None
    systems = [SystemSettings(name="base"), SystemSettings(name="reordered", strategy="reorder")]
    assert summary(rows, "reordered", systems=systems)["net_harm"]["mean"] == 0.5
    other = [SystemSettings(name="base"), SystemSettings(name="reordered", weights="tuned")]
    assert summary(rows, "reordered", systems=other)["net_harm"] is None


def test_a_fall_begins_where_questions_can_be_answered():
    """Two hops: nothing can be answered from one passage, so the fall is that from two on."""
    rows = [replace(row, answerable=row.passages > 1) for row in sweep("base", {1: "0001", 2: "1110", 4: "1000"})]
    found = score(rows)
    row = find(found["robustness"], group="all", system="base")
    assert row["drop_from_peak"]["mean"] == 0.5
    assert row["retention"]["mean"] == pytest.approx(1 / 3, abs=1e-6)
    drop = find(found["drops"], group="all", system="base")
    assert (drop["smallest_passages"], drop["accuracy"]["mean"]) == (2, 0.5)
    assert about_falls(found) == [
        "evaluate: drop, retention and area are over 4 of 4 questions, from 2 passages on: those that have their "
        "evidence at each of these counts"
    ]
    assert about_falls(score(sweep("base", {1: "11", 2: "10"}))) == []


def test_a_few_odd_questions_do_not_say_how_accuracy_falls():
    """One question of one hop among six: without it nothing can be answered from one passage."""
    rows = sweep("base", {1: "100000", 2: "111111", 4: "100000"})
    odd = [replace(row, answerable=row.passages > 1 or row.question_id == "q0") for row in rows]
    found = score(odd)
    drop = find(found["drops"], group="all", system="base")
    assert (drop["smallest_passages"], drop["n"]) == (2, 6)
    assert find(found["robustness"], group="all")["drop_from_peak"]["n"] == 6
    half = [replace(row, answerable=row.passages > 1 or row.question_id in ("q0", "q1", "q2")) for row in rows]
    drop = find(score(half)["drops"], group="all", system="base")
    assert (drop["smallest_passages"], drop["n"]) == (1, 3)
    assert "over 3 of 6 questions, from 1 passages on" in about_falls(score(half))[0]


def test_a_fall_that_cannot_be_seen_is_told():
    rows = [replace(row, answerable=row.passages > 1) for row in sweep("base", {1: "00", 2: "10"})]
    found = score(rows)
    assert (found["drops"], find(found["robustness"], group="all")["auc"]) == ([], None)
    [line] = about_falls(found)
    assert "no drop, retention and area with gold kept: most questions have their evidence at 2 passages only" in line


def test_a_middle_lies_between_the_ends():
    places = {"0.25": "1111", "0.5": "0000", "0.75": "1111"}
    assert summary(positions(places))["position_middle_drop"] is None
    assert summary(positions({"0": "1111", **places, "1": "1111"}))["position_middle_drop"]["mean"] > 0


def positions(right, count=5, system="base"):
    return [row for place, hits in right.items() for row in sweep(system, {count: hits}, variant=f"position={place}")]


def test_positions_are_compared_at_the_largest_count():
    rows = sweep("base", {5: "1111"}) + positions({"0": "1111", "0.5": "1000", "1": "1110"})
    rows += positions({"0": "1111", "0.5": "0000", "1": "1111"}, count=3)
    row = summary(rows)
    assert row["position_spread"]["mean"] == 0.75  # 4/4 first, 1/4 in the middle
    assert row["position_middle_drop"]["mean"] == pytest.approx((1 + 0.75) / 2 - 0.25)


def test_several_places_between_the_ends_are_averaged():
    row = summary(positions({"0": "11", "0.25": "10", "0.75": "00", "1": "10"}))
    assert row["position_middle_drop"]["mean"] == pytest.approx(0.75 - 0.25)


def test_two_positions_have_a_spread_and_no_middle():
    row = summary(positions({"0": "1111", "1": "1010"}))
    assert (row["position_spread"]["mean"], row["position_middle_drop"]) == (0.5, None)
    assert row["position_spread"]["low"] >= 0


def test_positions_crossed_with_another_axis_are_another_matter():
    crossed = [replace(row, variant=f"{row.variant} retriever=bm25") for row in positions({"0": "11", "1": "00"})]
    assert summary(sweep("base", {5: "11"}) + crossed)["position_spread"] is None


def test_consistency_is_the_mean_agreement_of_pairs_of_shuffles():
    said = {  # question: answers under three shuffles
        "q0": ["Paris", "the paris.", "PARIS"],  # all alike
        "q1": ["Paris", "Rome", "Rome"],  # one pair of three
        "q2": [None, None, "Rome"],  # two abstentions agree
        "q3": ["Paris", "Rome", "Oslo"],
    }
    rows = [
        prediction(
            question,
            passages=5,
            answer=answer,
            abstained=answer is None,
            variant=f"order=shuffled draw={draw}".removesuffix(" draw=0"),
        )
        for question, answers in said.items()
        for draw, answer in enumerate(answers)
    ]
    row = summary(rows)
    assert row["consistency"]["mean"] == pytest.approx((1 + 1 / 3 + 1 / 3 + 0) / 4, abs=1e-6)
    assert row["consistency"]["n"] == 4


def test_failures_agree_with_nothing():
    rows = [
        prediction("q0", passages=5, answer=None, failure="time-out", variant=f"order=shuffled{draw}")
        for draw in ("", " draw=1")
    ]
    assert summary(rows)["consistency"]["mean"] == 0


def noisy(**changes):
    """Answers among more and more noise, to the passages of that name unless `changes` says others."""
    return [
        row
        for noise, hits in {"0.8": "1000", "0": "1110", "0.4": "1111"}.items()
        for row in sweep("base", {5: hits}, variant=f"noise={noise}", **{"shown": (f"n{noise}",), **changes})
    ]


def test_noise_drop_is_from_the_least_to_the_most_noise():
    assert summary(noisy())["noise_drop"]["mean"] == 0.5


def test_noise_that_changed_no_context_has_no_drop():
    assert summary(noisy(shown=("gold", "noise")))["noise_drop"] is None


def test_every_system_and_group_has_a_row_on_the_same_questions():
    rows = sweep("base", {1: "1111", 5: "1100"}) + sweep("tuned", {1: "111", 5: "111"})
    rows += sweep("base", {1: "11", 5: "11"}, "two", prefix="t") + sweep("tuned", {1: "11", 5: "00"}, "two", prefix="t")
    table = score(rows)["robustness"]
    assert [(row["group"], row["system"]) for row in table] == [
        (group, system) for group in ("all", "one_hop", "two") for system in ("base", "tuned")
    ]
    assert find(table, group="one_hop", system="base")["auc"]["n"] == 3  # tuned never answered q3
    assert find(table, group="all", system="tuned")["drop_from_peak"]["mean"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_intervals_hold_their_estimates(interval):
    hits = "1101001110" * 4
    rows = reference("base", "gold_only", "1" * 40) + reference("base", "closed_book", "1000000000" * 4)
    rows += sweep("base", {1: "1" * 39 + "0", 5: hits, 20: "1000001010" * 4})
    row = summary(rows, interval=interval)
    for name in ("auc", "drop_from_peak", "retention", "distraction_rate"):
        assert row[name]["low"] < row[name]["mean"] < row[name]["high"], name
    assert row["harm_rate"]["mean"] == 0


# Confidence curves


def confident(rows):
    return [
        prediction(f"q{i}", answer=answer, abstained=answer is None, confidence=confidence, failure=failure)
        for i, (answer, confidence, failure) in enumerate(rows)
    ]


def test_the_curve_goes_from_the_surest_answer_on():
    rows = confident([("Rome", -3.0, None), ("Paris", -0.1, None), ("Rome", -0.5, None), ("Paris", -0.4, None)])
    [curve] = score(rows)["curves"]
    assert curve["points"] == [[0.25, 1], [0.5, 1], [0.75, pytest.approx(2 / 3, abs=1e-4)], [1, 0.5]]
    assert curve["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4, abs=1e-6)
    assert (curve["system"], curve["gold"], curve["passages"], curve["group"]) == ("base", "kept", 1, "all")


def test_abstentions_and_failures_are_never_covered():
    rows = confident([("Paris", -0.1, None), (None, -0.01, None), ("Paris", -0.2, "time-out"), ("Rome", -2.0, None)])
    [curve] = score(rows)["curves"]
    assert curve["points"] == [[0.25, 1], [0.5, 0.5]]


def test_equally_sure_answers_count_alike_in_whatever_order():
    rows = confident([("Rome", -1.0, None), ("Paris", -1.0, None), ("Paris", -1.0, None), ("Rome", -1.0, None)])
    for order in (rows, rows[::-1]):
        [curve] = score(order)["curves"]
        assert curve["points"] == [[0.25, 0.5], [0.5, 0.5], [0.75, 0.5], [1, 0.5]]


def test_an_engine_that_does_not_say_how_sure_it_is_has_no_curve():
    assert score(sweep("base", {1: "10"}))["curves"] == []


def test_a_long_curve_is_thinned_and_keeps_its_end():
    rows = [prediction(f"q{i:03d}", confidence=-float(i)) for i in range(997)]
    [curve] = score(rows)["curves"]
    assert len(curve["points"]) <= 41
    assert curve["points"][-1] == [1, 1]


# Declining when unsure


def unsure(kept, absent, **changes):
    rows = [prediction(f"q{i}", passages=10, confidence=sure, **changes) for i, sure in enumerate(kept)]
    rows += [
        prediction(f"q{i}", passages=10, gold="absent", answerable=False, answer="Rome", confidence=sure)
        for i, sure in enumerate(absent)
    ]
    return score(rows)["thresholds"]


def test_the_threshold_turns_away_a_tenth_of_what_can_be_answered():
    kept = [-0.1 * i for i in range(1, 21)]  # two of the twenty may go: those at -2.0 and -1.9
    [row] = unsure(kept, [-0.5, -1.8, -1.85, -3.0] + [-9.0] * 16)
    assert (row["system"], row["passages"], row["confidence"]) == ("base", 10, -1.8)
    assert row["over_refusal"] == 0.1
    assert row["hallucination_rate"] == 2 / 20


def test_a_system_that_declines_too_much_by_itself_has_no_threshold():
    rows = [prediction(f"q{i}", passages=10, confidence=-1.0, abstained=i < 3, answer=None) for i in range(10)]
    rows += [prediction(f"q{i}", passages=10, gold="absent", answerable=False, confidence=-1.0) for i in range(10)]
    assert score(rows)["thresholds"] == []
    rows = [replace(row, abstained=row.question_id == "q0") for row in rows]
    [row] = score(rows)["thresholds"]
    assert (row["over_refusal"], row["hallucination_rate"]) == (0.1, 0.9)


def test_without_confidence_or_questions_without_evidence_there_is_no_threshold():
    assert unsure([None] * 10, [None] * 10) == []
    assert unsure([-1.0] * 10, []) == []


# Routing


def routed(question, route, answer, tokens):
    calls = 2 if route == "all" else 1
    return prediction(question, "routed", 10, answer, route=route, calls=calls, prompt_tokens=tokens)


ROUTED = [
    routed("q0", "few", "Paris", 50),  # right at once
    routed("q1", "few", "Rome", 50),  # wrong, and all passages would have been right: routing on was the better choice
    routed("q2", "few", "Rome", 50),  # wrong, and no better with all
    routed("q3", "all", "Paris", 150),
    routed("q4", "all", "Rome", 150),
]
ALL = sweep("base", {10: "11010"}, prompt_tokens=100)
BOTH = [SystemSettings(name="base"), SystemSettings(name="routed", strategy="self_route")]


def test_routing_is_held_against_showing_everything():
    scores = score(ALL + [replace(row, group="one_hop") for row in ROUTED], systems=BOTH)
    [row] = scores["routing"]
    assert row == {
        "system": "routed",
        "gold": "kept",
        "passages": 10,
        "variant": "",
        "n": 5,
        "answerable_share": 0.6,
        "token_share": 0.9,  # 3 x 50 + 2 x 150 of 5 x 100
        "accuracy": 0.4,
        "few_accuracy": 0.2,  # what was routed on had been declined
        "all_accuracy": 0.6,
        "right_to_answer": pytest.approx(2 / 3, abs=1e-6),
        "right_to_route": 0.5,
        "confusion": {"few_right": 1, "few_wrong": 2, "all_right": 1, "all_wrong": 1},
    }
    assert find(scores["cells"], system="routed", group="all")["calls"] == 1.4


def test_a_failed_first_try_is_no_decision():
    failed = replace(routed("q4", "", None, 50), failure="it broke", calls=1)
    [row] = score([*ROUTED[:4], failed])["routing"]
    assert (row["n"], row["answerable_share"]) == (4, 0.75)


def test_without_a_system_shown_everything_the_comparison_is_null():
    for systems in ([], BOTH[1:], [BOTH[0].model_copy(update={"weights": "tuned"}), BOTH[1]]):
        [row] = score(ALL + ROUTED, systems=systems)["routing"]
        assert [row[key] for key in ("token_share", "all_accuracy", "right_to_answer")] == [None, None, None]
        assert (row["accuracy"], row["right_to_route"]) == (0.4, 0.5)


def test_a_system_that_never_routes_has_no_row():
    assert score(ALL, systems=BOTH)["routing"] == []


# Cost


def test_cost_is_of_prompt_and_written_tokens_at_the_prices_of_the_endpoint():
    asked = EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m", input_price=0.15, output_price=0.6)
    rows = sweep("base", {10: "10"}) + sweep("server", {10: "10"})
    scores = score(rows, systems=[SystemSettings(name="base"), SystemSettings(name="server", endpoint=asked)])
    # 1,000 prompt tokens and 4 written ones.
    assert find(scores["cells"], system="server", group="all")["cost"] == pytest.approx((150 + 2.4) / 1e6)
    assert find(scores["cells"], system="base", group="all")["cost"] is None
