"""Metrics against hand-made cases (JSON), and answer metrics against independent statements of their definitions."""

import json
import random
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_rows import ROWS, case, case_of

from rag_ft.evaluation.metrics import (
    ANSWER_METRICS,
    METRICS,
    REGISTRY,
    Abstention,
    abstention,
    cover_accuracy,
    cover_raw,
    exact_match,
    f1,
    normalize,
)
from rag_ft.evaluation.robustness import MEASURES

CASES = Path(__file__).parent / "cases"
DOCS = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
ASKED_OF_A_MODEL = {"alce_recall", "alce_precision", "judged"}


def cases(name):
    rows = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(row, id=f"{name}: {row['why']}") for row in rows]


@pytest.mark.parametrize("case", cases("normalize"))
def test_normaliser_follows_squad(case):
    assert normalize(case["text"]) == case["expected"]


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(n, *c.values, id=c.id) for n in ANSWER_METRICS for c in cases(n)]
)
def test_metric_gives_the_value_worked_out_by_hand(name, case):
    assert ANSWER_METRICS[name](case["prediction"], case["answers"]) == pytest.approx(case["expected"])


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row['metric']}: {row['why']}") for row in ROWS])
def test_metric_of_a_case_gives_the_value_worked_out_by_hand(row):
    found = METRICS[row["metric"]](case_of(row))
    assert found == (None if row["expected"] is None else pytest.approx(row["expected"]))


@pytest.mark.parametrize("case", cases("abstention"))
def test_abstention_table_gives_the_values_worked_out_by_hand(case):
    table = abstention(tuple(outcome) for outcome in case["outcomes"])
    for name, expected in case["expected"].items():
        assert getattr(table, name) == (None if expected is None else pytest.approx(expected)), name


def test_every_metric_has_cases():
    assert {path.stem for path in CASES.glob("*.json")} >= {*ANSWER_METRICS, "normalize", "abstention"}
    assert {row["metric"] for row in ROWS} == set(METRICS) - ASKED_OF_A_MODEL


def test_every_metric_says_what_it_is_and_where_it_comes_from():
    for name, info in REGISTRY.items():
        assert f"| `{name}` | {info.what} | {info.source} |" in DOCS


@pytest.mark.parametrize("name", [*MEASURES, "answerable_share", "token_share", "right_to_answer", "right_to_route"])
def test_numbers_of_systems_are_defined_in_the_docs(name):
    assert re.search(rf"^\| [^|]*`{name}`", DOCS, re.MULTILINE)


@pytest.mark.parametrize("rate", [name for name in Abstention.__dataclass_fields__ if not name.endswith("answerable")])
def test_rates_of_abstaining_are_defined_in_the_docs(rate):
    assert f"| {rate.replace('over_refusal', 'over-refusal').replace('_', ' ').replace('f1', 'F1')} |" in DOCS


def test_metrics_that_a_model_was_not_asked_for_do_not_apply():
    assert {name for name, metric in METRICS.items() if metric(case()) is None} >= ASKED_OF_A_MODEL


# independent statements of the definitions


