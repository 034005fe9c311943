"""Predictions on disk and the scores made of them, against values worked out by hand."""

import json
import random
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from data_builders.errors import RagFtError
from rag_ft.evaluation.answers import write_answers
from rag_ft.evaluation.metrics import METRICS
from rag_ft.evaluation.predictions import PredictionStore
from rag_ft.evaluation.scores import score_cases
from rag_ft.report.terminal import terminal_table
from tests.scored_cases import cases_of, find, prediction, sampling, split_options, sweep


def score(rows, **changes):
    drawn, told = split_options({"resamples": 500, "run_name": "try", "partial": False, **changes})
    return score_cases(cases_of(rows), sampling(**drawn), **told)[0]


# The store


def test_predictions_come_back_as_they_were_written(tmp_path):
    rows = [
        prediction("q1", answer="Séoul 서울", output="one\u2028two\nthree\x85\r"),
        prediction("q2", answer=None, abstained=True, shown=(), passages=0, gold="closed_book"),
        prediction("q3", answer=None, failure="out of memory"),
    ]
    store = PredictionStore(tmp_path / "evaluation" / "predictions.jsonl", "abc")
    store.append(rows[:2])
    store.append(rows[2:])
    again = PredictionStore(store.path, "abc")
    assert store.read() == again.read() == rows
    assert store.done() == again.done() == {row.key for row in rows}


def test_a_store_cut_at_any_byte_keeps_every_complete_row_and_goes_on(tmp_path):
    rows = [prediction(f"q{i}", answer="é") for i in range(3)]
    whole = PredictionStore(tmp_path / "whole.jsonl", "abc")
    whole.append(rows)
    data = whole.path.read_bytes()
    for size in range(len(data)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:size])
        store = PredictionStore(path, "abc")
        kept = max(data[:size].count(b"\n") - 1, 0)
        assert store.read() == rows[:kept]
        store.append(rows[kept:])
        assert path.read_bytes() == data


def test_reading_leaves_a_row_that_is_being_written_alone(tmp_path):
    store = PredictionStore(tmp_path / "p.jsonl", "abc")
    store.append([prediction()])
    with store.path.open("ab") as stream:
        stream.write(b'{"question_id": "q2"')
    before = store.path.read_bytes()
    assert store.read() == [prediction()]
    assert store.path.read_bytes() == before


def test_another_fingerprint_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    PredictionStore(path, "old").append([prediction()])
    with pytest.raises(RagFtError, match="--restart"):
        PredictionStore(path, "new")
    assert len(PredictionStore(path, "old").read()) == 1


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    store = PredictionStore(tmp_path / "p.jsonl", "abc")
    store.append([prediction("q1"), prediction("q2")])
    header, _, second = store.path.read_text().splitlines()
    store.path.write_text(f"{header}\n???\n{second}\n")
    with pytest.raises(RagFtError, match=r"line 2 .*--restart"):
        PredictionStore(store.path, "abc")


def test_a_file_without_fingerprint_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"question_id": "q1"}\n')
    with pytest.raises(RagFtError, match="does not begin with a fingerprint"):
        PredictionStore(path, "abc")


# Scores


def test_cells_hold_the_metrics_worked_out_by_hand():
    rows = [
        prediction("q1", answer="Paris"),  # all right
        prediction("q2", answer="Paris, France"),  # covered, F1 2/3
        prediction("q3", answer="Parisian"),  # covered as a raw substring only
        prediction("q4", answer=None, abstained=True, output="Paris is not named.", answerable=False),
        prediction("q5", answer="Paris", failure="out of memory"),
    ]
    cell = find(score(rows)["cells"], group="all")
    told = [cell[key] for key in ("system", "gold", "passages", "n", "answerable", "failures")]
    assert told == ["base", "kept", 1, 5, 4, 1]
    means = {name: cell[name]["mean"] for name in ("accuracy", "exact_match", "f1", "cover_raw", "cover_output")}
    # Whole outputs: q1, q2 and q4 name Paris as a word, q3 does not, q5 failed.
    assert means == pytest.approx(
        {"accuracy": 2 / 5, "exact_match": 1 / 5, "f1": (1 + 2 / 3) / 5, "cover_raw": 3 / 5, "cover_output": 3 / 5},
        abs=1e-6,
    )
    assert (cell["prompt_tokens"], cell["output_tokens"], cell["seconds"]) == (100, 4, 0.5)
    assert cell["abstention"]["answered_answerable"] == 3  # the failed generation is in no cell of the table
    assert cell["abstention"]["abstained_unanswerable"] == 1
    assert (cell["abstention"]["hallucination_rate"], cell["abstention"]["over_refusal"]) == (0, 0)


