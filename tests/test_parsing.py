"""Outputs read back: answers, abstentions, judgements and quotes, as written and as generators write them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from test_prompting import LABEL

from data_builders.records import Evidence, Label, Relevance
from rag_ft.prompting.parse import Judgement, Parsed, Quote, one_line, parse_output
from rag_ft.prompting.render import render_target
from rag_ft.prompting.settings import PromptSettings

STYLES = ("answer", "reasoning", "self_reasoning")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 ,.'()-]{0,30}[A-Za-z0-9.]\Z")
INDEX = st.integers(0, 20)
LABELS = st.builds(
    Label,
    relevance=st.lists(st.builds(Relevance, INDEX, st.booleans(), WORDS), max_size=4).map(tuple),
    evidence=st.lists(st.builds(Evidence, INDEX, WORDS, WORDS), max_size=3).map(tuple),
    analysis=WORDS,
    answer=st.none() | WORDS,
)


@given(label=LABELS, style=st.sampled_from(STYLES))
@QUICK
def test_a_rendered_label_is_read_back(label: Label, style: Any) -> None:
    chosen = PromptSettings(style=style)
    assume(label.answer is None or not parse_output(label.answer, PromptSettings()).abstained)
    parsed = parse_output("".join(span.text for span in render_target(label, chosen)), chosen)
    expected = Parsed(answer=label.answer, abstained=label.answer is None, well_formed=True)
    if style == "reasoning":
        shown = tuple(Judgement(i.passage + 1, True, i.reason) for i in label.relevance if i.relevant)
        expected = replace(expected, relevance=shown)
    if style == "self_reasoning":
        expected = replace(
            expected,
            relevance=tuple(Judgement(i.passage + 1, i.relevant, i.reason) for i in label.relevance),
            evidence=tuple(Quote(i.passage + 1, i.quote, i.reason) for i in label.evidence),
            analysis=label.analysis,
        )
    assert parsed == expected


# Whatever a source or a teacher may write; what does not survive is neutralised or refused before.
ROUGH = st.lists(
    st.sampled_from(
        [
            "1801",
            "Aldo ",
            '"',
            '": ',
            "\n",
            "\r\n",
            "[2] ",
            "yes: ",
            ": ",
            "- ",
            "Answer: ",
            "Analysis:",
            "\u2028",
            "*",
            ".",
        ]
    ),
    max_size=7,
).map("".join)
ROUGH_LABELS = st.builds(
    Label,
    relevance=st.lists(st.builds(Relevance, INDEX, st.booleans(), ROUGH), max_size=3).map(tuple),
    evidence=st.lists(st.builds(Evidence, INDEX, ROUGH, ROUGH), max_size=3).map(tuple),
    analysis=ROUGH,
    answer=ROUGH,
)


def straight(text: str) -> str:
    return one_line(text).replace("\u201d", '"')


@given(label=ROUGH_LABELS, style=st.sampled_from(STYLES[1:]))
@example(label=replace(LABEL, answer="two\nlines: of", analysis="Then\nAnswer: 1802"), style="reasoning")
@example(
    label=replace(LABEL, evidence=(Evidence(0, 'He said "no": and\n[2] "left" at 5": x', 'a "b": c'),)),
    style="self_reasoning",
)
@settings(max_examples=300, deadline=None)
def test_quotes_and_answers_with_line_breaks_and_quotation_marks_are_read_back(label: Label, style: Any) -> None:
    chosen = PromptSettings(style=style)
    parsed = parse_output("".join(span.text for span in render_target(label, chosen)), chosen)
    assert (parsed.answer or "") == one_line(label.answer or "")
    if style == "reasoning":
        kept = [(i.passage + 1, one_line(i.reason)) for i in label.relevance if i.relevant]
        assert [(i.passage, i.reason) for i in parsed.relevance] == kept
        return
    assert [(i.passage, i.relevant, i.reason) for i in parsed.relevance] == [
        (i.passage + 1, i.relevant, one_line(i.reason)) for i in label.relevance
    ]
    assert [(i.passage, straight(i.quote), i.reason) for i in parsed.evidence] == [
        (i.passage + 1, straight(i.quote), one_line(i.reason)) for i in label.evidence
    ]
    assert parsed.analysis == one_line(label.analysis)


@pytest.mark.parametrize(
    ("item", "quote", "reason"),
    [
        ('"founded in 1801": It says when.', "founded in 1801", "It says when."),
        ('"founded in 1801"', "founded in 1801", ""),
        ('"He said "no": and left": why', 'He said "no": and left', "why"),
        ('"founded": as in "the year": 1801', "founded", 'as in "the year": 1801'),
        ("\u201cfounded in 1801\u201d: why", "founded in 1801", "why"),
        ('"founded in 1801" - why', "founded in 1801", "why"),
        ('"founded in 1801" which says when', "founded in 1801", "which says when"),
        ('"founded\n  in 1801": why', "founded in 1801", "why"),
    ],
)
def test_quotes_are_read_as_generators_write_them(item: str, quote: str, reason: str) -> None:
    output = f"Relevance:\n[3] yes: x\nEvidence:\n[3] {item}\nAnalysis: x\nAnswer: 1801"
    assert parse_output(output, PromptSettings(style="self_reasoning")).evidence == (Quote(3, quote, reason),)


def test_a_quote_that_is_cut_off_is_no_quote() -> None:
    output = 'Relevance:\n[1] yes: x\nEvidence:\n[1] "founded in 18'
    assert parse_output(output, PromptSettings(style="self_reasoning")).evidence == ()


FREELY_FORMATTED = """**Relevance:**
- [1]: **Yes**: it dates Aldo
- [2, 3] no: others
## Evidence
[1] \u201cfounded in
1801\u201d: it says when
**Analysis**: Aldo was
founded then [1].
**Final answer:** 1801
Relevance: and on it goes"""


def test_headings_bullets_and_lists_of_numbers_are_forgiven() -> None:
    parsed = parse_output(FREELY_FORMATTED, PromptSettings(style="self_reasoning"))
    assert parsed == Parsed(
        answer="1801",
        abstained=False,
        well_formed=True,
        relevance=(
            Judgement(1, True, "it dates Aldo"),
            Judgement(2, False, "others"),
            Judgement(3, False, "others"),
        ),
        evidence=(Quote(1, "founded in 1801", "it says when"),),
        analysis="Aldo was\nfounded then [1].",
    )


@pytest.mark.parametrize(
    ("output", "well_formed"),
    [
        ("Relevance:\nEvidence:\nnone\nAnalysis: x\nAnswer: 1", True),
        ("Relevance:\nAnalysis: x\nAnswer: 1", False),
        ("Answer: 1\nRelevance:\nEvidence:\nAnalysis: x", False),
        ("Evidence:\nRelevance:\nAnalysis: x\nAnswer: 1", False),
        ("Relevance:\nEvidence:\nAnalysis: x\nAnswer:", False),
    ],
)
def test_self_reasoning_is_well_formed_with_all_parts_in_order(output: str, well_formed: bool) -> None:
    assert parse_output(output, PromptSettings(style="self_reasoning")).well_formed is well_formed


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<think>\nPerhaps 1802?\nAnswer: 1802\n</think>\n\n1801", "1801"),
        ("Perhaps 1802?</think>1801", "1801"),
        ("<think>\nPerhaps 1802? Let me", None),
    ],
)
def test_thoughts_are_no_answer(output: str, answer: str | None) -> None:
    parsed = parse_output(output, PromptSettings())
    assert (parsed.answer, parsed.well_formed) == (answer, answer is not None)


@pytest.mark.parametrize(
    ("output", "abstained"),
    [
        ("The passages do not say. The passages do not say. The passages do not say.", True),
        ("The passages do not say. The passages do not say. But it was Berin.", False),
        ("The passages do not say. Paris.", False),
        ("The passages do not say.", True),
        ("the passages do not say", True),
        ('"The passages do not say."', True),
        ("The passages do not say who.", True),
        ("The passages do not say much, but it was Berin", False),
        ("Berin. The passages do not say.", False),
        ("The passages do", False),
        ("The passages", False),
        ("1801", False),
    ],
)
def test_abstention_is_the_sentence_at_the_start(output: str, abstained: bool) -> None:
    parsed = parse_output(output, PromptSettings())
    assert parsed.abstained is abstained
    assert parsed.answer == (None if abstained else output)


@pytest.mark.parametrize(
    ("output", "answer", "well_formed"),
    [
        ("", None, False),
        ("   \n ", None, False),
        ("Answer:", None, False),
        ("answer: 1801", "1801", True),
        ("[1] It dates Aldo.\nAnswer: 1801\nAnd more", "1801", True),
        ("[1] It dates Aldo. Answer: 1801", "[1] It dates Aldo. Answer: 1801", False),
        ("[1] It dates Aldo.\nIt was 1801.", "It was 1801.", False),
        ("Answer:\n1801", "1801", True),
        ("[9999999999999999999999] x\nAnswer: 1801", "1801", True),
        ("Answer: 1801\nAnswer: 1802", "1801", True),
    ],
)
def test_malformed_outputs_are_marked(output: str, answer: str | None, well_formed: bool) -> None:
    parsed = parse_output(output, PromptSettings(style="reasoning"))
    assert (parsed.answer, parsed.well_formed) == (answer, well_formed)


@example(output="".join(f"[{'9' * 5000}] {word}: a\n" for word in ("yes", '"quote"')))
@given(output=st.text() | st.lists(st.sampled_from(['[1] "', '": ', "Answer:", "yes", "\n", "[", "²]"])).map("".join))
@QUICK
def test_no_output_makes_the_parser_raise(output: str) -> None:
    for style in STYLES:
        parsed = parse_output(output, PromptSettings.model_validate({"style": style}))
        assert not (parsed.abstained and parsed.answer)
