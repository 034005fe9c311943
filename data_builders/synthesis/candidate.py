"""Questions as the teacher wrote them: from the text of a reply to what the filters look at. Judges nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.documents.evidence import fold, verbatim
from data_builders.records import Passage
from data_builders.sentences import standing_whole
from data_builders.synthesis.prompts import quote_names
from data_builders.templates import restored, without_thoughts

_QUOTATION = "\"'\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d \t\n"
_ELLIPSES = ("...", "\u2026")


@dataclass(frozen=True)
class Candidate:
    """A question that may be kept.

    Attributes:
        passages: those shown, in that order.
        link: the name that links two of them.
        quotes: as written, one a passage.
        found: the same as they stand in their passages, letter by letter; empty where they do not.
        problem: why the output could not be read as a question, empty if it could.
    """

    passages: tuple[Passage, ...]
    question: str = ""
    answer: str = ""
    quotes: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    link: str = ""
    problem: str = ""


def candidates(text: str, passages: Sequence[Passage], link: str = "") -> Iterator[Candidate]:
    """Read the text of a reply: JSON as asked for, also in a fence, behind thoughts, or cut off after some questions.

    A reply with an empty list of questions yields nothing; one that cannot be read yields one candidate that says so.
    """
    shown = tuple(passages)
    items = _items(restored(text))
    if items is None:
        yield Candidate(shown, link=link, problem=f"there is no JSON with questions in it: {text.strip()[:200]}")
        return
    for item in items:
        yield _candidate(item, shown, link)


def _candidate(item: Any, passages: tuple[Passage, ...], link: str) -> Candidate:
    names = ("question", "answer", *quote_names(len(passages)))
    values = [item.get(name) for name in names] if isinstance(item, Mapping) else []
    if not values:
        return Candidate(passages, link=link, problem=f"an entry is no object: {json.dumps(item)[:200]}")
    texts = [_text(value) for value in values]
    missing = [name for name, text in zip(names, texts, strict=True) if not text]
    problem = f"{' and '.join(missing)} is missing or no text" if missing else ""
    question, answer, *quotes = texts
    found = tuple(standing(quote, passage.text) for quote, passage in zip(quotes, passages, strict=True))
    return Candidate(passages, question, answer, tuple(quotes), found, link, problem)


def _text(value: Any) -> str:
    """Return a text or number as one line; nothing for what is neither, or no Unicode text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    text = " ".join(str(value).split())
    return text.encode("utf-8", "ignore").decode()


def standing(quote: str, text: str) -> str:
    """Return a quote as it stands in a passage, letter by letter; nothing where it does not.

    Compared are normal forms (NFKC, plain quotation marks and dashes, single spaces); marks of quotation around it and
    dots of omission at its ends do not count. It begins and ends where words do: "built in 18" is no quote of 1871.
    """
    bare = _bare(quote)
    forms = dict.fromkeys(form for one in (quote, bare, bare.rstrip(".")) if (form := fold(one)))
    whole = fold(text)
    return next((verbatim(text, form) for form in forms for _ in standing_whole(form, whole)), "")


def _bare(quote: str) -> str:
    bare = quote.strip(_QUOTATION)
    for dots in _ELLIPSES:
        bare = bare.removeprefix(dots).removesuffix(dots).strip(_QUOTATION)
    return bare


def _items(text: str) -> list[Any] | None:
    """Return the questions of a reply, None where there is no list of them and no question by itself."""
    decoder, start, found = json.JSONDecoder(), 0, list[Any]()
    body = without_thoughts(text)
    while (start := body.find("{", start)) >= 0:
        try:
            value, stop = decoder.raw_decode(body, start)
        except (ValueError, RecursionError):
            start += 1  # cut off or no JSON: what stands inside may be whole
            continue
        if isinstance(value.get("questions"), list):
            return list(value["questions"])
        found += [value] if "question" in value else []
        start = stop
    return found or ([] if body.strip() in ("[]", "```json\n[]\n```") else None)
