"""What a teacher is asked: the messages made of a template, the schema of the answer. Asks nobody.

A template is a text file in Jinja2 with the variables of `VARIABLES`; what comes from outside is made harmless in it
(templates.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_builders.records import ContextQuestion, Passage
from data_builders.templates import Template, harmless, numbered, template_of

WrittenStyle = Literal["reasoning", "self_reasoning"]
VARIABLES = ("question", "passages", "answers", "answerable", "style", "schema")
"""question: text. passages: number (from 1), title, text each. answers: accepted answers, the one to write first; none
where they are not shown or nothing shown holds them. answerable: True, False, or None where the writer is not told.
style: that of the recipe. schema: JSON Schema of the answer, as text."""
_FOLDER = Path(__file__).parent / "templates"
_SETTING = "data.labels.template"


def read_template(file: str | None, style: WrittenStyle) -> Template:
    """Read a template and try it out; None takes that of the style.

    Raises:
        RagFtError: there is no such file, it is no text, or it cannot be filled in.
    """
    template = template_of(file, _FOLDER / f"{style}.txt", _SETTING)
    _try_out(template, style)
    return template


def _try_out(template: Template, style: WrittenStyle) -> None:
    """Raise what a template would stumble over after the first calls were paid for."""
    template.require(VARIABLES, ("question", "passages"))
    passages = [Passage("", "A title", "A text."), Passage("", "", "Another.")]
    for answers, answerable in ((("an answer", "another"), True), ((), False), ((), None)):
        _render(template, _values("A question?", passages, style), answers, answerable)


def label_messages(
    template: Template, passages: Sequence[Passage], asked: ContextQuestion, style: WrittenStyle, *, show_answer: bool
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation that asks for the label of one question.

    Args:
        template: of the recipe.
        passages: the context as the student sees it, in that order; numbered from 1.
        asked: the question.
        style: of the label.
        show_answer: tell the accepted answers, or that nothing shown answers the question.
    """
    answers = asked.answers if show_answer and asked.answerable else ()
    values = _values(asked.question, passages, style)
    text = _render(template, values, answers, asked.answerable if show_answer else None)
    return ({"role": "user", "content": text},)


def repair_messages(
    messages: Sequence[Mapping[str, str]], output: str, problems: Sequence[str]
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation with the output that could not be used, and what was wrong with it."""
    template = template_of(None, _FOLDER / "repair.txt", _SETTING)
    told = template.render(problems=list(map(harmless, problems)))
    return (*messages, {"role": "assistant", "content": harmless(output)}, {"role": "user", "content": told})


def label_schema(style: WrittenStyle) -> dict[str, Any]:
    """Return the JSON Schema of a label in the form that servers hold models to: all keys required, no others."""
    number, text = {"type": "integer"}, {"type": "string"}
    judgement = _object(passage=number, relevant={"type": "boolean"}, reason=text)
    answer = {"type": ["string", "null"]}
    if style == "reasoning":
        return _object(relevance=_list(judgement), answer=answer)
    quote = _object(passage=number, quote=text, reason=text)
    return _object(relevance=_list(judgement), evidence=_list(quote), analysis=text, answer=answer)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _values(question: str, passages: Sequence[Passage], style: WrittenStyle) -> dict[str, Any]:
    schema = json.dumps(label_schema(style))
    return {
        "question": harmless(question.strip()),
        "passages": numbered(passages),
        "style": style,
        "schema": schema,
    }


def _render(template: Template, values: dict[str, Any], answers: Sequence[str], answerable: bool | None) -> str:
    return template.render(**values, answers=[harmless(answer) for answer in answers], answerable=answerable)
