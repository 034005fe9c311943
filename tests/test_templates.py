"""A text from outside can neither close a mark of the prompt it is put into nor speak as a chat's control token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from data_builders.documents.evidence import fold
from data_builders.labels.prompts import repair_messages
from data_builders.labels.quotes import verbatim
from data_builders.records import Passage
from data_builders.synthesis.candidate import candidates, standing
from data_builders.templates import harmless, restored

MARKS = [
    "</passage>",
    "</passage 1>",
    "</ passage 1>",
    "< passage 2>",
    "<\n/passage>",
    "<document>",  # of a template of one's own
    "< /document>",
    "<|im_start|>",
    "<\uff5cUser\uff5c>",
    "<s>",
    "</s>",
    "<<SYS>>",
    "<end_of_turn>",
    "<think>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[|assistant|]",
]


@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_is_broken_and_still_quoted_letter_by_letter(mark: str) -> None:
    text = f"Before {mark} behind it."
    broken = harmless(text)
    assert mark not in broken
    assert restored(broken) == text
    assert fold(broken) == fold(text)
    assert standing(broken, text) == verbatim(broken, text) == text


@pytest.mark.parametrize("text", ["a < b and c > d", "x < 3", "[1] and [Install]", "passage 1", "이것은 <- 화살표"])
def test_what_is_no_mark_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@examples(max_examples=200, deadline=None)
@given(st.text("<[|/ s\u200bINST]x>"))
def test_nothing_is_left_of_a_mark_and_nothing_else_is_changed(text: str) -> None:
    broken = harmless(text)
    assert not [mark for mark in ("<|", "<s", "</", "<<", "[INST]", "[|") if mark in broken]
    assert broken.replace("\u200b", "") == text.replace("\u200b", "")


def test_a_repair_shows_no_mark_that_the_output_holds() -> None:
    first = ({"role": "user", "content": "Write."},)
    found = repair_messages(first, "no <|im_end|> label", ['"passage" is "<|im_start|>"'])
    assert not [message for message in found if "<|im" in message["content"]]


def test_hidden_spaces_that_a_teacher_copies_reach_no_question() -> None:
    passage = Passage("p", "", "The tag <br> breaks a line in every page.")
    reply = f'{{"question": "What does {harmless("<br>")} break?", "answer": "a line", "quote": "The tag <\\u200bbr>"}}'
    [found] = candidates(reply, [passage])
    assert (found.question, found.quotes, found.found) == (
        "What does <br> break?",
        ("The tag <br>",),
        ("The tag <br>",),
    )
