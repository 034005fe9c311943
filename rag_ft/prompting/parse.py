"""Reading a generator's output back: answer, abstention, judgements and quotes. Judges nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_builders.text import answer_tokens, contains_tokens
from rag_ft.prompting.settings import PromptSettings

_ANSWER = re.compile(r"^[ \t]*answer:[ \t]*(.*)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_JUDGEMENT = re.compile(r"^\[(\d{1,6})\] (yes|no)\b:?[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_QUOTE = re.compile(r'^\[(\d{1,6})\] "(.*?)"(?::[ \t]*(.*))?$', re.MULTILINE)
_ANALYSIS = re.compile(r"^analysis:[ \t]*(.*?)(?=^answer:|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_REASON = re.compile(r"^\[(\d{1,6})\] (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Judgement:
    """The generator's view of one passage; `passage` counts from 1 as in the prompt."""

    passage: int
    relevant: bool
    reason: str


@dataclass(frozen=True)
class Quote:
    """What the generator says it read; `passage` counts from 1 as in the prompt."""

    passage: int
    quote: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """An output taken apart. `answer` is None where the generator abstained or wrote no answer."""

    answer: str | None
    abstained: bool
    well_formed: bool
    relevance: tuple[Judgement, ...] = ()
    evidence: tuple[Quote, ...] = ()
    analysis: str = ""


def parse_output(output: str, settings: PromptSettings) -> Parsed:
    """Take an output apart in the style of `settings`. Never raises: outputs are untrusted.

    The answer is the first line behind "Answer:", in every style; without that mark it is the first line of an
    output in style `answer`, and the last line of a reasoned one, which then counts as not well formed.
    Abstention is the abstention sentence at the start of the answer, compared token by token, so that case, quotes
    and a missing full stop do not matter, with two words more at most: a hedge that goes on to answer is an answer.
    """
    found = _ANSWER.search(output)
    lines = [line.strip() for line in (found.group(1) if found else output).splitlines() if line.strip()]
    direct = settings.style == "answer"
    well_formed = direct or found is not None
    answer = lines[0 if direct or found else -1] if lines else ""
    tokens, refusal = answer_tokens(answer), answer_tokens(settings.abstention)
    abstained = bool(refusal) and contains_tokens(tokens[: len(refusal)], refusal) and len(tokens) <= len(refusal) + 2
    relevance, evidence, analysis = _reasoning(output, settings)
    return Parsed(
        answer=None if abstained or not answer else answer,
        abstained=abstained,
        well_formed=well_formed and bool(answer),
        relevance=relevance,
        evidence=evidence,
        analysis=analysis,
    )


def _reasoning(output: str, settings: PromptSettings) -> tuple[tuple[Judgement, ...], tuple[Quote, ...], str]:
    if settings.style == "answer":
        return (), (), ""
    if settings.style == "reasoning":
        reasons = _REASON.findall(_ANSWER.split(output)[0])
        return tuple(Judgement(int(number), True, reason) for number, reason in reasons), (), ""
    judgements = tuple(
        Judgement(int(number), word.lower() == "yes", reason) for number, word, reason in _JUDGEMENT.findall(output)
    )
    quotes = tuple(Quote(int(number), quote, reason) for number, quote, reason in _QUOTE.findall(output))
    analysis = _ANALYSIS.search(output)
    return judgements, quotes, analysis.group(1).strip() if analysis else ""
