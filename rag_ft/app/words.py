"""An answer and its passages as lines for a terminal, and as JSON. Asks nothing."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from rag_ft.app import Added, Found
from rag_ft.app.ask import Sought, citation_stands, page_of, pages_of
from rag_ft.generator import Answer

_MOST_NAMES = 5
# controls, halves of surrogate pairs, and marks that turn the direction of writing: a document may hold any of them
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text of a document or a model without what a terminal would obey."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n"))


def update_line(added: Added) -> str:
    """Return what an update did, in a line."""
    files = len(added.read) + len(added.unchanged)
    return (
        f"{added.passages:,} passages of {files:,} files: {len(added.read):,} read, {len(added.unchanged):,} "
        f"unchanged, {len(added.removed):,} removed, {len({name for name, _ in added.refused}):,} with problems"
    )


def answer_lines(sought: Sought, answered: Answer | None) -> Iterator[str]:
    """Yield the answer, what it cites, every passage with its judgement, and the files left out."""
    yield printable(_answer_line(answered))
    if answered is not None:
        yield from (printable(line) for line in _reasons(sought, answered))
    if sought.shown:
        yield ""
        yield "Passages, in the order the model saw them:"
        yield from (printable(line) for line in _passages(sought, answered))
    if sought.added.refused:
        yield ""
        yield "Files with problems:"
        yield from (printable(line) for line in problem_lines(sought.added))


def _answer_line(answered: Answer | None) -> str:
    if answered is None:
        return "No answer: the documents hold no passage."
    if answered.abstained:
        return "No answer: the model says that the passages do not hold one."
    if answered.answer is None:
        return f"No answer: what the model wrote holds none: {_short(answered.output)}"
    return f"Answer: {answered.answer}"


def _reasons(sought: Sought, answered: Answer) -> Iterator[str]:
    if answered.citations:
        yield ""
        yield "Evidence:"
    for quote in answered.citations:
        found = citation_stands(sought, quote.passage, quote.quote)
        reason = f" ({quote.reason})" if quote.reason else ""
        yield f'  [{quote.passage}] {_source(sought, quote.passage, quote.quote)}: "{_one_line(quote.quote)}"{reason}'
        if not found:
            yield "      Beware: the passage does not say that word for word."
    if answered.analysis:
        yield ""
        yield f"Analysis: {answered.analysis}"


def _passages(sought: Sought, answered: Answer | None) -> Iterator[str]:
    judged = {one.passage: one for one in answered.relevance} if answered else {}
    for number, found in enumerate(sought.shown, start=1):
        yield f"  [{number}] {_place(found)} (similarity {found.score:.2f})"
        if number in judged:
            one = judged[number]
            yield f"      {'relevant' if one.relevant else 'not relevant'}{f': {one.reason}' if one.reason else ''}"
        yield f"      {_short(found.passage.text)}"


def problem_lines(added: Added) -> Iterator[str]:
    """Yield each problem once, with the files that have it."""
    files: dict[str, list[str]] = {}
    for name, problem in added.refused:
        files.setdefault(problem, []).append(name)
    for problem, names in files.items():
        more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        yield f"  {', '.join(names[:_MOST_NAMES])}{more}: {problem}"


def _source(sought: Sought, number: int, quote: str) -> str:
    """Return file and page of a quote by the number of its passage."""
    if not 1 <= number <= len(sought.shown):
        return "no such passage"
    found = sought.shown[number - 1]
    page = page_of(found, quote)
    return f"{found.file}, page {page}" if page else found.file


def _place(found: Found) -> str:
    """Return the file and the pages of a passage."""
    if (pages := pages_of(found)) is None:
        return found.file
    first, last = pages
    return f"{found.file}, page {first}" if first == last else f"{found.file}, pages {first}-{last}"


def _short(text: str) -> str:
    return textwrap.shorten(text, 100, placeholder=" ...")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def as_json(sought: Sought, answered: Answer | None) -> dict[str, Any]:
    """Return everything as JSON, with passages in the order the model saw them."""
    judged = {one.passage: one for one in answered.relevance} if answered else {}
    return {
        "question": sought.question,
        "answer": answered.answer if answered else None,
        "abstained": answered.abstained if answered else False,
        "well_formed": answered.well_formed if answered else False,
        "analysis": answered.analysis if answered else "",
        "citations": [
            {
                "passage": one.passage,
                "page": page_of(sought.shown[one.passage - 1], one.quote)
                if 1 <= one.passage <= len(sought.shown)
                else None,
                "quote": one.quote,
                "reason": one.reason,
                "verbatim": citation_stands(sought, one.passage, one.quote),
            }
            for one in (answered.citations if answered else ())
        ],
        "passages": [
            {
                "number": number,
                "file": found.file,
                "page": found.page,
                "score": round(found.score, 4),
                "title": found.passage.title,
                "text": found.passage.text,
                "relevant": judged[number].relevant if number in judged else None,
                "reason": judged[number].reason if number in judged else "",
            }
            for number, found in enumerate(sought.shown, start=1)
        ],
        "files": {
            "read": list(sought.added.read),
            "unchanged": len(sought.added.unchanged),
            "removed": list(sought.added.removed),
            "problems": [{"file": name, "problem": problem} for name, problem in sought.added.refused],
        },
        "seconds": {
            "update": round(sought.update_seconds, 3),
            "search": round(sought.search_seconds, 3),
            "answer": round(answered.seconds, 3) if answered else None,
        },
        "prompt_tokens": answered.prompt_tokens if answered else None,
        "output_tokens": answered.output_tokens if answered else None,
        "output": answered.output if answered else None,
    }