def test_declining_scores_nothing_even_where_the_answer_normalises_to_nothing():
    cell = find(score([prediction(answer=None, abstained=True, answers=("A",))])["cells"], group="all")
    assert [cell[name]["mean"] for name in ("accuracy", "exact_match", "f1", "cover_raw")] == [0, 0, 0, 0]


def test_declining_is_right_for_a_question_annotated_as_unanswerable():
    unanswerable = {"answers": (), "answerable": False}
    rows = [
        prediction("q1", answer=None, abstained=True, **unanswerable),
        prediction("q2", answer="Rome", **unanswerable),
        prediction("q3"),
    ]
    cell = find(score(rows)["cells"], group="all")
    assert [cell[name]["mean"] for name in ("accuracy", "exact_match")] == pytest.approx([2 / 3, 2 / 3])
    assert cell["abstention"]["hallucination_rate"] == cell["hallucinated"]["mean"] == 0.5
    assert (cell["hallucinated"]["n"], cell["over_refused"]["n"]) == (2, 1)  # each over the questions it applies to


def test_an_answer_that_cannot_be_parsed_is_wrong_but_not_an_abstention():
    cell = find(score([prediction(answer=None, answerable=False)])["cells"], group="all")
    assert cell["accuracy"]["mean"] == 0
    assert cell["abstention"]["hallucination_rate"] == 1


def test_differences_pair_each_system_with_the_baseline_at_each_count():
    rows = sweep("base", {1: "1100", 5: "1000"}) + sweep("tuned", {1: "1110", 5: "1111"})
    scores = score(rows)
    assert find(scores["differences"], group="all", passages=1)["accuracy"]["mean"] == 0.25
    five = find(scores["differences"], group="all", passages=5)
    assert (five["system"], five["baseline"], five["accuracy"]["mean"]) == ("tuned", "base", 0.75)
    # tuned is never worse on any question, so no resample can put it below; unpaired intervals would reach below 0.
    assert five["accuracy"]["low"] >= 0
    assert not any(row["system"] == "base" for row in scores["differences"])


def test_another_baseline_turns_the_differences_round():
    rows = sweep("base", {1: "1100"}) + sweep("tuned", {1: "1110"})
    [difference] = [d for d in score(rows, baseline="tuned")["differences"] if d["group"] == "all"]
    assert (difference["system"], difference["accuracy"]["mean"]) == ("base", -0.25)


def test_drops_and_retention_follow_the_curve():
    rows = sweep("base", {1: "1110", 2: "1111", 10: "1000"}) + sweep("tuned", {1: "1100", 2: "1110", 10: "1110"})
    scores = score(rows)
    base, tuned = (find(scores["drops"], system=system, group="all") for system in ("base", "tuned"))
    assert (base["best_passages"], base["largest_passages"], base["accuracy"]["mean"]) == (2, 10, 0.75)
    assert (tuned["accuracy"]["mean"], tuned["accuracy"]["low"]) == (0, 0)
    assert (base["minus_baseline"], tuned["minus_baseline"]["mean"]) == (None, -0.75)
    ratios = {row["system"]: row["ratio"] for row in scores["retention"] if row["group"] == "all"}
    assert ratios == {"base": pytest.approx(1 / 3, abs=1e-6), "tuned": 1.5}


