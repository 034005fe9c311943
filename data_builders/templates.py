"""Prompts as files in Jinja2, and texts from outside made harmless before they are put into them. Asks nobody.

Passages, questions and answers come from outside: in a prompt they can neither open or close a mark of its template
nor speak as a chat's control tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.records import Passage

_HIDDEN = "\u200b"  # a space of no width: quotes are compared without it, and nobody sees it
# What may begin a mark, in whatever template, or a control token: <|...|>, <s>, <<SYS>>, [INST], [|user|].
_OPENING = re.compile(r"<(?=[|\uff5c\w/<]|\s+/|\s+(?:passage|question|answer)s?\b)|\[(?=/?[A-Z_]+\]|\|)")
_BROKEN = re.compile(rf"([<\[])(?:{_HIDDEN}|\\u200[bB])")
_STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Template:
    """A prompt's text with its variables.

    Attributes:
        source: the text.
        file: what a message about it calls it.
        setting: the key of the recipe that names another one.
    """

    source: str
    file: str
    setting: str

    @property
    def sha256(self) -> str:
        """Hash of the text, which says in a manifest what was asked."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def render(self, **values: Any) -> str:
        """Fill the variables in. Texts from outside have to be `harmless` before.

        Raises:
            RagFtError: the template asks for what is not there, or does what a template may not.
        """
        import jinja2

        try:
            return str(_compiled(self.source).render(**values)).strip()
        except (jinja2.TemplateError, *_STUMBLES) as error:
            raise self.refusal(f"{_line(error)}: {error}.") from None

    def require(self, known: Collection[str], needed: Collection[str]) -> None:
        """Make sure that it can be read, that it asks for `known` variables only, and for those `needed`.

        Raises:
            RagFtError: it cannot, or does not.
        """
        from jinja2 import TemplateSyntaxError, meta

        try:
            used = meta.find_undeclared_variables(_environment().parse(self.source))
        except TemplateSyntaxError as error:
            raise self.refusal(f"{_line(error)}: {error.message}.") from None
        if unknown := sorted(used - {*known}):
            raise self.refusal(f": there is no variable {unknown[0]}, only {', '.join(known)}.")
        if missing := [name for name in needed if name not in used]:
            raise self.refusal(f": {missing[0]} stands nowhere in it, so whoever is asked would not see it.")

    def refusal(self, why: str) -> RagFtError:
        """Return the error that says why it cannot be used, and what to do."""
        return RagFtError(f"{self.file}{why} Correct the template, or set {self.setting}=null for ours.")


def template_of(file: str | None, shipped: Path, setting: str) -> Template:
    """Read a template; None takes the one that comes with rag-ft.

    Raises:
        RagFtError: there is no such file, or it is no text.
    """
    path = Path(file).expanduser() if file else shipped
    name = f"{setting}={file}" if file else str(path)
    try:
        return Template(path.read_text(encoding="utf-8"), name, setting)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RagFtError(
            f"{name}: {reason}. Give the path of a text file; rag-ft recipes copy templates/{shipped.stem} writes ours."
        ) from None


def harmless(text: str) -> str:
    """Return a text from outside in which no mark of a template or of a chat begins.

    A space of no width stands behind the sign that opens one, so that a quote with it is still found in its passage.
    """
    return _OPENING.sub(lambda found: found[0] + _HIDDEN, text)


def restored(text: str) -> str:
    """Return what a model wrote without the hidden spaces that it copied from its prompt."""
    return _BROKEN.sub(r"\1", text)


def without_thoughts(output: str) -> str:
    """Return what follows the thoughts of a thinking model; nothing where they never end."""
    if "</think>" in output:
        return output.rpartition("</think>")[2].strip()
    return "" if output.lstrip().startswith("<think>") else output.strip()


def numbered(passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """Return passages as templates know them: `number` from 1, `title` and `text`, harmless."""
    return [
        {"number": number, "title": harmless(passage.title.strip()), "text": harmless(passage.text.strip())}
        for number, passage in enumerate(passages, start=1)
    ]


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
