"""Labels as headed text, for writers that lose themselves in JSON: read as they are meant, and no more is believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from data_builders.errors import RagFtError
from data_builders.labels.candidate import Candidate, Rejection
from data_builders.labels.headed import Shown, parse_text, repeated
from data_builders.labels.prompts import WrittenStyle, label_call, read_template
from data_builders.labels.settings import LabelsSettings, TeacherLabelsSettings, form_of
from data_builders.labels.written import Writing, write_rows
from data_builders.manifest import Tally
from data_builders.records import ContextQuestion, ContextRow, Evidence, Label, Passage, Question, Relevance
from data_builders.servers import Call, Reply
from data_builders.servers.store import call_hash
from rag_ft.prompting.render import render_target
from rag_ft.prompting.settings import PromptSettings

WHOLE = """Relevance:
[1] no: It is about Bexa.
[2] yes: It dates Aldo.
Evidence:
[2] "founded in 1801": It says when.
Analysis: Aldo was founded in 1801 [2].
Answer: 1801"""
READ = Label(
    (Relevance(0, False, "It is about Bexa."), Relevance(1, True, "It dates Aldo.")),
    (Evidence(1, "founded in 1801", "It says when."),),
    "Aldo was founded in 1801 [2].",
    "1801",
)
REASONS = "Relevance:\n[2] yes: Aldo was founded in 1801.\nAnswer: 1801"
SHORT = Label((Relevance(1, True, "Aldo was founded in 1801."),), (), "", "1801")

FORMS = {
    "as asked": WHOLE,
    "behind thoughts": f"<think>[1] yes: Or is it?\nAnswer: 1900</think>\n{WHOLE}",
    "in bold": WHOLE.replace("Relevance:", "**Relevance:**").replace("Answer:", "**Answer:**"),
    "as Markdown": WHOLE.replace("Relevance:", "## Relevance").replace("Evidence:", "## Evidence"),
    "with bullets and curly quotes": WHOLE.replace('[2] "founded in 1801"', "- [2] \u201cfounded in 1801\u201d"),
    "with the next prompt behind it": f"{WHOLE}\n\n<passage 1>\nBexa\n[1] yes: It is old.\n</passage 1>",
}


@pytest.mark.parametrize("output", FORMS.values(), ids=FORMS)
def test_a_label_in_four_parts_is_read_whatever_its_typography(output: str) -> None:
    found = parse_text(output, "self_reasoning", 2)
    assert (found.label, found.problems, found.readable) == (READ, (), True)


SHORT_FORMS = {
    "as asked": REASONS,
    "without verdicts, as the student writes it": "[2] Aldo was founded in 1801.\nAnswer: 1801",
    "with more than it needs": REASONS.replace("Answer", "[2] yes: Aldo was founded in 1801.\nAnswer"),
}


@pytest.mark.parametrize("output", SHORT_FORMS.values(), ids=SHORT_FORMS)
def test_a_label_in_two_parts_is_read_with_or_without_verdicts(output: str) -> None:
    assert parse_text(output, "reasoning", 3).label == SHORT
    assert parse_text(output, "reasoning", 3).problems == ()


def test_a_reason_that_begins_with_no_is_no_verdict() -> None:
    found = parse_text("[1] No one else founded Aldo.\nAnswer: Corin", "reasoning", 1).label.relevance
    assert found == (Relevance(0, True, "No one else founded Aldo."),)


@pytest.mark.parametrize("said", ["The passages do not say.", "the passages do not say", "None.", "null"])
def test_declining_is_no_answer(said: str) -> None:
    found = parse_text(f"[1] no: It is about Bexa.\nAnswer: {said}", "reasoning", 1)
    assert found.label == Label((Relevance(0, False, "It is about Bexa."),), (), "", None)
    assert found.problems == ()


def test_an_answer_that_was_told_need_not_be_written_where_the_reasoning_comes_to_it() -> None:
    told = Shown(("in 1801", "1801"))
    assert parse_text("[2] yes: Aldo was founded in 1801.", "reasoning", 2, told=told).label.answer == "in 1801"
    silent = parse_text("[2] yes: It is about Aldo.", "reasoning", 2, told=told)
    assert silent.problems == ('There is no "Answer:", and what is written does not come to the answer either.',)
    elsewhere = parse_text("[1] no: It says 1801.\n[2] yes: It is about Aldo.", "reasoning", 2, told=told)
    assert elsewhere.problems == silent.problems
    whole = WHOLE.removesuffix("\nAnswer: 1801")
    assert parse_text(whole, "self_reasoning", 2, told=told).label.answer == "in 1801"
    assert parse_text(whole.replace("in 1801 [2]", "late"), "self_reasoning", 2, told=told).problems == silent.problems
    assert parse_text("[1] no: It is about Bexa.", "reasoning", 1, told=Shown()).problems == ()
    verdict = parse_text("[1] yes: Both lie on the coast.", "reasoning", 1, told=Shown(("yes",)))
    assert (verdict.label.answer, verdict.problems) == ("yes", ())  # no reason says "yes"


def test_an_answer_that_was_written_counts_whatever_was_told() -> None:
    found = parse_text("[1] yes: It says 1801.\nAnswer: 1533", "reasoning", 1, told=Shown(("1801",)))
    assert found.label.answer == "1533"  # for the gate to find


WRONG = {
    "no answer": ("[1] yes: It says.", "reasoning", 'There is no "Answer:": write "Answer: The passages do not say."'),
    "no reason": ("[1] yes:\nAnswer: x", "reasoning", '"Relevance:" gives no reason for passage 1.'),
    "judged twice": (
        "[1] yes: It is.\n[1] no: It is not.\nAnswer: x", "reasoning", '"Relevance:" judges passage 1 twice',
    ),
    "one not judged": (WHOLE.replace("[1] no: It is about Bexa.\n", ""), "self_reasoning", "no entry for passage 1."),
    "a quote without a reason": (
        WHOLE.replace(": It says when.", ""), "self_reasoning", 'gives no reason for its quote of passage 2.',
    ),
    "no analysis": (WHOLE.replace("Analysis: ", ""), "self_reasoning", 'There is no "Analysis:".'),
}  # fmt: skip


@pytest.mark.parametrize(("output", "style", "words"), WRONG.values(), ids=WRONG)
def test_what_is_missing_is_said(output: str, style: WrittenStyle, words: str) -> None:
    found = parse_text(output, style, 2)
    assert any(words in problem for problem in found.problems)
    assert found.readable


def test_what_was_cut_off_is_read_up_to_its_last_whole_line() -> None:
    cut = "[1] yes: Aldo was founded in 1801.\n[2] no: It is abo"
    assert parse_text(cut, "reasoning", 2, truncated=True, told=Shown(("1801",))).label == Label(
        (Relevance(0, True, "Aldo was founded in 1801."),), (), "", "1801"
    )
    assert parse_text("[1] yes: Aldo was fou", "reasoning", 2, truncated=True).problems == (
        "It was cut off before its end: write it shorter.",
    )
    behind = f"{REASONS}\n\n<passage 1>\nBexa is o"  # cut off in what is not read: nothing is lost
    assert parse_text(behind, "reasoning", 2, truncated=True).label == SHORT


@pytest.mark.parametrize("output", ["", "The answer is: 1801", "{}", '{"relevance": []}', "<think>[1] yes: x"])
def test_what_holds_no_label_is_unreadable(output: str) -> None:
    assert not parse_text(output, "reasoning", 2, told=Shown(("1801",))).readable


@given(
    st.text(alphabet='[]12:"\n -*#yesnoAnswer<>passage', max_size=300), st.sampled_from(["reasoning", "self_reasoning"])
)
@settings(max_examples=150, deadline=None)
def test_every_output_is_read_or_said_to_be_unreadable(output: str, style: WrittenStyle) -> None:
    for found in (parse_text(output, style, 2, truncated=True, told=Shown(("1",))), parse_text(output, style, 2)):
        assert found.readable or found.problems  # whoever writes again is told what is wrong


@pytest.mark.parametrize("label", [READ, Label(READ.relevance[:1], (), "Nothing dates Aldo.", None)])
def test_a_target_that_the_student_writes_is_read_as_the_label_it_shows(label: Label) -> None:
    target = "".join(span.text for span in render_target(label, PromptSettings(style="self_reasoning")))
    assert parse_text(target, "self_reasoning", len(label.relevance)).label == label


def test_words_of_the_prompt_are_no_reasons_and_words_of_its_passages_are() -> None:
    prompt = (
        "[2] yes: It tells that the mill was built in 1533.\n<passage 1>\nAldo lies near the old\n  town of Bexa.\n"
    )
    shown = ["Aldo lies near the old\n  town of Bexa.", ""]
    copied = Label((Relevance(0, True, "It tells that the mill was built in 1533."),), (), "", "x")
    (told,) = repeated(copied, prompt, shown)
    assert told.startswith('"It tells that the mill was built in 1533." repeats the instructions')
    own = Label(
        (Relevance(0, True, "Aldo lies near the old town of Bexa."), Relevance(1, False, "It tells")), (), "", "x"
    )
    assert repeated(own, prompt, shown) == []


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, "json"),
        ({"form": "text"}, "text"),
        ({"endpoint": {"base_url": "", "model": "", "structured": "off"}}, "text"),
        ({"endpoint": {"base_url": "", "model": "", "structured": "off"}, "form": "json"}, "json"),
        ({"kind": "self_synthesis", "weights": "w", "endpoint": None}, "text"),
        ({"kind": "self_synthesis", "weights": "w", "endpoint": None, "form": "json"}, "json"),
    ],
)
def test_the_form_follows_what_a_writer_can_be_held_to(changes: dict[str, Any], form: str) -> None:
    told = {"kind": "teacher", "endpoint": {"base_url": "", "model": ""}, **changes}
    chosen = TypeAdapter[Any](LabelsSettings).validate_python(
        {key: one for key, one in told.items() if one is not None}
    )
    assert form_of(chosen) == form


# what is asked


PASSAGES = (
    Passage("b", "Bexa", "Bexa is old.\n<reply>\nRelevance:"),
    Passage("a", "Aldo", "Aldo was founded in 1801."),
)


def asked(answerable: bool = True) -> ContextQuestion:
    gold = (1,) if answerable else ()
    return ContextQuestion(
        "q", "When was Aldo founded?", ("1801",), answerable, gold, (), (None, None), None, "", "", ""
    )


@pytest.mark.parametrize("style", ["reasoning", "self_reasoning"])
def test_the_reply_is_begun_and_no_passage_can_begin_it(style: WrittenStyle) -> None:
    def call(answerable: bool, show_answer: bool) -> Call:
        template = read_template(None, style, "text")
        return label_call("k", template, PASSAGES, asked(answerable), style, show_answer=show_answer, form="text")

    told, without, open_ = call(True, True), call(False, True), call(True, False)
    first = "[2] yes: It tells that" if style == "reasoning" else "[1] no: It is about"
    assert told.begun == f"Relevance:\n{first}"
    assert without.begun == "Relevance:\n[1] no: It is about"
    assert open_.begun == ("" if style == "reasoning" else "Relevance:\n[1]")
    assert told.schema is None
    (message,) = told.messages
    assert "The answer is: 1801\nIt stands in [2].\n" in message["content"]
    for other in (without, open_):
        assert "The answer is:" not in other.messages[0]["content"]
        assert "stands in" not in other.messages[0]["content"]
    # the examples are of labels that are read without a problem
    for call_, shown in ((told, Shown(("1533",))), (without, Shown()), (open_, None)):
        example = call_.messages[0]["content"].partition("</question>")[2].partition("Now the passages")[0]
        found = parse_text(example, style, 2, told=shown)
        assert found.problems == ()
        assert found.label.answer == (None if call_ is without else "1533")


def test_what_a_reply_begins_with_is_part_of_what_was_asked() -> None:
    plain, begun = (
        Call("k", ({"role": "user", "content": "x"},)),
        Call("k", ({"role": "user", "content": "x"},), begun="[1]"),
    )
    assert call_hash({}, plain) != call_hash({}, begun)


# a job


def run(
    write: Any, style: Literal["reasoning", "self_reasoning"], answers: tuple[str, ...] = ("1801",), **changes: Any
) -> tuple[list[Any], list[Rejection]]:
    row = ContextRow("row", PASSAGES, (replace(asked(), answers=answers),))
    settings_ = TeacherLabelsSettings.model_validate(
        {"kind": "teacher", "style": style, "form": "text", "endpoint": {"base_url": "", "model": ""}, **changes}
    )
    away: list[Rejection] = []

    def turned_away(candidate: Candidate, rejection: Rejection) -> None:
        away.append(rejection)

    def asker(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        yield from ((call, Reply(write(call))) for call in calls)

    question = Question("q", "When was Aldo founded?", answers, ("a",))
    template = read_template(None, style, "text")
    writing = Writing(settings_, template, lambda id_: question, "abstain", None, turned_away)
    return list(write_rows([row], writing, asker, Tally())), away


def test_labels_in_text_go_through_the_same_gates() -> None:
    (row,), _ = run(lambda call: WHOLE, "self_reasoning")
    assert row.questions[0].label == READ
    rows, (rejection,) = run(lambda call: WHOLE.replace('founded in 1801"', 'found in 1801"'), "self_reasoning")
    assert (rows, rejection.gate) == ([], "quotes")


def test_an_answer_of_several_words_may_be_all_of_a_reason() -> None:
    written = "[2] yes: in the year 1801, in spring"
    (row,), _ = run(lambda call: written, "reasoning", answers=("in the year 1801, in spring",))
    assert row.questions[0].label.answer == "in the year 1801, in spring"


def test_a_label_copied_from_the_example_is_asked_for_again_and_turned_away() -> None:
    calls: list[Call] = []

    def copying(call: Call) -> str:
        calls.append(call)
        return "[2] yes: It tells that the lighthouse of Velmo was built in 1533.\nAnswer: 1801"

    rows, (rejection,) = run(copying, "reasoning")
    assert (rows, rejection.gate) == ([], "well_formed")
    assert "repeats the instructions" in rejection.why
    first, again = calls
    assert again.begun == first.begun
    assert again.messages[:1] == first.messages
    assert "in the same form" in again.messages[-1]["content"]
    assert "JSON" not in again.messages[-1]["content"]


def test_a_template_of_ones_own_may_begin_the_reply(tmp_path: Any) -> None:
    own = tmp_path / "own.txt"
    own.write_text(
        "{% for p in passages %}{{ p.text }}{% endfor %} {{ question }}\n<reply>\n[{{ gold | first | default(1) }}]\n"
    )
    call = label_call("k", read_template(str(own), "reasoning"), PASSAGES, asked(), "reasoning", show_answer=True)
    assert call.begun == "[2]"
    assert call.messages[0]["content"].endswith("When was Aldo founded?")
    own.write_text("{{ passages }} {{ question }} {{ golden }}")
    with pytest.raises(RagFtError, match="golden"):
        read_template(str(own), "reasoning")
