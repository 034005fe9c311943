"""Reading headed text back: answer, abstention, judgements and quotes of a target or a label. Judges nothing.

What the renderer of rag_ft writes is read back as it was, but for line breaks, which it turns into spaces. Beyond that
the reader forgives what generators do to the format: headings in bold or with "#", bullets before "[1]", several
numbers in one bracket, curly quotes, quotes over several lines, and thoughts between <think> and </think>.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from data_builders.templates import without_thoughts
from data_builders.text import answer_tokens

Style = Literal["answer", "reasoning", "self_reasoning"]

_NAMES = r"(relevance|evidence|analysis|(?:final[ \t]+)?answer)"
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
_HEADING = re.compile(
    rf"^[ \t]*(?:\#{{1,6}}[ \t]*)?(?:\*\*{_NAMES}[ \t]*:?[ \t]*\*\*[ \t]*:?|{_NAMES}[ \t]*[:\uff1a])|"
    rf"^[ \t]*\#{{1,6}}[ \t]*{_NAMES}[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_PARTS: dict[Style, list[str]] = {
    "answer": [],
    "reasoning": ["answer"],
    "self_reasoning": ["relevance", "evidence", "analysis", "answer"],
}
_NUMBERS = r"\[\d{1,6}(?:[ \t]*[,;][ \t]*\d{1,6})*\]"
MARK = re.compile(_NUMBERS)
"""A mark in a text that names passages by their numbers: [2] or [1, 3]."""
_ITEM = re.compile(rf"^[ \t]*(?:[-*\u2022][ \t]+)?(?:\*\*)?((?:{_NUMBERS})+)(?:\*\*)?(?::(?=\s))?[ \t]*", re.MULTILINE)
_VERDICT = re.compile(r"(?:\*\*)?(yes|no)\b(?:\*\*)?[ \t]*:?[ \t]*", re.IGNORECASE)
_CLOSING = {'"': '"', "\u201c": "\u201d"}


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
    """An output taken apart. `answer` is None where the generator abstained or wrote no answer.

    `well_formed`: there is an answer, and the parts its style asks for have their headings, in their order.
    """

    answer: str | None
    abstained: bool
    well_formed: bool
    relevance: tuple[Judgement, ...] = ()
    evidence: tuple[Quote, ...] = ()
    analysis: str = ""


def read_target(output: str, style: Style, abstention: str) -> Parsed:
    """Take an output apart. Never raises: outputs are untrusted.

    Args:
        output: as it came.
        style: in which it was to be written.
        abstention: the sentence that declines.

    The answer is the first line behind "Answer:", in every style; without that mark it is the first line of an
    output in style `answer`, and the last line of a reasoned one, which then counts as not well formed.
    Abstention is the abstention sentence at the start of the answer, compared token by token, so that case, quotes
    and a missing full stop do not matter, once or repeated, with two words more at most in its sentence: a hedge that
    goes on to answer is an answer.
    """
    text = without_thoughts(output)
    parts = _parts(text)
    lines = [line.strip() for line in parts.get("answer", text).splitlines() if line.strip()]
    answer = lines[0 if style == "answer" or "answer" in parts else -1] if lines else ""
    abstained = declines(answer, abstention)
    relevance, evidence, analysis = _reasoning(text, parts, style)
    return Parsed(
        answer=None if abstained or not answer else answer,
        abstained=abstained,
        well_formed=bool(answer) and [name for name in parts if name in _PARTS[style]] == _PARTS[style],
        relevance=relevance,
        evidence=evidence,
        analysis=analysis,
    )


def headings(output: str) -> list[str]:
    """Return the parts that have their heading, in order: relevance, evidence, analysis, answer."""
    return list(_parts(output))


def one_line(text: str) -> str:
    """Return a text whose lines are joined by spaces: what stands in a target, where a line has a meaning."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def cited_numbers(text: str) -> list[int]:
    """Return the passage numbers of the marks [n] in a text, in order, as often as they stand there."""
    return [int(number) for mark in MARK.findall(text) for number in re.findall(r"\d+", mark)]


def split_quote(text: str) -> tuple[str, str] | None:
    """Split `"quote": reason` where it opens with a quotation mark; None where it does not or never closes.

    The quote ends at the first closing mark that a colon, a dash or the end follows, and before which the marks
    inside it pair up: `"He said "no": and left": why`. Failing that at the first closing mark.
    """
    opening, inside = text[:1], text[1:]
    closing = _CLOSING.get(opening)
    if closing is None or closing not in inside:
        return None
    ends = list(re.finditer(rf"{closing}[ \t]*(?:[:\uff1a][ \t]*|[-\u2013\u2014][ \t]+|$)", inside))
    whole = [end for end in ends if _pairs_up(inside[: end.start()], opening, closing)]
    if found := next(iter([*whole, *ends]), None):
        return inside[: found.start()], inside[found.end() :]
    quote, _, reason = inside.partition(closing)
    return quote, reason.strip()


def _pairs_up(text: str, opening: str, closing: str) -> bool:
    return text.count(closing) % 2 == 0 if opening == closing else text.count(opening) == text.count(closing)


def _parts(text: str) -> dict[str, str]:
    """Return heading -> text up to the next one, in order; of a heading written twice the first counts."""
    found: dict[str, str] = {}
    for heading, body in _bodies(_HEADING, text):
        found.setdefault(next(filter(None, heading.groups())).lower().split()[-1], body)
    return found


def _bodies(pattern: re.Pattern[str], text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield each match with the text up to the next one."""
    heads = list(pattern.finditer(text))
    for head, following in zip_longest(heads, heads[1:]):
        yield head, text[head.end() : following.start() if following else len(text)]


def declines(answer: str, abstention: str) -> bool:
    """Tell whether an answer is the sentence that declines, as `read_target` has it."""
    tokens, refusal = answer_tokens(answer), answer_tokens(abstention)
    width, said = len(refusal), 0
    while width and tokens[said : said + width] == refusal:
        said += width
    more = len(tokens) - said
    if not said or more > 2:
        return False
    # "The passages do not say. Paris." answers in a sentence of its own
    return not more or len(answer_tokens(_SENTENCE_END.split(answer.strip())[-1])) > more


def _reasoning(text: str, parts: dict[str, str], style: Style) -> tuple[tuple[Judgement, ...], tuple[Quote, ...], str]:
    """Return judgements, quotes and analysis; a part without its heading is looked for in all that is not answer."""
    if style == "answer":
        return (), (), ""
    first = _HEADING.search(text)
    ahead = text[: first.start()] if first else text
    if style == "reasoning":
        named = _items(ahead + parts.get("relevance", ""))
        return tuple(Judgement(number, True, lines[0]) for number, lines in named), (), ""
    analysis = parts.get("analysis", "").strip()
    return tuple(_judgements(parts.get("relevance", ahead))), tuple(_quotes(parts.get("evidence", ahead))), analysis


def _items(part: str) -> Iterator[tuple[int, list[str]]]:
    """Yield passage number and lines of each `[n] ...`; several numbers in front share the lines."""
    for head, body in _bodies(_ITEM, part):
        for number in cited_numbers(head.group(1)):
            yield number, [line.strip() for line in body.splitlines()] or [""]


def _judgements(part: str) -> Iterator[Judgement]:
    for number, lines in _items(part):
        if verdict := _VERDICT.match(lines[0]):
            yield Judgement(number, verdict.group(1).lower() == "yes", lines[0][verdict.end() :])


def _quotes(part: str) -> Iterator[Quote]:
    for number, lines in _items(part):
        if found := split_quote(" ".join(filter(None, lines))):
            yield Quote(number, *found)
