"""Gates: the planted labels, and each gate's notion by cases worked out by hand."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_labels import candidate, planted_labels

from data_builders.labels.agreement import agrees
from data_builders.labels.candidate import Rejection
from data_builders.labels.gates import GATES, check, hypothesis
from data_builders.labels.quotes import likeness, verbatim
from data_builders.labels.settings import GatesSettings, LengthGateSettings, SupportGateSettings
from data_builders.labels.wording import gives_answer, is_irrelevant, leaked, says_unanswered, stated_answers
from data_builders.records import Evidence, Label, Relevance

PLANTED = planted_labels()
ON = GatesSettings()
OFF = GatesSettings(
    well_formed=False,
    answer=False,
    citations=False,
    quotes=None,
    support=None,
    no_evidence=False,
    consistent=False,
    leak=False,
    length=None,
)


# the planted labels


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_planted_label_passes_or_is_turned_away_by_the_right_gate(planted):
    found = check(planted.candidate, ON)
    assert (found.gate if found else None) == planted.gate, found


def test_planted_labels_are_200_and_try_every_gate():
    wanted = Counter(planted.gate for planted in PLANTED)
    assert sum(wanted.values()) == 200
    assert set(wanted) == {None, *GATES}
    assert wanted[None] >= 75
    assert min(wanted.values()) >= 3


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_is_off_turns_nothing_away(gate):
    off = ON.model_copy(update={gate: getattr(OFF, gate)})
    found = [check(planted.candidate, off) for planted in PLANTED]
    assert gate not in {rejection.gate for rejection in found if rejection}
    assert any(rejection is None for rejection, planted in zip(found, PLANTED, strict=True) if planted.gate == gate)


def test_all_gates_off_let_everything_through():
    assert not any(check(planted.candidate, OFF) for planted in PLANTED)


# whatever comes


TEXTS = st.text(st.sampled_from("ab A1[]\"'.\u201c\u2026\u2014\u0301가서 은12不\n\ud800"), max_size=30)
LABELS = st.builds(
    Label,
    relevance=st.lists(st.builds(Relevance, st.integers(-3, 9), st.booleans(), TEXTS), max_size=4).map(tuple),
    evidence=st.lists(st.builds(Evidence, st.integers(-3, 9), TEXTS, TEXTS), max_size=3).map(tuple),
    analysis=TEXTS,
    answer=st.none() | TEXTS,
)


@settings(max_examples=150, deadline=None)
@given(LABELS, st.sampled_from(PLANTED), st.sampled_from(list(GATES)), st.sampled_from([0.3, 0.9, 1.0]))
def test_every_gate_alone_survives_any_label(label, planted, gate, least):
    alone = OFF.model_copy(update={gate: least if gate == "quotes" else getattr(ON, gate)})
    found = check(replace(planted.candidate, label=label), alone)
    assert found is None or (found.gate == gate and found.why)


# reasons


def tower(**changes):
    context = {
        "context": "tower",
        "question": "When was the tower of Brest completed?",
        "answers": ["1889"],
        "gold": [1],
        "passages": [["Tower of Brest", "The tower of Brest was completed in 1889."], ["Brest", "Brest is a town."]],
    }
    label = {
        "relevance": ["+ It dates the tower.", "- It is about the town."],
        "evidence": [[1, "was completed in 1889", "The year."]],
        "analysis": "The year is 1889 [1].",
        "answer": "1889",
    }
    told = {name: changes.pop(name) for name in list(changes) if name in ("answers", "gold", "answerable", "passages")}
    return candidate({**context, **told}, {**label, **changes})


@pytest.mark.parametrize(
    ("changes", "gate", "why"),
    [
        ({"problems": ['There is no "analysis".']}, "well_formed", 'There is no "analysis".'),
        ({"relevance": ["+ It dates the tower."]}, "well_formed", "It judges 1 of 2 passages."),
        ({"relevance": ["+ A.", [1, "+ B."]]}, "well_formed", "It judges [1] more than once."),
        ({"analysis": "See [3] and [1, 8]."}, "citations", "It cites [3], [8], and the passages shown are [1] to [2]."),
        (
            {"evidence": [[2, "was completed in 1889", "x"]]},
            "quotes",
            '"was completed in 1889" stands in [1], not in [2].',
        ),
        (
            {"evidence": [[2, "Brest is a city", "x"]]},
            "quotes",
            # of 15 letters 3 are too many for "Brest is a t": c, i and y
            '"Brest is a city" is not in [2]: the likeness to it is 0.80, at least 1.00 is asked for.',
        ),
        ({"answer": "1890"}, "answer", '"1890" agrees with no accepted answer: 1889.'),
        ({"answer": None}, "answer", "It abstains, and [1] shows the answer: 1889."),
        ({"answerable": False, "gold": []}, "no_evidence", "It quotes [1], and this context has no evidence."),
        (
            {"relevance": ["+ A.", "+ B."], "evidence": [[2, "Brest is a town.", "x"]]},
            "support",
            "What it cites, [2], does not hold an accepted answer; [1] would.",
        ),
        (
            {"relevance": ["- It is about a tower.", "+ B."]},
            "consistent",
            "It quotes [1] and judges it irrelevant.",
        ),
        (
            {"analysis": "The answer is 1890 [1]."},
            "consistent",
            'Its answer is "1889", and its analysis says that it is "1890 .".',
        ),
        ({"analysis": "As instructed: 1889 [1]."}, "leak", 'Its reasoning speaks of "As instructed".'),
    ],
)
def test_a_rejection_says_what_is_wrong(changes, gate, why):
    assert check(tower(**changes), ON) == Rejection(gate, why)


def test_reasoning_at_the_bounds_passes_and_beyond_them_does_not():
    # reasons: "It dates tower", "It is about town", "year"; analysis "year is 1889", articles and mark aside
    label = tower()
    words = 3 + 4 + 1 + 3
    for least, most, passes in [
        (words, words, True),
        (words + 1, 400, False),
        (0, words - 1, False),
    ]:
        found = check(label, OFF.model_copy(update={"length": LengthGateSettings(least=least, most=most)}))
        assert (found is None) == passes, found
    assert found is not None
    assert found.why == "Its reasoning has 11 words; 0 to 10 are asked for."


def test_chinese_reasoning_is_counted_by_signs():
    label = tower(relevance=["+ 说明年份", "- 城市"], evidence=[], analysis="")
    found = check(label, OFF.model_copy(update={"length": LengthGateSettings(least=7)}))
    assert found is not None
    assert found.why.startswith("Its reasoning has 6 words")


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


# support


class Model:
    """A model for inference that entails what it was told to; remembers what it was asked."""

    def __init__(self, *entailed):
        self.entailed, self.asked = entailed, []

    def __call__(self, pairs):
        self.asked += pairs
        return [hypothesis in self.entailed for _, hypothesis in pairs]


BY_MODEL = OFF.model_copy(update={"support": SupportGateSettings(model="judge")})


def test_a_model_decides_whether_what_is_cited_entails_the_conclusion():
    label = tower(analysis="Brest has a tower [1]. It dates from 1889 [1]. Nothing else is asked.")
    model = Model("It dates from 1889 .")
    assert check(label, BY_MODEL, model) is None
    assert model.asked == [("Tower of Brest\nThe tower of Brest was completed in 1889.", "It dates from 1889 .")]
    found = check(label, BY_MODEL, Model())
    assert found == Rejection("support", '[1], cited, does not entail "It dates from 1889 .".')


def test_a_model_reads_all_cited_passages_together_and_question_with_answer_where_the_analysis_does_not_say_it():
    label = tower(evidence=[[2, "Brest is a town.", "x"], [1, "1889", "x"]], analysis="Easy.")
    model = Model("When was the tower of Brest completed? 1889")
    assert check(label, BY_MODEL, model) is None
    assert model.asked[0][0] == "Brest\nBrest is a town.\nTower of Brest\nThe tower of Brest was completed in 1889."


def test_a_verdict_is_put_to_the_model_behind_its_question():
    assert hypothesis(tower(answers=["yes"], answer="yes", analysis="So yes.")).endswith("completed? yes")


def test_a_model_that_was_not_handed_over_is_our_mistake():
    with pytest.raises(ValueError, match="hand over"):
        check(tower(), BY_MODEL)


def test_an_answer_that_no_gold_passage_says_needs_a_gold_passage_cited():
    shown = {"answers": ["yes"], "answer": "yes", "analysis": "Both dates agree."}
    assert check(tower(**shown), ON) is None
    elsewhere = {"relevance": ["+ A.", "+ B."], "evidence": [[2, "Brest is a town.", "x"]]}
    assert check(tower(**shown, **elsewhere), ON) == Rejection(
        "support", "What it cites, [2], is no gold passage; [1] would."
    )


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


def test_an_answer_with_a_full_stop_inside_is_not_contradicted_by_its_beginning():
    said = "made by St. Aldo Ltd. in 1889"
    label = tower(answers=[said], answer=said, analysis=f"The passages give the answer: {said}.")
    alone = OFF.model_copy(update={"consistent": True})
    assert check(label, alone) is None
    other = replace(label, label=replace(label.label, analysis="The passages give the answer: 1890."))
    assert check(other, alone) == Rejection(
        "consistent", f'Its answer is "{said}", and its analysis says that it is "1890.".'
    )