def test_falls_with_gold_kept_leave_out_what_cannot_be_answered_at_every_count():
    two_hop = [
        replace(row, group="two_hop", answerable=row.passages > 1)
        for row in sweep("base", {1: "00", 5: "11"}, prefix="t")
    ]
    scores = score(sweep("base", {1: "1111", 5: "1100"}) + two_hop)
    everyone = find(scores["retention"], group="all")
    assert (everyone["n"], everyone["ratio"]) == (4, 0.5)  # with all six it would be 4 right at 5 over 4 right at 1
    assert find(scores["cells"], group="all", passages=5)["n"] == 6


def test_retention_of_a_system_that_starts_at_nothing_is_null():
    assert find(score(sweep("base", {1: "00", 5: "11"}))["retention"], group="all")["ratio"] is None


def test_groups_are_scored_apart_and_together():
    rows = sweep("base", {1: "11"}, "one_hop") + sweep("base", {1: "000"}, "two_hops", prefix="t")
    scores = score(rows)
    assert scores["questions"] == {"all": 5, "one_hop": 2, "two_hops": 3}
    accuracy = {cell["group"]: (cell["n"], cell["accuracy"]["mean"]) for cell in scores["cells"]}
    assert accuracy == {"all": (5, 0.4), "one_hop": (2, 1), "two_hops": (3, 0)}


def test_a_killed_run_is_scored_on_the_questions_every_cell_has():
    rows = sweep("base", {1: "0011", 5: "0011"}) + sweep("tuned", {1: "11", 5: "1"})
    scores = score(rows, partial=True)
    assert {cell["n"] for cell in scores["cells"]} == {1}
    assert find(scores["differences"], group="all", passages=5)["accuracy"]["mean"] == 1
    assert scores["partial"] is True


def test_a_run_without_a_common_question_is_an_error_that_says_how_to_go_on():
    rows = [prediction("q1", "base"), prediction("q2", "tuned")]
    with pytest.raises(RagFtError, match=r"evaluation\.questions"):
        score(rows)


def test_references_are_one_cell_even_where_questions_have_different_numbers_of_gold_passages():
    rows = [
        prediction("q1", gold="gold_only", passages=1),
        prediction("q2", gold="gold_only", passages=2, answer="Rome"),
        prediction("q1", gold="closed_book", passages=0, answerable=False),
    ]
    scores = score(rows)
    cell = find(scores["cells"], group="all", gold="gold_only")
    assert (cell["n"], cell["passages"], cell["accuracy"]["mean"]) == (2, 2, 0.5)
    assert find(scores["cells"], group="all", gold="closed_book")["n"] == 1
    assert scores["drops"] == scores["retention"] == []


def test_a_prediction_that_stands_twice_is_refused():
    with pytest.raises(RagFtError, match="answered twice"):
        score([prediction(), prediction(answer="Rome")])


def test_a_question_in_two_groups_is_refused():
    with pytest.raises(RagFtError, match="one group"):
        score([prediction(passages=1), prediction(passages=5, group="two_hops")])


def test_nothing_to_score_is_refused():
    with pytest.raises(RagFtError, match="no predictions"):
        score([])


def test_scores_are_plain_json_and_do_not_depend_on_the_order_of_questions():
    rows = sweep("base", {1: "110100", 5: "100100"}) + sweep("tuned", {1: "111100", 5: "101100"})
    scores = score(rows, recall=[{"group": "all", "passages": 1, "recall": 0.5}])
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    shuffled = rows[:1] + random.Random(0).sample(rows[1:], len(rows) - 1)
    by_system = sorted(shuffled, key=lambda row: row.system)
    assert score(by_system, recall=scores["recall"]) == scores


def test_intervals_widen_with_confidence():
    rows = sweep("base", {1: "1101001110"})
    narrow, wide = (find(score(rows, confidence=c)["cells"], group="all")["accuracy"] for c in (0.6, 0.99))
    assert wide["low"] < narrow["low"] < narrow["mean"] < narrow["high"] < wide["high"]


# The grid


