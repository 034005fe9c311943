"""Rows come back labelled, in their order, whatever the order in which answers arrive, and few are held at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

import pytest

from data_builders.labels import written
from data_builders.labels.candidate import Candidate, Rejection
from data_builders.labels.gold import GoldAbsent
from data_builders.labels.prompts import read_template
from data_builders.labels.settings import TeacherLabelsSettings
from data_builders.labels.written import Writing, write_rows
from data_builders.manifest import Tally
from data_builders.records import ContextQuestion, ContextRow, Evidence, Passage, Question, Relevance
from data_builders.servers import Asker, Call, Reply
from data_builders.servers.job import PASSING

OFF: dict[str, Any] = {
    "well_formed": False,
    "answer": False,
    "citations": False,
    "quotes": None,
    "support": None,
    "no_evidence": False,
    "consistent": False,
    "leak": False,
    "length": None,
}
"""Every gate turned off: what is kept then shows what is done without them."""


def row(number: int, questions: int = 1, answerable: bool = True) -> ContextRow:
    """Return a context of two passages, the second of which is gold."""
    passages = (Passage("x", "Bexa", "It is old."), Passage("g", "", f"Aldo \u2018{number}\u2019 was founded in 1801."))
    gold = (1,) if answerable else ()
    asked = tuple(
        ContextQuestion(f"q{number}-{n}", f"When {n}?", ("1801",), answerable, gold, (), (None,) * 2, None, "", "", "")
        for n in range(questions)
    )
    return ContextRow(f"row{number}", passages, asked)


def label(**changes: Any) -> str:
    judged = [
        {"passage": 1, "relevant": False, "reason": "It dates nothing at all."},
        {"passage": 2, "relevant": True, "reason": "It dates the founding of Aldo."},
    ]
    quotes = [{"passage": 2, "quote": "was founded in 1801", "reason": "The year."}]
    return json.dumps(
        {"relevance": judged, "evidence": quotes, "analysis": "So 1801 [2].", "answer": "1801", **changes}
    )


def asking(reply: Callable[[Call], str], order: str = "as asked") -> Asker:
    """Return an asker that takes calls a few at a time and answers them in some order."""

    def ask(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        waiting = iter(calls)
        if order == "first last":
            first = next(waiting, None)
            yield from ((call, Reply(reply(call))) for call in waiting)
            if first is not None:
                yield first, Reply(reply(first))
            return
        while part := list(islice(waiting, 7)):
            if order == "shuffled":
                Random(len(part[0].key)).shuffle(part)
            yield from ((call, Reply(reply(call))) for call in part)

    return ask


def settings(**changes: Any) -> TeacherLabelsSettings:
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    return TeacherLabelsSettings.model_validate({"kind": "teacher", "endpoint": endpoint, **changes})


def writing(
    turned_away: list[tuple[Candidate, Rejection]], gold_absent: GoldAbsent = "abstain", **changes: Any
) -> Writing:
    return Writing(
        settings(**changes),
        read_template(None, changes.get("style", "self_reasoning")),
        lambda id_: Question(id_, "", ("1801",), ("g",)),
        gold_absent,
        None,
        lambda candidate, rejection: turned_away.append((candidate, rejection)),
    )


def run(
    rows: Iterable[ContextRow], asker: Asker, tally: Tally | None = None, **changes: Any
) -> tuple[list[ContextRow], list[tuple[Candidate, Rejection]]]:
    turned_away: list[tuple[Candidate, Rejection]] = []
    found = list(write_rows(rows, writing(turned_away, **changes), asker, tally or Tally()))
    return found, turned_away


def half_broken(call: Call) -> str:
    """Answer wrongly for some, unreadably at first for others."""
    if len(call.messages) == 1 and call.key.split()[1].endswith(("3-0", "7-0", "8-1")):
        return "{"
    return label(answer="1900") if "q5-" in call.key else label()


@pytest.mark.parametrize("order", ["shuffled", "first last"])
def test_the_order_of_answers_changes_nothing(order: str) -> None:
    rows = [row(number, questions=1 + number % 3) for number in range(40)]
    tallies = [Tally(), Tally()]
    expected = run(rows, asking(half_broken), tallies[0])
    assert run(rows, asking(half_broken, order), tallies[1]) == expected
    assert tallies[0].state() == tallies[1].state()
    assert [one.id for one in expected[0]] == [one.id for one in rows if one.id != "row5"]
    assert {rejection.gate for _, rejection in expected[1]} == {"answer"}


def test_few_rows_are_held_however_late_the_first_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "WINDOW", 32)
    taken, given, most = 0, 0, 0

    def rows() -> Iterator[ContextRow]:
        nonlocal taken, most
        for number in range(500):
            taken += 1
            most = max(most, taken - given)
            yield row(number, questions=2)

    for labelled in write_rows(rows(), writing([]), asking(lambda call: label(), "first last"), Tally()):
        assert labelled.id == f"row{given}"
        given += 1
    assert given == 500
    assert most == 16  # rows of two questions: they fill the window


def test_what_gates_that_are_off_would_find_is_left_out_of_the_row() -> None:
    quotes = [
        {"passage": 9, "quote": "was founded", "reason": "No such passage."},
        {"passage": 1, "quote": "not in it", "reason": "Invented."},
        {"passage": 2, "quote": "aldo '4'  WAS founded", "reason": "Other letters."},
    ]
    judged = [{"passage": number, "relevant": number == 2, "reason": "Since it is so."} for number in (1, 2, 8)]
    tally = Tally()
    asker = asking(lambda call: label(evidence=quotes, relevance=judged, answer="In the year 1801."))
    (found,), _ = run([row(4)], asker, tally, gates=OFF)
    written_label = found.questions[0].label
    assert written_label is not None
    assert written_label.evidence == (
        Evidence(1, "Aldo \u2018 4\u2019 was founded".replace(" 4", "4"), "Other letters."),
    )
    assert [item.passage for item in written_label.relevance] == [0, 1]
    assert written_label.answer == "In the year 1801."
    assert tally.counts["quotes left out, as the gates let them"] == 2


def test_evidence_of_a_context_without_any_is_never_kept() -> None:
    (found,), _ = run([row(1, answerable=False)], asking(lambda call: label()), gates=OFF)
    assert found.questions[0].label is not None
    assert found.questions[0].label.evidence == ()


def test_what_holds_no_label_is_rejected_though_every_gate_is_off() -> None:
    found, turned_away = run([row(1)], asking(lambda call: "It was 1801."), gates=OFF, attempts=1)
    assert found == []
    assert [rejection.gate for _, rejection in turned_away] == ["well_formed"]


def test_an_answer_in_other_words_is_written_as_the_accepted_one() -> None:
    (found,), _ = run([row(1)], asking(lambda call: label(answer="In the year 1801.")))
    assert found.questions[0].label is not None
    assert found.questions[0].label.answer == "1801"


def test_passages_that_a_reasoning_teacher_leaves_out_are_judged_irrelevant() -> None:
    output = json.dumps({"relevance": [{"passage": 2, "reason": "It dates the founding."}], "answer": "1801"})
    tally = Tally()
    (found,), _ = run([row(1)], asking(lambda call: output), tally, style="reasoning")
    assert found.questions[0].label is not None
    assert found.questions[0].label.relevance == (
        Relevance(0, False, "It is about Bexa and does not answer the question."),
        Relevance(1, True, "It dates the founding."),
    )
    assert (tally.counts["passages judged relevant"], tally.counts["passages judged irrelevant"]) == (1, 1)


def test_a_repair_that_gets_no_answer_leaves_what_was_wrong_before() -> None:
    def ask(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        for call in calls:
            yield call, Reply("{") if len(call.messages) == 1 else Reply(failure="the server answered 500: out")

    found, ((candidate, rejection),) = run([row(1)], ask)
    assert found == []
    assert (rejection.gate, candidate.raw) == ("well_formed", "{")


@pytest.mark.parametrize(("may_pass", "again"), [(True, 1), (False, 0)])
def test_a_repair_that_failed_in_passing_is_one_the_next_build_asks_for(may_pass: bool, again: int) -> None:
    def ask(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        for call in calls:
            down = Reply(failure="the server answered 503: busy", may_pass=may_pass)
            yield call, Reply("{") if len(call.messages) == 1 else down

    tally = Tally()
    run([row(1)], ask, tally)
    assert tally.counts[PASSING] == again


def test_what_a_rejected_label_says_is_cut_in_the_report() -> None:
    tally, long = Tally(), "x" * 5_000
    quotes = [{"passage": 2, "quote": long, "reason": "None."}]
    _, ((_, rejection),) = run([row(1)], asking(lambda call: label(evidence=quotes)), tally)
    assert long in rejection.why
    (told,) = tally.excerpts["labels rejected: quotes"]
    assert told.startswith("q1-0: ")
    assert len(told) < 500


def test_thoughts_are_not_sent_back_for_a_repair() -> None:
    seen: list[str] = []

    def reply(call: Call) -> str:
        if len(call.messages) == 1:
            return '<think>Long and winding.</think>{"answer": "1801"}'
        seen.append(call.messages[1]["content"])
        return label()

    found, _ = run([row(1)], asking(reply))
    assert len(found) == 1
    assert seen == ['{"answer": "1801"}']


def test_rows_of_which_one_question_is_rejected_keep_the_others() -> None:
    def reply(call: Call) -> str:
        return label(answer="1900") if call.key.startswith("row1 q1-1") else label()

    (found,), _ = run([row(1, questions=3)], asking(reply))
    assert [asked.id for asked in found.questions] == ["q1-0", "q1-2"]


def test_the_report_says_where_gates_shift_how_often_the_model_abstains() -> None:
    from data_builders.labels.balance import advise_on_balance

    for kept, told in (((80, 18), 0), ((80, 4), 1), ((10, 20), 1), ((0, 0), 0)):
        tally = Tally()
        advise_on_balance((80, 20), kept, tally)
        assert len(tally.advice) == told, kept


def test_rows_without_questions_to_ask_need_no_answer() -> None:
    free = replace(row(1, answerable=False), id="free")

    def nobody(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        assert list(calls) == []
        return iter(())

    (found,) = write_rows([free], writing([], "answer"), nobody, Tally())
    assert found.questions[0].label_source == "gold"
