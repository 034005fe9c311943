"""Metrics against hand-made cases (tests/cases/*.json) and against an independent implementation."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ft.evaluation.metrics import METRICS, abstention, cover_accuracy, cover_raw, exact_match, f1, normalize

CASES = Path(__file__).parent / "cases"


def cases(name):
    rows = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(row, id=f"{name}: {row['why']}") for row in rows]


@pytest.mark.parametrize("case", cases("normalize"))
def test_normaliser_follows_squad(case):
    assert normalize(case["text"]) == case["expected"]


@pytest.mark.parametrize(("name", "case"), [pytest.param(n, *c.values, id=c.id) for n in METRICS for c in cases(n)])
def test_metric_gives_the_value_worked_out_by_hand(name, case):
    assert METRICS[name](case["prediction"], case["answers"]) == pytest.approx(case["expected"])


@pytest.mark.parametrize("case", cases("abstention"))
def test_abstention_table_gives_the_values_worked_out_by_hand(case):
    table = abstention(tuple(outcome) for outcome in case["outcomes"])
    for name, expected in case["expected"].items():
        assert getattr(table, name) == (None if expected is None else pytest.approx(expected)), name


def test_every_metric_has_a_case_file():
    assert {path.stem for path in CASES.glob("*.json")} >= {*METRICS, "normalize", "abstention"}


# Few words and much punctuation, so that predictions and answers often share tokens or vanish.
words = st.sampled_from(
    ["a", "The", "an", "cat", "CAT,", "New-York", "new", "york", "3.5", "35", "don\u2019t", "é", "!", "-"]
)
texts = st.one_of(st.lists(words, max_size=5).map(" ".join), st.text(max_size=12))


@settings(max_examples=400, deadline=None)
@given(prediction=texts, answers=st.lists(texts, max_size=3))
def test_exact_match_and_f1_agree_with_the_squad_script_of_transformers(prediction, answers):
    from transformers.data.metrics import squad_metrics as reference

    golds = [answer for answer in answers if reference.normalize_answer(answer)] or [""]
    assert normalize(prediction) == reference.normalize_answer(prediction)
    assert exact_match(prediction, answers) == max(reference.compute_exact(gold, prediction) for gold in golds)
    assert f1(prediction, answers) == pytest.approx(max(reference.compute_f1(gold, prediction) for gold in golds))


@settings(max_examples=300, deadline=None)
@given(prediction=texts, answers=st.lists(texts, max_size=3), extra=texts)
def test_metrics_stay_within_bounds_and_never_fall_when_an_alias_is_added(prediction, answers, extra):
    assert exact_match(prediction, answers) <= f1(prediction, answers) <= 1
    for metric in (cover_accuracy, cover_raw):
        assert metric(prediction, answers) <= metric(prediction, [*answers, extra])


@given(before=st.sampled_from(["", "It is "]), answer=st.sampled_from(["Paris", "New York", "3.5", "no"]))
def test_token_bounded_accuracy_finds_an_answer_in_a_sentence_but_not_in_a_longer_word(before, answer):
    assert cover_accuracy(f"{before}{answer}.", [answer]) == 1
    assert cover_accuracy(f"{before}x{answer}x", [answer]) == (1 if answer == "3.5" else 0)
