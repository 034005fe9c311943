"""Does a text hold an answer? For the guard and for accuracy, against cases worked out by hand."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.text import (
    AnswerMatcher,
    answer_kind,
    answer_tokens,
    contains_answer,
    contains_tokens,
    joined,
)

ROWS = json.loads((Path(__file__).parent / "cases" / "answer_matching.json").read_text(encoding="utf-8"))
CASES = [pytest.param(row, id=row["why"]) for row in ROWS]


@pytest.mark.parametrize("case", CASES)
def test_accuracy_finds_an_answer_as_worked_out_by_hand(case):
    assert contains_answer(case["text"], case["answers"]) is case["accuracy"]


@pytest.mark.parametrize("case", CASES)
def test_guard_finds_an_answer_as_worked_out_by_hand(case):
    matcher = AnswerMatcher.of(case["answers"], case.get("question", ""))
    assert matcher.bears(joined(case["text"])) is case["guard"]
    matcher = AnswerMatcher.of(case["answers"], case.get("question", ""))
    assert matcher.bears(joined(case["text"])) is case["guard"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Paris", "strong"),
        ("100", "strong"),
        ("1,000", "strong"),
        ("46th", "strong"),
        ("two years", "strong"),
        ("99", "weak"),
        ("3.5", "weak"),
        ("$5", "weak"),
        ("B", "weak"),
        ("A", "weak"),
        ("王", "weak"),
        ("강", "weak"),
        ("The first", "weak"),
        ("Twelve", "weak"),
        ("Yes.", "unjudgeable"),
        ("아니오", "unjudgeable"),
        ("不是", "unjudgeable"),
        ("Sí", "unjudgeable"),
        ("NOT ENOUGH INFO", "unjudgeable"),
        ("", "empty"),
        ("?!", "empty"),
    ],
)
def test_answers_are_of_four_kinds(answer, kind):
    assert answer_kind(answer) == kind


def test_matcher_counts_the_kinds_of_its_answers():
    matcher = AnswerMatcher.of(["Paris", "paris", "7", "yes", "--"], "Which city?")
    assert dict(matcher.kinds) == {"strong": 2, "weak": 1, "unjudgeable": 1, "empty": 1}
    assert matcher.strong == (" paris ",)


def test_normal_form_parts_every_token_with_one_space():
    assert joined("The Röntgen-tube of 1,895: NASA는 東京") == " rontgen tube of 1895 nasa 는 東 京 "
    assert joined(" ?! ") == "  "


def reference_tokens(text):
    """The rule for English, written anew: words and numbers, no separators of thousands, no articles."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(\d),(?=\d\d\d(?!\d))", r"\1", text)
    tokens = re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+", text)
    return [token for token in tokens if token not in ("a", "an", "the")] or tokens


# Latin letters with a few diacritics, digits and signs that separate, join or vanish.
LATIN = st.text(alphabet=st.sampled_from("aAbtheéÜß 019.,,'-_\n\u2019\u2013½²"), max_size=30)


@given(LATIN)
def test_tokens_of_latin_text_are_words_and_numbers_without_articles(text):
    assert answer_tokens(text) == reference_tokens(text)


@given(LATIN, st.lists(LATIN, max_size=3))
def test_accuracy_is_a_run_of_whole_tokens(text, answers):
    expected = any(contains_tokens(reference_tokens(text), reference_tokens(answer)) for answer in answers)
    assert contains_answer(text, answers) is expected


SIGNS = st.sampled_from("abé ñ1,.5'-\u0308서울은의대京東アがไทयहिпё \u00ad")
ANY_TEXT = st.one_of(st.text(alphabet=SIGNS, max_size=25), st.text(max_size=25))


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_guard_finds_every_answer_that_accuracy_finds(text, answer):
    if contains_answer(text, [answer]) and answer_kind(answer) != "unjudgeable":
        assert AnswerMatcher.of([answer]).bears(joined(text))


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_normal_form_is_stable_and_never_fails(text):
    once = joined(text)
    assert once.startswith(" ")
    assert once.endswith(" ")
    assert once.split() == once[1:-1].split(" ") or once == "  "
    assert contains_answer(text, [text]) is bool(answer_tokens(text))


WORD = st.text(alphabet="bcdfglmnprstvw", min_size=4, max_size=8)
ALIAS = st.one_of(
    st.lists(WORD, min_size=1, max_size=3).map(" ".join),
    st.sampled_from(
        ["Jean-Paul Sartre", "O'Neill", "1,204", "Röntgen", "서울", "이순신 장군", "北京", "NASA", "Москва"]
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORD, max_size=12), ALIAS, st.integers(0, 12))
def test_passage_with_the_alias_between_its_words_bears_it(words, alias, place):
    passage = " ".join([*words[:place], alias, *words[place:]])
    assert AnswerMatcher.of([alias], "Who?").bears(joined(passage))
    assert contains_answer(passage, [alias])


@settings(max_examples=200, deadline=None)
@given(st.lists(WORD, max_size=12), WORD, WORD, st.sampled_from(["before", "after", "both"]))
def test_passage_with_the_alias_inside_a_longer_word_does_not_bear_it(words, alias, more, side):
    longer = {"before": f"{more}{alias}", "after": f"{alias}{more}", "both": f"{more}{alias}{more}"}[side]
    passage = " ".join([longer, *(word for word in words if word != alias)])
    assert not AnswerMatcher.of([alias], "Who?").bears(joined(passage))


PARTICLES = "은 는 이 가 을 를 의 에 에서 에게 로 으로 와 과 도 만 까지 부터 이다 였다 이었다".split()  # noqa: SIM905


@pytest.mark.parametrize("word", ["서울", "부산", "제주"])
@pytest.mark.parametrize("particle", PARTICLES)
def test_korean_particles_fit_the_sound_before_them(word, particle):
    """서울 ends in ㄹ, 부산 in another consonant, 제주 in a vowel."""
    consonant = {"은", "이", "을", "과"}
    vowel = {"는", "가", "를", "와", "였다"}
    fits = {
        "서울": particle not in vowel,
        "부산": particle not in vowel | {"로"},
        "제주": particle not in consonant | {"으로"},
    }
    assert contains_answer(f"{word}{particle} 멀다", [word]) is fits[word]
