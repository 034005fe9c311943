"""What the teacher is asked: the template, the schema of its answer. Reads no answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.records import Passage
from data_builders.templates import Template, harmless, numbered, template_of

SHIPPED = Path(__file__).parent / "templates" / "questions.txt"
"""The template that comes with rag-ft, where one of your own can start."""
VARIABLES = ("passages", "count", "link")
"""passages: number (from 1), title, text of each, one or two. count: questions wanted. link: the name that two passages
share, empty for one."""


def read_template(file: str | None) -> Template:
    """Read a template and try it out on one passage and on two; None takes ours.

    Raises:
        RagFtError: there is no such file, it is no text, or it cannot be filled in.
    """
    template = template_of(file, SHIPPED, "data.questions.template")
    template.require(VARIABLES, ("passages",))
    tried = Passage("", "A title", "A text."), Passage("", "", "Another text.")
    question_messages(template, tried[:1], 2)
    question_messages(template, tried, 2, "A title")
    return template


def question_messages(
    template: Template, passages: Sequence[Passage], count: int, link: str = ""
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation about one passage, or about two that `link` joins.

    Raises:
        RagFtError: the template does what a template may not.
    """
    text = template.render(passages=numbered(passages), count=count, link=harmless(link))
    return ({"role": "user", "content": text},)


def answer_schema(passages: int) -> Mapping[str, Any]:
    """Return the JSON Schema of an answer about one passage or two: all keys required, no others."""
    names = ("question", "answer", *quote_names(passages))
    item = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": item}},
        "required": ["questions"],
        "additionalProperties": False,
    }


def quote_names(passages: int) -> tuple[str, ...]:
    """Return what an answer calls the quotes, in the order of the passages."""
    return ("quote",) if passages == 1 else ("first_quote", "second_quote")