def squad_words(text):
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces."""
    kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    runs = re.findall(r"\w+|\W", kept)
    return "".join(" " if run in {"a", "an", "the"} else run for run in runs).split()


def shared(predicted, wanted):
    left, count = list(wanted), 0
    for one in predicted:
        if one in left:
            left.remove(one)
            count += 1
    return count


def squad_1(prediction, golds):
    """The scoring of SQuAD 1.1: the best exact match and F1 over the gold answers, each by itself."""
    exact, overlap = [], []
    for gold in golds:
        predicted, wanted = squad_words(prediction), squad_words(gold)
        exact.append(float(predicted == wanted))
        same = shared(predicted, wanted)
        precision, recall = (same / len(predicted), same / len(wanted)) if same else (0, 0)
        overlap.append(2 * precision * recall / (precision + recall) if same else 0.0)
    return max(exact), max(overlap)


def squad_2(prediction, golds):
    """The scoring of SQuAD 2.0: golds without words stand for no answer, and F1 with no words on a side is equality."""
    golds = [gold for gold in golds if squad_words(gold)] or [""]
    exact = max(float(squad_words(prediction) == squad_words(gold)) for gold in golds)
    worded = [gold for gold in golds if squad_words(gold) and squad_words(prediction)]
    return exact, max([exact, *(squad_1(prediction, [gold])[1] for gold in worded)])


def predicted_answers(count):
    """Yield predictions and gold answers that share words, articles, punctuation, case, scripts and emptiness."""
    draw = random.Random(5)
    words = ["a", "an", "the", "The", "THE", "Paris", "paris", "PARIS,", "New-York", "new", "york", "3.5", "1,200", "-"]
    words += ["don't", "don\u2019t", "a\u2019b", "Beyoncé", "Beyonce", "été", "ß", "İ", "…", "「東京」", "서울"]
    for _ in range(count):
        golds = [" ".join(draw.choices(words, k=draw.choice([0, 1, 1, 2, 3]))) for _ in range(draw.choice([1, 1, 3]))]
        kept = [word for word in draw.choice(golds).split() if draw.random() < 0.8]
        added = draw.choices(words, k=draw.choice([0, 0, 0, 1, 3]))
        glue = draw.choice([" ", "  ", "\n", "\u00a0"])
        yield glue.join([*kept, *added]), golds


def test_exact_match_and_f1_equal_the_official_scores_on_a_thousand_predictions():
    rows = list(predicted_answers(1000))
    assert sum(not prediction for prediction, _ in rows) > 30
    for prediction, golds in rows:
        assert (exact_match(prediction, golds), f1(prediction, golds)) == pytest.approx(squad_2(prediction, golds))
        if all(map(squad_words, golds)):
            assert squad_2(prediction, golds) == pytest.approx(squad_1(prediction, golds))
    assert 0.1 < sum(exact_match(*row) for row in rows) / 1000 < 0.6 < sum(f1(*row) > 0 for row in rows) / 1000


def cover_words(text):
    """Words and numbers of ASCII text: a number keeps inner points and commas, but for thousands separators."""
    words, kind = [], ""
    text = re.sub(r"(\d),(?=\d{3}(?!\d))", r"\1", text.lower())
    for place, sign in enumerate(text):
        inner = kind == "digit" and sign in ".," and text[place + 1 : place + 2].isdigit()
        now = "digit" if sign.isdigit() or inner else "letter" if sign.isalpha() else ""
        if now and now == kind:
            words[-1] += sign
        elif now:
            words.append(sign)
        kind = now
    return [word for word in words if word not in ("a", "an", "the")] or words


def test_cover_accuracy_equals_its_definition_on_a_thousand_predictions():
    found = []
    for prediction, golds in predicted_answers(6000):
        if not "".join([prediction, *golds]).replace("\u00a0", " ").isascii():
            continue
        inside = f" {' '.join(cover_words(prediction))} "
        wanted = [" ".join(cover_words(gold)) for gold in golds]
        assert cover_accuracy(prediction, golds) == any(gold and f" {gold} " in inside for gold in wanted)
        found.append(cover_accuracy(prediction, golds))
    assert len(found) > 1000
    assert 0.2 < sum(found) / len(found) < 0.8


def test_raw_cover_equals_its_definition_on_a_thousand_predictions():
    for prediction, golds in predicted_answers(1000):
        text, wanted = " ".join(squad_words(prediction)), [" ".join(squad_words(gold)) for gold in golds]
        assert cover_raw(prediction, golds) == any(gold != "" and gold in text for gold in wanted)


KORQUAD_BLANKS = "['\"()<>《》〈〉\u2018\u2019]"


def korean_signs(text):
    """KorQuAD's normalisation, sign by sign: what it blanks, what it deletes."""
    signs = ["" if s in string.punctuation else s.lower() for s in re.sub(KORQUAD_BLANKS, " ", text)]
    return "".join(signs).split()


KOREAN = st.lists(
    st.sampled_from(["서울", "서울에서", " ", "《", "\u2019", "(", "-", "NASA", "nasa", "1945년", "“"])
).map("".join)


