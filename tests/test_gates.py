"""Gates: the planted labels, and each gate's notion by cases worked out by hand."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_labels import candidate, planted_labels

from data_builders.labels.candidate import Rejection
from data_builders.labels.gates import GATES, check, hypothesis
from data_builders.labels.settings import GatesSettings, LengthGateSettings, SupportGateSettings
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
        ({"evidence": [[1, "of", "x"]]}, "quotes", '"of" is too short to say anything: quote a sentence.'),
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
        (
            {"analysis": "The tower was completed in 1890 [1]."},
            "consistent",
            'Its answer is "1889", and its analysis has another number in its place: "The tower was completed in 1890 '
            '[1]."',
        ),
        (
            {"analysis": "It was 1890, not 1889 [1]."},
            "consistent",
            'Its answer is "1889", and its analysis says that it is not: "It was 1890, not 1889 [1]."',
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


def test_an_answer_with_a_full_stop_inside_is_not_contradicted_by_its_beginning():
    said = "made by St. Aldo Ltd. in 1889"
    label = tower(answers=[said], answer=said, analysis=f"The passages give the answer: {said}.")
    alone = OFF.model_copy(update={"consistent": True})
    assert check(label, alone) is None
    other = replace(label, label=replace(label.label, analysis="The passages give the answer: 1890."))
    assert check(other, alone) == Rejection(
        "consistent", f'Its answer is "{said}", and its analysis says that it is "1890.".'
    )
