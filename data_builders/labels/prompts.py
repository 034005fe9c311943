"""What a teacher is asked: templates, the messages made of them, the schema of the answer. Asks nobody.

A template is a text file in Jinja2 with the variables of `VARIABLES`. Passages, question and answers come from outside:
they cannot close the marks that a template of ours puts around them, nor speak as a chat's control tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from data_builders.errors import RagFtError
from data_builders.records import ContextQuestion, Passage

WrittenStyle = Literal["reasoning", "self_reasoning"]
VARIABLES = ("question", "passages", "answers", "answerable", "style", "schema")
"""question: text. passages: number (from 1), title, text each. answers: accepted answers, the one to write first; none
where they are not shown or nothing shown holds them. answerable: True, False, or None where the writer is not told.
style: that of the recipe. schema: JSON Schema of the answer, as text."""
_FOLDER = Path(__file__).parent / "templates"
# What begins one of our own marks, or a control token of a common chat template.
_OPENING = re.compile(
    r"<(?=\s*/?\s*(?:passage|question|answer)s?\b|[|\uff5c]|</?SYS>>"
    r"|/?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn|tool_call|tool_response)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Template:
    """A prompt's text with its variables; `file` is what a message about it calls it."""

    source: str
    file: str

    @property
    def sha256(self) -> str:
        """Hash of the text, which says in a manifest what was asked."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def render(self, **values: Any) -> str:
        """Fill the variables in.

        Raises:
            RagFtError: the template asks for what is not there, or does what a template may not.
        """
        import jinja2

        try:
            return str(_compiled(self.source).render(**values)).strip()
        except (jinja2.TemplateError, *_STUMBLES) as error:
            raise RagFtError(f"{self.file}{_line(error)}: {error}. {_MEND}") from None


_STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_MEND = "Correct the template, or set data.labels.template=null for ours."


def read_template(file: str | None, style: WrittenStyle) -> Template:
    """Read a template and try it out; None takes that of the style.

    Raises:
        RagFtError: there is no such file, it is no text, or it cannot be filled in.
    """
    path = Path(file).expanduser() if file else _FOLDER / f"{style}.txt"
    name = f"data.labels.template={file}" if file else str(path)
    try:
        template = Template(path.read_text(encoding="utf-8"), name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RagFtError(
            f"{name}: {reason}. Give the path of a text file; rag-ft recipes copy templates/{style} writes ours."
        ) from None
    _try_out(template, style)
    return template


def _try_out(template: Template, style: WrittenStyle) -> None:
    """Raise what a template would stumble over after the first calls were paid for."""
    from jinja2 import TemplateSyntaxError, meta

    try:
        used = meta.find_undeclared_variables(_environment().parse(template.source))
    except TemplateSyntaxError as error:
        raise RagFtError(f"{template.file}{_line(error)}: {error.message}. {_MEND}") from None
    if unknown := sorted(used - set(VARIABLES)):
        raise RagFtError(f"{template.file}: there is no variable {unknown[0]}, only {', '.join(VARIABLES)}. {_MEND}")
    if missing := [name for name in ("question", "passages") if name not in used]:
        raise RagFtError(f"{template.file}: {missing[0]} stands nowhere in it, so nobody could answer. {_MEND}")
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
    path = _FOLDER / "repair.txt"
    told = Template(path.read_text(encoding="utf-8"), str(path)).render(problems=list(problems))
    return (*messages, {"role": "assistant", "content": output}, {"role": "user", "content": told})


def harmless(text: str) -> str:
    """Return a text from outside in which no mark of a template or of a chat begins: a space stands behind its "<"."""
    return _OPENING.sub(lambda found: f"{found.group()} ", text)


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
    import json

    shown = [
        {"number": number, "title": harmless(passage.title.strip()), "text": harmless(passage.text.strip())}
        for number, passage in enumerate(passages, start=1)
    ]
    schema = json.dumps(label_schema(style))
    return {"question": harmless(question.strip()), "passages": shown, "style": style, "schema": schema}


def _render(template: Template, values: dict[str, Any], answers: Sequence[str], answerable: bool | None) -> str:
    return template.render(**values, answers=[harmless(answer) for answer in answers], answerable=answerable)


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@lru_cache(maxsize=8)
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None)
    return f", line {number}" if number else ""
