"""Labels made of gold annotations, against labels written by hand."""

from dataclasses import replace

import pytest

from data_builders.errors import RagFtError
from data_builders.labels.gold import gold_label, label_rows
from data_builders.manifest import Tally
from data_builders.records import (
    ContextQuestion,
    ContextRow,
    Evidence,
    GoldEvidence,
    Label,
    Passage,
    Question,
    Relevance,
)

PASSAGES = (
    Passage("b", "Bexa", "Bexa was founded by Corin."),
    Passage("x", "", "Unrelated."),
    Passage("a", "Aldo", "Aldo lies near Bexa. It is old."),
)
ANNOTATED = Question(
    "q",
    "Who founded the town near Aldo?",
    ("Corin", "C."),
    ("a", "b"),
    (GoldEvidence("a", "Aldo lies near Bexa.", "It names the town."), GoldEvidence("b", "Corin", "It names him.")),
    "Bexa is near Aldo, so Corin.",
)
NO_JUDGEMENT = tuple(
    Relevance(index, False, f"It is about {about} and does not answer the question.")
    for index, about in enumerate(["Bexa", "something else", "Aldo"])
)


def asked(gold: tuple[int, ...]) -> ContextQuestion:
    return ContextQuestion(
        "q", ANNOTATED.question, ANNOTATED.answers, bool(gold), gold, (), (None,) * 3, None, "", "", ""
    )


def test_answerable_question_gets_judgements_quotes_in_order_of_the_hops_analysis_and_answer() -> None:
    assert gold_label(PASSAGES, asked((0, 2)), ANNOTATED, "abstain") == Label(
        relevance=(
            Relevance(0, True, "It names him."),
            Relevance(1, False, "It is about something else and does not answer the question."),
            Relevance(2, True, "It names the town."),
        ),
        evidence=(Evidence(2, "Aldo lies near Bexa.", "It names the town."), Evidence(0, "Corin", "It names him.")),
        analysis="Bexa is near Aldo, so Corin.",
        answer="Corin",
    )


def test_the_answer_written_is_the_first_that_a_gold_passage_states() -> None:
    accepted = ("Corin the Elder", "the town", "Corin")
    question = replace(asked((0,)), answers=accepted)
    annotated = replace(ANNOTATED, answers=accepted, gold=("b",), evidence=(), analysis="")
    label = gold_label(PASSAGES, question, annotated, "abstain")
    assert label.answer == "Corin"
    assert label.analysis == "The relevant passages together give the answer: Corin."
    unstated = replace(question, answers=("yes",))
    assert gold_label(PASSAGES, unstated, annotated, "abstain").answer == "yes"


def test_without_gold_the_label_abstains() -> None:
    label = gold_label(PASSAGES, asked(()), ANNOTATED, "abstain")
    assert label == Label(NO_JUDGEMENT, (), "No shown passage answers the question.", None)


def test_without_gold_the_answer_can_be_kept_without_evidence() -> None:
    label = gold_label(PASSAGES, asked(()), ANNOTATED, "answer")
    assert (label.relevance, label.evidence, label.answer) == (NO_JUDGEMENT, (), "Corin")


def test_answer_bearing_passage_is_not_said_to_be_without_the_answer() -> None:
    label = gold_label(PASSAGES, replace(asked(()), has_answer=(0,)), ANNOTATED, "abstain")
    assert label.relevance[0] == Relevance(0, False, "It is about Bexa and only mentions the words of the answer.")


def test_source_without_evidence_and_analysis_still_gets_a_whole_label() -> None:
    label = gold_label(PASSAGES, asked((0, 2)), replace(ANNOTATED, evidence=(), analysis=""), "abstain")
    assert label.relevance[0] == Relevance(0, True, "It is about Bexa and supports the answer.")
    assert label.analysis == "The relevant passages together give the answer: Corin."
    assert label.evidence == (Evidence(0, "Bexa was founded by Corin.", "It states the answer."),)
    assert label.answer == "Corin"


def test_dropped_questions_are_counted_and_empty_contexts_left_out() -> None:
    rows = [ContextRow("one", PASSAGES, (asked((0, 2)), asked(()))), ContextRow("two", PASSAGES, (asked(()),))]
    tally = Tally()
    labelled = list(label_rows(rows, lambda _: ANNOTATED, "drop", tally))
    assert [(row.id, len(row.questions)) for row in labelled] == [("one", 1)]
    assert labelled[0].questions[0].label_source == "gold"
    assert tally.dropped == {
        "questions without gold (contexts.gold_absent: drop)": 2,
        "contexts without a question left": 1,
    }


def test_quote_that_is_not_in_its_passage_is_refused() -> None:
    wrong = replace(ANNOTATED, evidence=(GoldEvidence("a", "Aldo lies far away.", ""),))
    with pytest.raises(RagFtError, match='context row one, question q: the quote "Aldo lies far away'):
        list(label_rows([ContextRow("one", PASSAGES, (asked((0, 2)),))], lambda _: wrong, "abstain", Tally()))


def test_quote_of_a_passage_that_is_not_gold_is_refused() -> None:
    wrong = replace(ANNOTATED, evidence=(GoldEvidence("z", "Aldo", ""),))
    with pytest.raises(RagFtError, match="add z to its gold"):
        gold_label(PASSAGES, asked((0, 2)), wrong, "abstain")