def test_every_variant_is_a_mode_of_its_own():
    rows = sweep("base", {5: "1100"}) + sweep("tuned", {5: "1110"})
    rows += sweep("base", {5: "10"}, variant="position=0.5") + sweep("tuned", {5: "11"}, variant="position=0.5")
    scores = score(rows)
    cells = {(row["system"], row["variant"]): (row["n"], row["accuracy"]["mean"]) for row in scores["cells"]}
    assert cells[("tuned", "")] == (4, 0.75)
    assert cells[("tuned", "position=0.5")] == (2, 1)
    assert {row["variant"]: row["accuracy"]["mean"] for row in scores["differences"]} == {"": 0.25, "position=0.5": 0.5}


def test_modes_stand_in_order_of_first_appearance():
    rows = sweep("base", {1: "10", 5: "10"}) + sweep("base", {0: "10"}, gold="closed_book")
    rows += sweep("tuned", {5: "10", 1: "10"}) + sweep("tuned", {0: "10"}, gold="closed_book")
    found = [(c["gold"], c["system"], c["passages"]) for c in score(rows)["cells"] if c["group"] == "all"]
    swept = [("kept", system, count) for system in ("base", "tuned") for count in (1, 5)]
    assert found == [*swept, ("closed_book", "base", 0), ("closed_book", "tuned", 0)]


def test_a_variant_with_several_counts_has_a_fall_of_its_own():
    rows = sweep("base", {1: "11", 5: "11"}) + sweep("base", {1: "11", 5: "10"}, variant="retriever=dense")
    drops = {row["variant"]: row["accuracy"]["mean"] for row in score(rows)["drops"] if row["group"] == "all"}
    assert drops == {"": 0, "retriever=dense": 0.5}


def test_contexts_without_gold_are_cells_but_have_no_fall():
    rows = sweep("base", {1: "10", 5: "00"}, gold="absent", answerable=False)
    scores = score(rows)
    assert {row["passages"] for row in scores["cells"]} == {1, 5}
    assert scores["drops"] == scores["retention"] == scores["robustness"] == []


def test_differences_count_wins_losses_and_ties_and_test_them():
    rows = sweep("base", {5: "0000001100"}) + sweep("tuned", {5: "1111110100"})
    row = find(score(rows)["differences"], group="all")
    assert (row["wins"], row["losses"], row["ties"]) == (6, 1, 3)
    assert row["p"] == row["p_holm"] == pytest.approx(2 * (1 + 7) / 2**7)


def test_p_values_are_corrected_over_all_differences_of_all_questions_alone():
    rows = sweep("base", {1: "0" * 8, 5: "0" * 8, 9: "0" * 8})
    rows += sweep("tuned", {1: "1" * 8, 5: "1" * 6 + "00", 9: "1" + "0" * 7})
    found = {(row["group"], row["passages"]): row for row in score(rows)["differences"]}
    raw, corrected = ([found["all", count][key] for count in (1, 5, 9)] for key in ("p", "p_holm"))
    assert raw == pytest.approx([2 / 2**8, 2 / 2**6, 1], rel=1e-5)
    assert corrected == pytest.approx([3 * 2 / 2**8, 2 * 2 / 2**6, 1], rel=1e-5)
    assert found["one_hop", 1]["p_holm"] is None


def test_a_metric_that_applies_to_no_answer_is_null_and_else_says_to_how_many():
    rows = [prediction("q1"), prediction("q2", answer="Rome"), prediction("q3", answer=None, abstained=True)]
    cell = find(score(rows)["cells"], group="all")
    assert cell["misled"] is None  # nothing was planted
    assert (cell["false_answer"]["mean"], cell["false_answer"]["n"]) == (0.5, 2)
    assert (cell["accuracy"]["n"], cell["calls"], cell["cost"]) == (3, 1, None)


def test_the_detectable_difference_is_that_of_all_questions():
    scores = score(sweep("base", {1: "10" * 50}))
    assert (scores["detectable"]["n"], scores["detectable"]["power"]) == (100, 0.8)
    assert scores["detectable"]["difference"] == pytest.approx(0.139, abs=0.001)


