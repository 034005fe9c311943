"""What the teacher is asked: the template, the schema of its answer, passages made harmless. Reads no answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.records import Passage

SHIPPED = Path(__file__).parent / "templates" / "questions.txt"
"""The template that comes with rag-ft, where one of your own can start."""
VARIABLES = ("passages", "count", "link")
"""passages: number (from 1), title, text of each, one or two. count: questions wanted. link: the name that two passages
share, empty for one."""
_HIDDEN = "\u200b"  # a space of no width: comparing quotes passes over it
_OPENING = re.compile(r"<(?=[|\uff5c/\w])|\[(?=/?[A-Z_]+\])")
_MEND = "Correct the template, or set data.questions.template=null for ours."


class Prompt:
    """A template, tried out on one passage and on two.

    Args:
        file: of the recipe; None takes ours.

    Raises:
        RagFtError: the file cannot be read, or cannot be filled in.
    """

    def __init__(self, file: str | None) -> None:
        self._name = f"data.questions.template={file}" if file else str(SHIPPED)
        self._template = self._compiled(template_text(file))
        tried = Passage("", "A title", "A text."), Passage("", "", "Another text.")
        for shown in (tried[:1], tried):
            self.messages(shown, 2, "A title")

    def messages(self, passages: Sequence[Passage], count: int, link: str = "") -> tuple[Mapping[str, str], ...]:
        """Return the conversation about one passage, or about two that `link` joins.

        Raises:
            RagFtError: the template does what a template may not.
        """
        import jinja2

        shown = [
            {"number": number, "title": harmless(one.title.strip()), "text": harmless(one.text.strip())}
            for number, one in enumerate(passages, start=1)
        ]
        try:
            text = self._template.render(passages=shown, count=count, link=harmless(link)).strip()
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
            raise self._refusal(error) from None
        return ({"role": "user", "content": text},)

    def _compiled(self, source: str) -> Any:
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise self._refusal(error) from None
        if unknown := sorted(used - set(VARIABLES)):
            raise RagFtError(f"{self._name}: there is no variable {unknown[0]}, only {', '.join(VARIABLES)}. {_MEND}")
        if "passages" not in used:
            raise RagFtError(f"{self._name}: passages stands nowhere in it, so there is nothing to ask about. {_MEND}")
        return environment.from_string(source)

    def _refusal(self, error: Exception) -> RagFtError:
        line = f", line {number}" if (number := getattr(error, "lineno", None)) else ""
        return RagFtError(f"{self._name}{line}: {error}. {_MEND}")


def template_text(file: str | None) -> str:
    """Return the text of a template, ours where none is named.

    Raises:
        RagFtError: it cannot be read.
    """
    path = Path(file).expanduser() if file else SHIPPED
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RagFtError(
            f"data.questions.template={path}: {reason}. Give the path of a text file; "
            "rag-ft recipes copy templates/questions writes ours."
        ) from None


def template_hash(file: str | None) -> str:
    """Return the SHA-256 of a template's text, which says in a manifest what was asked."""
    return hashlib.sha256(template_text(file).encode()).hexdigest()


def harmless(text: str) -> str:
    """Return a text from outside in which no mark of a template or of a chat begins.

    A space of no width stands behind the sign that opens one, so that a quote with it is still found in the passage.
    """
    return _OPENING.sub(lambda found: found[0] + _HIDDEN, text)


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
