"""What teachers write is read as tolerantly as leaves no doubt, and what is wrong with it is said."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.labels.parsing import Parsed, parse_label
from data_builders.records import Evidence, Label, Relevance

WHOLE: dict[str, Any] = {
    "relevance": [
        {"passage": 1, "relevant": False, "reason": "It is about Bexa."},
        {"passage": 2, "relevant": True, "reason": "It dates Aldo."},
    ],
    "evidence": [{"passage": 2, "quote": "founded in 1801", "reason": "It says when."}],
    "analysis": "Aldo was founded in 1801 [2].",
    "answer": "1801",
}
READ = Label(
    (Relevance(0, False, "It is about Bexa."), Relevance(1, True, "It dates Aldo.")),
    (Evidence(1, "founded in 1801", "It says when."),),
    "Aldo was founded in 1801 [2].",
    "1801",
)
TEXT = json.dumps(WHOLE)


def read(output: str, passages: int = 2) -> Parsed:
    return parse_label(output, "self_reasoning", passages)


def changed(**parts: Any) -> str:
    return json.dumps({**WHOLE, **parts})


FORMS = {
    "as asked": TEXT,
    "fenced": f"```json\n{TEXT}\n```",
    "in prose with braces": f"I'll write {{an object}}, it's this one:\n{TEXT}\nIs {{that}} what you'd like?",
    "behind thoughts": f'<think>Maybe {{"answer": "1900", "relevance": []}}?</think>{TEXT}',
    "behind thoughts opened by the template": f'Maybe {{"answer": "1900"}}?</think>\n\n{TEXT}',
    "wrapped": f'{{"label": {TEXT}}}',
    "in a list": f"[{TEXT}]",
    "drafted before": f'{{"answer": "1900"}} No, wait. {TEXT}',
    "further keys": changed(confidence=0.9, notes=["x"]),
    "keys in capitals": TEXT.replace('"relevance"', '"Relevance"').replace('"answer"', '"ANSWER"'),
    "numbers as strings": TEXT.replace('"passage": 2', '"passage": "[2]"').replace('"passage": 1', '"passage": "1"'),
    "numbers as floats": TEXT.replace('"passage": 2', '"passage": 2.0'),
    "answer as a number": TEXT.replace('"answer": "1801"', '"answer": 1801'),
    "answer in a list": TEXT.replace('"answer": "1801"', '"answer": ["1801"]'),
    "verdicts in words": TEXT.replace("false", '"No."').replace("true", '"yes"'),
    "trailing commas": TEXT.replace("}]", "},]").replace('"1801"}', '"1801",\n}'),
    "python": repr(WHOLE),
    "judged in another order": changed(relevance=WHOLE["relevance"][::-1]),
    "judged twice alike": changed(relevance=[*WHOLE["relevance"], WHOLE["relevance"][0]]),
    "numbers as keys": changed(
        relevance={
            str(one["passage"]): {"relevant": one["relevant"], "reason": one["reason"]} for one in WHOLE["relevance"]
        }
    ),
}


@pytest.mark.parametrize("output", FORMS.values(), ids=FORMS)
def test_a_label_is_read_in_every_form_that_leaves_no_doubt(output: str) -> None:
    assert read(output) == Parsed(READ)


def test_apostrophes_and_quotation_marks_survive_single_quotes() -> None:
    found = read("{'answer': 'Berin's \"red\" town', 'relevance': [], 'evidence': [], 'analysis': 'It\\'s so.'}", 0)
    assert found == Parsed(Label((), (), "It's so.", 'Berin\'s "red" town'))


def test_halves_of_characters_never_reach_a_file() -> None:
    found = read(TEXT.replace("Aldo was", "Aldo \\ud83d was")).label.analysis
    assert found == "Aldo ? was founded in 1801 [2]."


def test_line_ends_inside_strings_are_read() -> None:
    assert read(TEXT.replace("Aldo was", "Aldo\nwas")).label.analysis == "Aldo\nwas founded in 1801 [2]."


@pytest.mark.parametrize("answer", ["null", '""', '"null"', '"None"', '" n/a "'])
def test_no_answer_is_an_abstention_and_needs_no_evidence(answer: str) -> None:
    judged = '{"passage": 1, "relevant": false, "reason": "It is old."}'
    output = f'{{"relevance": [{judged}], "analysis": "Open.", "answer": {answer}}}'
    assert read(output, 1) == Parsed(Label((Relevance(0, False, "It is old."),), (), "Open.", None))


def test_in_reasoning_style_a_passage_that_is_named_is_relevant_and_others_may_be_left_out() -> None:
    output = '{"relevance": [{"passage": 3, "reason": "It says so."}], "answer": "x"}'
    assert parse_label(output, "reasoning", 5) == Parsed(Label((Relevance(2, True, "It says so."),), (), "", "x"))


def test_numbers_of_no_passage_are_read_as_they_stand() -> None:
    output = changed(
        evidence=[{"passage": 7, "quote": "a", "reason": "b"}, {"passage": 0, "quote": "c", "reason": "d"}]
    )
    assert [item.passage for item in read(output).label.evidence] == [6, -1]
    assert read(output).problems == ()


PROBLEMS = {
    "nothing": ("I cannot tell.", "no complete JSON object"),
    "thoughts that never end": (f"<think>{TEXT}", "no complete JSON object"),
    "cut in the middle": (TEXT[:-20], "no complete JSON object"),
    "an ambiguous quotation mark": (str(WHOLE).replace("Aldo was", "Aldo', was"), "no complete JSON object"),
    "no answer": (json.dumps({k: v for k, v in WHOLE.items() if k != "answer"}), 'There is no "answer"'),
    "no analysis": (changed(analysis=" "), 'There is no "analysis"'),
    "no relevance": (changed(relevance=None), '"relevance" is no list'),
    "entries that are no objects": (changed(relevance=["yes"]), 'An entry of "relevance" is no object'),
    "a passage passed over": (changed(relevance=WHOLE["relevance"][:1]), "no entry for passage 2"),
    "no verdict": (TEXT.replace("true", '"perhaps"'), "does not say true or false of passage 2"),
    "no reason": (TEXT.replace("It dates Aldo.", ""), "gives no reason for passage 2"),
    "two verdicts": (
        changed(relevance=[*WHOLE["relevance"], {"passage": 2, "relevant": False, "reason": "No."}]),
        "judges passage 2 twice, and differently",
    ),
    "no number": (TEXT.replace('"passage": 2', '"passage": "first"'), "has no passage number"),
    "two numbers": (TEXT.replace('"passage": 2', '"passage": "1 and 2"'), "has no passage number"),
    "no quote": (TEXT.replace("founded in 1801", "", 1), "quotes nothing of passage 2"),
    "evidence missing": (json.dumps({k: v for k, v in WHOLE.items() if k != "evidence"}), 'There is no "evidence"'),
    "an answer of parts": (changed(answer={"year": 1801}), "neither a text nor null"),
}


@pytest.mark.parametrize(("output", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_read_is_named(output: str, problem: str) -> None:
    assert problem in " ".join(read(output).problems)


def test_an_output_cut_off_is_asked_for_shorter() -> None:
    found = parse_label(TEXT[:-20], "self_reasoning", 2, truncated=True)
    assert found.problems == ("It was cut off before its end: write it shorter.",)
    assert not found.readable


def test_a_whole_label_is_taken_though_what_follows_it_was_cut_off() -> None:
    assert parse_label(f"{TEXT} I hope this", "self_reasoning", 2, truncated=True) == Parsed(READ)


@pytest.mark.parametrize(
    "hostile",
    [
        "{" * 100_000,
        '{"a":' * 50_000,
        "[" * 100_000,
        '{"answer": ' + "[" * 90_000,
        "'" * 9999,
        "{" + "'" * 100_000,
        "{" + "' " * 50_000,
        "{" + '"\\' * 50_000,
    ],
)
def test_hostile_outputs_are_unreadable_and_soon_done(hostile: str) -> None:
    def too_long(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    try:
        assert not read(hostile).readable
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


_WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() != ""
)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_output_raises(output: str) -> None:
    read(output)


@settings(deadline=None)
@given(reason=_WORDS, analysis=_WORDS, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_any_words_are_read_back(reason: str, analysis: str, indent: int | None, ascii_only: bool) -> None:
    told: dict[str, Any] = {
        "relevance": [{"passage": 1, "relevant": True, "reason": reason}],
        "evidence": [],
        "analysis": analysis.replace("</think>", ""),
        "answer": "x",
    }
    if not told["analysis"].strip() or "</think>" in reason:
        return
    output = f"Here it is:\n```json\n{json.dumps(told, indent=indent, ensure_ascii=ascii_only)}\n```"
    found = read(output, 1)
    assert found.problems == ()
    assert (found.label.relevance[0].reason, found.label.analysis) == (reason.strip(), told["analysis"].strip())


def test_the_examples_of_the_docs_page_are_labels_that_are_read_whole() -> None:
    page = (Path(__file__).parent.parent / "docs/labels.md").read_text(encoding="utf-8")
    whole, named, declined = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert parse_label(whole, "self_reasoning", 2).problems == ()
    assert parse_label(named, "reasoning", 2).problems == ()
    assert parse_label(declined, "self_reasoning", 1).problems == ()
    assert [parse_label(one, "reasoning", 2).label.answer for one in (whole, named, declined)] == ["1533", "1533", None]