def test_bca_reads_other_ends_off_the_same_draws():
    rows = sweep("base", {1: "1" * 57 + "000"})
    percentile, bca = (find(score(rows, interval=kind)["cells"], group="all") for kind in ("percentile", "bca"))
    assert percentile["accuracy"]["mean"] == bca["accuracy"]["mean"] == 0.95
    assert bca["accuracy"]["low"] < percentile["accuracy"]["low"]  # skewed to the left


def test_related_questions_widen_the_intervals():
    rows = sweep("base", {1: "1111100000" * 6})
    documents = {f"q{i}": f"d{i // 5}" for i in range(60)}
    alone, related = (find(score(rows, clusters=c)["cells"], group="all")["accuracy"] for c in (None, documents))
    assert related["high"] - related["low"] > 1.5 * (alone["high"] - alone["low"])


def test_a_variant_without_a_common_question_is_named():
    rows = [prediction("q1", "base", variant="noise=0.5"), prediction("q2", "tuned", variant="noise=0.5")]
    with pytest.raises(RagFtError, match=r"'kept' with noise=0\.5"):
        score(rows)


# The rows of single answers


def test_every_answer_has_a_row_with_every_metric(tmp_path):
    rows = [
        prediction("q1", answer="Paris\u2028", confidence=-0.25, route="few", seconds=0.125),
        prediction("q2", answer=None, abstained=True, variant="noise=0.5", gold="retrieved", answerable=False),
        prediction("q3", answer=None, failure="time-out", gold="absent"),
    ]
    _, answers = score_cases(cases_of(rows), sampling(resamples=100), run_name="try", partial=False)
    write_answers(tmp_path / "evaluation" / "answers.jsonl", answers)
    lines = (tmp_path / "evaluation" / "answers.jsonl").read_text(encoding="utf-8").split("\n")
    first, second, third = map(json.loads, lines[:-1])
    assert first == answers[0]
    assert {key: first[key] for key in ("question_id", "group", "system", "gold", "passages", "variant")} == {
        "question_id": "q1",
        "group": "one_hop",
        "system": "base",
        "gold": "kept",
        "passages": 1,
        "variant": "",
    }
    assert [first[key] for key in ("confidence", "route", "prompt_tokens", "output_tokens", "seconds", "cost")] == [
        -0.25,
        "few",
        100,
        4,
        0.125,
        None,
    ]
    assert (first["answer"], first["accuracy"], first["misled"]) == ("Paris\u2028", 1, None)
    assert (second["variant"], second["abstained"], second["answerable"], second["answer"]) == (
        "noise=0.5",
        True,
        False,
        None,
    )
    assert (third["failure"], third["accuracy"]) == ("time-out", 0)
    assert set(METRICS) <= set(first)


# The terminal


def test_terminal_table_shows_accuracy_differences_recall_and_failures():
    rows = sweep("base", {1: "1100", 5: "1000"}) + sweep("tuned", {1: "1100", 5: "1111"})
    rows += [prediction("q0", gold="closed_book", passages=0, answer=None, failure="time-out")]
    recall = [{"group": "all", "passages": 5, "recall": 0.875}, {"group": "one_hop", "passages": 1, "recall": 0.1}]
    out = StringIO()
    Console(file=out, width=80).print(terminal_table(score(rows, recall=recall, partial=True)))
    text = " ".join(out.getvalue().split())
    assert "PARTIAL: try: accuracy in %, gold kept, 4 questions, 95 % intervals" in text
    assert "failed generations, counted as wrong: 1" in text
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines()]
    for first, second in [
        (["base", "50.0", "25.0"], ["", "0.0 to 100.0", "0.0 to 75.0"]),
        (["tuned", "50.0", "100.0"], ["", "0.0 to 100.0", "100.0 to 100.0"]),
        (["tuned - base", "+0.0", "+75.0"], ["", "+0.0 to +0.0", "+25.0 to +100.0"]),
    ]:
        assert cells[cells.index(first) + 1] == second
    assert ["evidence retrieved", "-", "87.5"] in cells