@settings(max_examples=300, deadline=None)
@given(prediction=KOREAN, answers=st.lists(KOREAN, min_size=1, max_size=3))
def test_korean_metrics_equal_their_definition(prediction, answers):
    golds = [gold for gold in answers if korean_signs(gold)] or [""]
    exact = any(korean_signs(prediction) == korean_signs(gold) for gold in golds)
    scores = []
    for gold in golds:
        one, other = "".join(korean_signs(prediction)), "".join(korean_signs(gold))
        scores.append(2 * shared(one, other) / (len(one) + len(other)) if one + other else 0.0)
    assert ANSWER_METRICS["exact_match_korean"](prediction, answers) == exact
    assert ANSWER_METRICS["f1_korean"](prediction, answers) == pytest.approx(max(scores))


# Few words and much punctuation, so that predictions and answers often share tokens or vanish.
words = st.sampled_from(
    ["a", "The", "an", "cat", "CAT,", "New-York", "new", "york", "3.5", "35", "don\u2019t", "é", "!", "-"]
)
texts = st.one_of(st.lists(words, max_size=5).map(" ".join), st.text(max_size=12))
ascii_texts = st.lists(words.filter(str.isascii), max_size=8).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(prediction=texts, answers=st.lists(texts, max_size=3))
def test_exact_match_and_f1_agree_with_the_squad_script_of_transformers(prediction, answers):
    from transformers.data.metrics import squad_metrics as reference

    golds = [answer for answer in answers if reference.normalize_answer(answer)] or [""]
    assert normalize(prediction) == reference.normalize_answer(prediction)
    assert exact_match(prediction, answers) == max(reference.compute_exact(gold, prediction) for gold in golds)
    assert f1(prediction, answers) == pytest.approx(max(reference.compute_f1(gold, prediction) for gold in golds))


@settings(max_examples=200, deadline=None)
@given(prediction=ascii_texts, answers=st.lists(ascii_texts, min_size=1, max_size=3))
def test_rouge_l_agrees_with_the_package_rouge_score(prediction, answers):
    from rouge_score.rouge_scorer import RougeScorer

    best = RougeScorer(["rougeL"], use_stemmer=False).score_multi(answers, prediction)["rougeL"].fmeasure
    assert ANSWER_METRICS["rouge_l"](prediction, answers) == pytest.approx(best)


@settings(max_examples=300, deadline=None)
@given(prediction=texts, answers=st.lists(texts, max_size=3), extra=texts)
def test_metrics_stay_within_bounds_and_never_fall_when_an_alias_is_added(prediction, answers, extra):
    assert exact_match(prediction, answers) <= f1(prediction, answers) <= 1
    assert ANSWER_METRICS["f1_hotpot"](prediction, answers) <= f1(prediction, answers)
    for name in ("accuracy", "cover_raw", "rouge_l"):
        metric = ANSWER_METRICS[name]
        assert 0 <= metric(prediction, answers) <= metric(prediction, [*answers, extra]) <= 1


@settings(max_examples=300, deadline=None)
@given(one=texts, other=texts)
def test_overlap_metrics_are_symmetric_and_one_for_the_same_text(one, other):
    for name in ("exact_match", "f1", "f1_hotpot", "exact_match_korean", "f1_korean"):
        metric = ANSWER_METRICS[name]
        assert metric(one, [other]) == pytest.approx(metric(other, [one]))
    for name in ("exact_match", "f1", "f1_hotpot", "cover_raw"):
        assert ANSWER_METRICS[name](one, [one]) == 1 or not normalize(one)


@given(before=st.sampled_from(["", "It is "]), answer=st.sampled_from(["Paris", "New York", "3.5", "no"]))
def test_token_bounded_accuracy_finds_an_answer_in_a_sentence_but_not_in_a_longer_word(before, answer):
    assert cover_accuracy(f"{before}{answer}.", [answer]) == 1
    assert cover_accuracy(f"{before}x{answer}x", [answer]) == (1 if answer == "3.5" else 0)
