"""What goes in and comes out of every generator: passages as users have them, and outputs read as answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.errors import RagFtError
from data_builders.records import Passage
from rag_ft.generator import Answer, PassageLike
from rag_ft.prompting.parse import parse_output
from rag_ft.prompting.settings import PromptSettings


@dataclass(frozen=True)
class Posed:
    """A question over passages, checked."""

    question: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Cost:
    """What an answer took; tokens are None where nobody counted them."""

    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float


def pose(question: str, passages: Sequence[PassageLike]) -> Posed:
    """Check a question and its passages.

    Raises:
        RagFtError: the question is empty, or a passage has no text.
    """
    if not isinstance(question, str) or not question.strip():
        raise RagFtError(f"the question is {'empty' if isinstance(question, str) else 'no text'}. Give one as a text.")
    if isinstance(passages, str | Mapping | Passage):
        raise RagFtError("passages is a single passage. Give a list: [passage], or [] to ask without any.")
    return Posed(_utf8(question), tuple(_passage(number, one) for number, one in enumerate(passages, start=1)))


def _passage(number: int, given: PassageLike) -> Passage:
    found: tuple[Any, Any, Any]
    if isinstance(given, Passage):
        found = (given.id, given.title, given.text)
    elif isinstance(given, Mapping):
        found = (given.get("id") or "", given.get("title") or "", given.get("text"))
    else:
        found = ("", "", given)
    name, title, text = found
    if not isinstance(title, str) or not isinstance(text, str):
        raise RagFtError(
            f"passage {number} has no text that can be shown. Give a text, or a mapping with a text as `text` and, if "
            "it has one, as `title`."
        )
    return Passage(str(name), _utf8(title), _utf8(text))


def _utf8(text: str) -> str:
    """Replace halves of surrogate pairs, which readers of PDFs bring and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def read_answer(output: str, posed: Posed, settings: PromptSettings, cost: Cost) -> Answer:
    """Read an output as its prompt asked for it: without passages, for the answer alone."""
    style = settings if posed.passages else settings.model_copy(update={"style": "answer"})
    parsed = parse_output(output, style)
    return Answer(
        answer=parsed.answer,
        abstained=parsed.abstained,
        citations=parsed.evidence,
        relevance=parsed.relevance,
        analysis=parsed.analysis,
        well_formed=parsed.well_formed,
        output=output,
        prompt_tokens=cost.prompt_tokens,
        output_tokens=cost.output_tokens,
        seconds=cost.seconds,
    )


def longest_output(settings: PromptSettings, told: int | None, recipe: int | None = None) -> int:
    """Return the most tokens an answer may have: as told, as a run's recipe has it, or what its style takes."""
    from rag_ft.evaluation.settings import EvaluationSettings

    return EvaluationSettings(max_new_tokens=told or recipe).longest_output(settings.style)
