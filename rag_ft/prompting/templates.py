"""The words of our prompts and targets. Changing any of them changes the prompt hash."""

from __future__ import annotations

from rag_ft.prompting.settings import Style

TEMPLATE_VERSION = 2

INSTRUCTIONS: dict[Style, str] = {
    "answer": (
        "Answer the question from the numbered passages. Several of them look related but are about something else; "
        "go by the passages that are about exactly what is asked. Reply with the answer alone, in as few words as "
        "possible. When no passage holds the answer, reply: {abstention}"
    ),
    "reasoning": (
        "Answer the question from the numbered passages. Several of them look related but are about something else. "
        "Write first which passages bear on the question, one line for each: its number in brackets, then why. Then "
        'write a last line that begins with "Answer:" and holds the answer alone. When no passage holds the '
        "answer, that line reads: Answer: {abstention}"
    ),
    "self_reasoning": (
        "Answer the question from the numbered passages. Several of them look related but are about something else. "
        'Work in four parts. "Relevance:" judges each passage on a line of its own, as in [1] no: the reason. '
        '"Evidence:" quotes word for word what you rely on, as in [2] "the words": why they help. "Analysis:" goes '
        'from the evidence to the answer. "Answer:" holds the answer alone. When no passage holds the '
        "answer, it reads: Answer: {abstention}"
    ),
}

CLOSED_BOOK = "Answer the question. Reply with the answer alone, in as few words as possible."

NO_PASSAGE_RELEVANT = "No passage bears on the question."
NO_EVIDENCE = "none"


def passage_text(number: int, title: str, text: str, show_title: bool) -> str:
    """Render one passage, its separator at the end.

    One newline, because tokenizers agree on it: pre-tokenisers of the GPT-2 family split two newlines inside a
    text but not at its end, and those of the cl100k family join them with a full stop in front.
    """
    lines = [title, text] if show_title else [text]
    shown = "\n".join(filter(None, lines))  # an empty line would end a passage in two newlines
    return f"[{number}] {shown}\n" if shown else f"[{number}]\n"


def question_text(question: str) -> str:
    """Render the question where it is asked."""
    return f"Question: {question}"


def question_ahead_text(question: str) -> str:
    """Render the question where it stands ahead of the passages."""
    return f"Question: {question}\n"
