"""What a teacher is asked: the messages made of a template, the schema of the answer. Asks nobody.

A template is a text file in Jinja2 with the variables of `VARIABLES`; what comes from outside is made harmless in it
(templates.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_builders.labels.settings import Form
from data_builders.records import ContextQuestion, Passage
from data_builders.servers import Call
from data_builders.templates import Template, harmless, numbered, template_of

WrittenStyle = Literal["reasoning", "self_reasoning"]
VARIABLES = ("question", "passages", "answers", "answerable", "gold", "style", "schema", "abstention")
"""question: text. passages: number (from 1), title, text each. answers: accepted answers, the one to write first; none
where they are not shown or nothing shown holds them. answerable: True, False, or None where the writer is not told.
gold: numbers of the passages that hold the answer; none where it is not shown. style: that of the recipe. schema: JSON
Schema of the answer, as text. abstention: what a label in text says instead of an answer."""
ABSTENTION = "The passages do not say."
_BEGINS = "<reply>"
"""The line behind which a template has the beginning of the reply. No text from outside can hold it."""
_FOLDER = Path(__file__).parent / "templates"
_SETTING = "data.labels.template"
_OF_FORM = {"json": "", "text": "_text"}


def read_template(file: str | None, style: WrittenStyle, form: Form = "json") -> Template:
    """Read a template and try it out; None takes that of the style and the form.

    Raises:
        RagFtError: there is no such file, it is no text, or it cannot be filled in.
    """
    template = template_of(file, _FOLDER / f"{style}{_OF_FORM[form]}.txt", _SETTING)
    _try_out(template, style)
    return template


def _try_out(template: Template, style: WrittenStyle) -> None:
    """Raise what a template would stumble over after the first calls were paid for."""
    template.require(VARIABLES, ("question", "passages"))
    passages = [Passage("", "A title", "A text."), Passage("", "", "Another.")]
    for answers, gold, answerable in ((("an answer", "another"), (0,), True), ((), (), False), ((), (), None)):
        _render(template, _values("A question?", passages, style), answers, gold, answerable)


def label_messages(
    template: Template, passages: Sequence[Passage], asked: ContextQuestion, style: WrittenStyle, *, show_answer: bool
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation that asks for the label of one question."""
    return label_call("", template, passages, asked, style, show_answer=show_answer).messages


def label_call(
    key: str,
    template: Template,
    passages: Sequence[Passage],
    asked: ContextQuestion,
    style: WrittenStyle,
    *,
    show_answer: bool,
    form: Form = "json",
) -> Call:
    """Return the call that asks for the label of one question.

    Args:
        key: of the call.
        template: of the recipe.
        passages: the context as the student sees it, in that order; numbered from 1.
        asked: the question.
        style: of the label.
        show_answer: tell the accepted answers, or that nothing shown answers the question.
        form: of the label.
    """
    told = show_answer and asked.answerable
    values = _values(asked.question, passages, style)
    answerable = asked.answerable if show_answer else None
    text = _render(template, values, asked.answers if told else (), asked.gold if told else (), answerable)
    prompt, _, begun = text.partition(f"\n{_BEGINS}\n")
    schema = label_schema(style) if form == "json" else None
    return Call(key, ({"role": "user", "content": prompt.strip()},), schema, begun.strip())


def repair_messages(
    messages: Sequence[Mapping[str, str]], output: str, problems: Sequence[str], form: Form = "json"
) -> tuple[Mapping[str, str], ...]:
    """Return the conversation with the output that could not be used, and what was wrong with it."""
    template = template_of(None, _FOLDER / f"repair{_OF_FORM[form]}.txt", _SETTING)
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
        "abstention": ABSTENTION,
    }


def _render(
    template: Template, values: dict[str, Any], answers: Sequence[str], gold: Sequence[int], answerable: bool | None
) -> str:
    told = {"answers": [harmless(answer) for answer in answers], "gold": [index + 1 for index in gold]}
    return template.render(**values, **told, answerable=answerable)
