"""What gates go by: answers that agree, quotes that stand in a passage, words that contradict or leak."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.labels.agreement import agrees
from data_builders.labels.quotes import likeness, verbatim
from data_builders.labels.wording import (
    denies,
    gives_answer,
    is_irrelevant,
    leaked,
    number_in_its_place,
    says_unanswered,
    stated_answers,
)

TEXTS = st.text(st.sampled_from("ab A1[]\"'.\u201c\u2026\u2014\u0301가서 은12不\n\ud800"), max_size=30)


# answers


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("the Nile", ["Nile"]),
        ("NASA (National Aeronautics and Space Administration)", ["NASA"]),
        ("1\u00a0234\u202f567", ["1,234,567"]),
        ("서울특별시에서", ["부산", "서울특별시"]),
        ("To be or not to be", ["To Be or Not to Be"]),
        ("Lyon, not Paris", ["Lyon"]),
        ("Burma or Myanmar", ["Myanmar", "Burma"]),
        ("Not in Our Stars", ["Not in Our Stars"]),
        ("Yes, both are rivers", ["yes"]),
        ("No, since the second is a lake", ["no"]),
        ("7 strings", ["7"]),
        ("7 (counted in 2010)", ["7"]),
        ("about 12 km", ["12"]),
        ("12 June 1889", ["1889"]),
        ("1889-1890", ["1889", "1889-1890"]),
        ("Paris is right", ["Paris"]),
    ],
)
def test_answer_agrees_with_an_accepted_one(answer, accepted):
    assert agrees(answer, accepted)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("Niles", ["Nile"]),
        ("12.5", ["12", "5"]),
        ("not Paris", ["Paris"]),
        ("Lyon rather than Paris", ["Paris"]),
        ("Paris or Lyon", ["Paris"]),
        ("either Lyon or Paris", ["Paris"]),
        ("서울이 아니라 부산", ["서울"]),
        ("It isn't Paris", ["Paris"]),
        ("It wasn't in 1889", ["1889"]),
        ("Paris isn't right", ["Paris"]),
        ("Paris is wrong", ["Paris"]),
        ("1889/1890", ["1889"]),
        ("1889\u20131890", ["1890"]),
        ("7 million", ["7"]),
        ("between 10 and 12", ["12"]),
        ("Yes and no", ["yes"]),
        ("There is no such river", ["no"]),
        ("no information", ["no"]),
        ("true", ["yes"]),
        ("12 May 1906", ["May 12, 1906"]),  # cover accuracy would not count it either: it needs an alias
        ("", ["Paris"]),
        ("Paris", []),
        ("Paris", ["", "?"]),
    ],
)
def test_answer_agrees_with_no_accepted_one(answer, accepted):
    assert not agrees(answer, accepted)


# quotes

PASSAGE = (
    "The captain \u2014 \u201cOld\u00a0Tom\u201d \u2014 wouldn\u2019t sail\u00ad.\n"
    "He sold the ship in 1946, to a\u0301 friend. 세종은 왕이다."
)


@pytest.mark.parametrize(
    ("quote", "stretch"),
    [
        ('the captain - "Old Tom"', "The captain \u2014 \u201cOld\u00a0Tom\u201d"),
        (
            "\u2026'Old Tom'-wouldn't sail. He sold",
            "\u201cOld\u00a0Tom\u201d \u2014 wouldn\u2019t sail\u00ad.\nHe sold",
        ),
        ("He sold the ship in 1946.", "He sold the ship in 1946"),
        ("to \u00e1 friend", "to a\u0301 friend"),
        ("세종", "세종"),
        ("He sold the ship ... to", ""),
        ("He sold a ship in 1946", ""),
        ("46", ""),
        ("he sol", ""),
        ("to a friend", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_a_quote_is_found_but_for_its_typography(quote, stretch):
    assert verbatim(quote, PASSAGE) == stretch


@pytest.mark.parametrize(
    ("quote", "least", "stretch"),
    [
        # one letter of 10 wrong
        ("He told the", 0.9, "He sold the"),
        ("He told the", 0.95, ""),
        # two of 22: "a" for "the" costs 3 (one changed, two inserted)
        ("He sold a ship in 1946", 0.86, "He sold the ship in 1946"),
        ("He sold a ship in 1946", 0.87, ""),
        # what is cut is widened to whole words
        ("e sold the shi", 0.9, "He sold the ship"),
    ],
)
def test_a_quote_may_be_as_unlike_as_the_bound_allows(quote, least, stretch):
    assert verbatim(quote, PASSAGE, least) == stretch


def slowest_likeness(quote, text):
    """The definition itself: the best of all stretches, by the textbook recursion."""

    def edits(one, other):
        row = list(range(len(other) + 1))
        for letter in one:
            last, row = row, [row[0] + 1]
            for place, found in enumerate(other):
                row.append(min(last[place + 1] + 1, row[place] + 1, last[place] + (letter != found)))
        return row[-1]

    stretches = {text[start:end] for start in range(len(text) + 1) for end in range(start, len(text) + 1)}
    return 1 - min(edits(quote, stretch) for stretch in stretches) / len(quote)


@settings(max_examples=60, deadline=None)
@given(st.text("abc", min_size=1, max_size=6), st.text("abc", min_size=1, max_size=9))
def test_likeness_is_that_of_the_best_stretch(quote, text):
    assert likeness(quote, text) == pytest.approx(slowest_likeness(quote, text))


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.sampled_from([0.5, 1.0]))
def test_what_stands_for_a_quote_is_part_of_the_passage(before, quote, after, least):
    text = before + quote + after
    assert verbatim(quote, text, least) in text


# words


@pytest.mark.parametrize(
    "analysis",
    [
        "No passage mentions a second architect, so it is Aldo [1].",
        "None of the other passages answers the question; [1] names Aldo.",
        "No passage gives the answer directly, but [1] and [2] lead to Aldo.",
        "No single passage answers the question. [1] and [2] name Aldo together.",
        "The other passages do not say who built it. [1] names Aldo.",
        "The passages do not say whether he was paid; that Aldo built it stands in [1].",
        "[2] does not answer the question, and [3] does not mention it. Aldo is named in [1].",
        "There is no information in [2] about it. [1] names Aldo.",
    ],
)
def test_an_analysis_that_finds_the_answer_may_say_what_is_missing(analysis):
    assert not says_unanswered(analysis, ["Aldo"])


@pytest.mark.parametrize(
    "analysis",
    [
        "None of the passages answers the question, but it was Aldo.",
        "No passage states who built it. From memory: Aldo.",
        "The passages do not mention who built it. It was Aldo.",
        "The builder cannot be determined from the passages. Aldo is likely.",
        "There is not enough information to tell.",
        "None of the given passages provide the answer. Aldo [1].",
        "어느 글에도 나오지 않는다. 알도이다.",
    ],
)
def test_an_analysis_that_says_that_nothing_answers_is_found(analysis):
    assert says_unanswered(analysis, ["Aldo"])


SHOWN = ["Tower\nThe tower stands since 1889, 324 metres high.", "Harbour\nThe harbour was dug in 1,712 days."]


@pytest.mark.parametrize(
    "analysis",
    [
        "The tower stands since 1890 [1].",
        "It stands since 1,890 or so. So says [1].",
        "Since 1712 [1] it stands.",  # [2] says that, of something else
        "[2] is about a harbour. The tower is of the year 1890년이다 [1].",
    ],
)
def test_a_number_in_the_place_of_the_answer_is_found(analysis):
    assert number_in_its_place(analysis, ["1889"], "Since when does the tower stand?", SHOWN)


@pytest.mark.parametrize(
    ("analysis", "answers"),
    [
        ("The tower stands since 1889 [1], and not since 1890.", ["1889"]),
        ("[1] tells it, unlike [2] with its 1712 days.", ["1889"]),
        ("The harbour took 1712 [2] days, and [1] dates the tower.", ["1889"]),
        ("Some 70 years before the 1950s [1].", ["1889"]),
        ("Of the years 1890-1900 nothing is told; see [1].", ["1889"]),
        ("The year that question 2024 asks for stands in [1].", ["1889"]),
        ("It is 1890 by another calendar [1].", ["Brest"]),
        ("", ["1889"]),
    ],
)
def test_other_numbers_of_an_analysis_are_let_be(analysis, answers):
    assert not number_in_its_place(analysis, answers, "Since when, asks question 2024, does it stand?", SHOWN)


@pytest.mark.parametrize(
    ("analysis", "answers"),
    [
        ("It was 1890, not 1889 [1].", ["1889"]),
        ("Not in Paris but in Lyon.", ["Paris"]),
        ("It was not 31 March 1889.", ["1889", "31 March 1889"]),
        ("1889 is wrong; it was 1890.", ["1889"]),
        ("세종이 아니라 정조이다.", ["세종"]),
    ],
)
def test_an_analysis_that_names_the_answer_only_to_deny_it_is_found(analysis, answers):
    assert denies(analysis, answers)


@pytest.mark.parametrize(
    ("analysis", "answers"),
    [
        ("It was not 1890 but 1889 [1].", ["1889"]),
        ("It was not until 1889 that it stood.", ["1889"]),
        ("Not Paris alone, but it was Paris.", ["Paris"]),
        ("Whether or not Paris is large, [1] names it.", ["Paris"]),
        ("Not in Our Stars is the play of [1].", ["Not in Our Stars", "Our Stars"]),
        ("That 15 is wrong follows from [1].", ["5"]),
        ("It was not 1889 in Lyon; in Paris it was 1889.", ["1889"]),
        ("Nothing is named.", ["1889"]),
    ],
)
def test_an_analysis_that_comes_to_the_answer_denies_nothing(analysis, answers):
    assert not denies(analysis, answers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("So the answer is Aldo.", ["Aldo."]),
        ("The correct answer must be: Aldo of Brest", ["Aldo of Brest"]),
        ("The answer is therefore Ingrid Notley [2].", ["Ingrid Notley ."]),
        ("Aldo is the right answer.", ["Aldo"]),
        ("따라서 답은 알도이다.", ["알도이다."]),
        ("The answer is given in [2].", []),
        ("The answer is not in the passages.", []),
        ("The answer is clearly stated in [1]. The answer is based on [2].", []),
        ("The question of who built it is answered by [1].", []),
    ],
)
def test_what_is_said_outright_to_be_the_answer_is_read(text, said):
    assert list(stated_answers(text)) == said


@pytest.mark.parametrize(
    "text",
    [
        "The answer given in [2] is Aldo.",
        "The correct answer provided by [1] is Aldo.",
        "The answer was given in passage [1].",
        "As asked in the question, only the year counts.",
        "It was built as directed by Aldo.",
        "The given passages name him, and the provided text agrees.",
        "We are told in [1] that he left.",
        "He was known for prompt replies, and his prompt action saved them.",
        "It is about gold medals and golden ages.",
    ],
)
def test_words_about_passages_are_no_leak(text):
    assert not leaked(text, [])


@pytest.mark.parametrize(
    "text",
    [
        "This matches the gold answer.",
        "The provided answer fits [1].",
        "The correct answer given is Aldo.",
        "Since the answer was provided, I looked for it.",
        "As you instructed, I quote [1].",
        "I was given Aldo as the result.",
        "We know the answer is Aldo.",
        "According to the instructions, quotes are short.",
        "In the prompt it says Aldo.",
        "As an AI language model I cannot know.",
        "제공된 정답은 알도이다.",
    ],
)
def test_words_about_an_answer_given_beforehand_are_a_leak(text):
    assert leaked(text, ["Aldo built the tower of Brest."])


def test_what_is_shown_is_a_topic_and_no_leak():
    assert leaked("It stores JSON.", ["A lake."])
    assert not leaked("It stores JSON.", ["The tool keeps a JSON file."])


def test_reasons_that_contradict_their_judgement_are_told_from_those_that_do_not():
    assert gives_answer("It states the answer.")
    assert gives_answer("This passage directly answers the question.")
    for reason in (
        "It does not give the answer.",
        "It holds the words of the question but not what answers the question.",
        "It provides the answer to another question.",
        "It would be close if it gave the answer.",
        "No part of it answers the question.",
    ):
        assert not gives_answer(reason), reason
    assert is_irrelevant("This passage is completely irrelevant to the question.")
    for reason in ("Half of it is irrelevant, but it names him.", "It is relevant.", "It does not say when."):
        assert not is_irrelevant(reason), reason
