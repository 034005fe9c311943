"""What the demo page shows, as HTML: a turn, its passages, the documents. Templates escape all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from rag_ft.app import Found
from rag_ft.app.ask import page_of, pages_of
from rag_ft.app.demo_talk import Said, Turn
from rag_ft.app.demo_words import WORDS, PageLanguage, counted, say
from rag_ft.app.highlight import marked, stands
from rag_ft.app.routing import FEW
from rag_ft.prompting.parse import MARK, Quote, cited_numbers

_SENTENCE_END = re.compile(r"(?<=[.!?\u3002])\s+")
TEMPLATES = Path(__file__).parent / "templates"
_LIVE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
"""Signs with which Gradio's own templates, filled in with our HTML, would begin something."""


@dataclass(frozen=True)
class _ShownQuote:
    """A quote as the page shows it: of a passage that exists or not, standing there word for word or not."""

    number: int
    text: str
    where: str
    reason: str
    doubt: str


@dataclass(frozen=True)
class _ShownPassage:
    """A passage as the page shows it."""

    number: int
    where: str
    title: str
    score: str
    text: Markup
    badge: str
    verdicts: tuple[tuple[bool, str, str], ...]


def turn_html(turn: Turn, language: PageLanguage, *, current: bool) -> str:
    """Return a question and what was answered.

    Args:
        turn: whole, or still growing.
        language: of the page.
        current: its passages stand on the page too, so that marks like [2] lead to them.
    """
    replies = [_reply(name, said, turn.found, language, current) for name, said in turn.said.items()]
    return _html("turn.html.j2", language, turn=turn, replies=replies, current=current)


def passages_html(turn: Turn, language: PageLanguage) -> str:
    """Return the passages of a turn, the quotes marked in them; where nobody quotes, the answers."""
    answers = [said.answer for said in turn.said.values() if said.answer is not None]
    quoting = any(answer.citations for answer in answers)
    shown = [_passage(number, one, turn, language) for number, one in enumerate(turn.found, start=1)]
    legend = WORDS[language]["legend_quotes" if quoting else "legend_answer"]
    values: dict[str, Any] = {
        "passages": shown,
        "head": say(language, "passages_shown", passages=counted(language, len(turn.found))),
        "legend": legend if any(one.badge for one in shown) else "",
    }
    return _html("passages.html.j2", language, **values) if turn.found else ""


def documents_html(
    documents: Mapping[str, int], shared: Sequence[str], language: PageLanguage, *, megabytes: int
) -> str:
    """Return the list of a session's documents with their passages, and of those that everyone may search.

    Args:
        documents: name -> passages of the session's own.
        shared: names of those that everyone may search.
        language: of the page.
        megabytes: the most that a file may have, told to who adds one.
    """
    own = {name: counted(language, count) for name, count in documents.items()}
    kinds = say(language, "kinds", megabytes=megabytes)
    return _html("documents.html.j2", language, documents=own, shared=shared, kinds=kinds)


def lines_html(lines: Sequence[str], language: PageLanguage) -> str:
    """Return sentences, one below the other."""
    return _html("lines.html.j2", language, lines=lines)


def start_html(language: PageLanguage) -> str:
    """Return what stands where no question has been asked."""
    return _html("start.html.j2", language)


def head_html(language: PageLanguage) -> str:
    """Return the head of the page."""
    return _html("head.html.j2", language)


def _html(template: str, language: PageLanguage, **values: Any) -> str:
    text = _environment().get_template(template).render(words=WORDS[language], language=language, **values)
    return text.translate(_LIVE)


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _reply(name: str, said: Said, found: Sequence[Found], language: PageLanguage, current: bool) -> dict[str, Any]:
    """Return what the template needs of one generator's words."""
    words, answer = WORDS[language], said.answer
    notes = []
    if answer is not None:
        notes = [] if answer.well_formed else [words["not_well_formed"]]
        notes += [say(language, f"route_{answer.route}", few=FEW)] if answer.route else []
        notes.append(say(language, "done", seconds=f"{answer.seconds:.1f}"))
    return {
        "name": words[name],
        "said": said,
        "problem": words.get(said.problem, said.problem),
        "text": _with_links(answer.answer or "", len(found) if current else 0) if answer else "",
        "quotes": [_quote(one, found, language) for one in answer.citations] if answer else [],
        "notes": notes,
    }


def _with_links(text: str, passages: int) -> Markup:
    """Return an answer in which marks such as [2] lead to their passages."""
    pieces, done = [], 0
    for mark in MARK.finditer(text):
        numbers = cited_numbers(mark[0])
        if all(1 <= number <= passages for number in numbers):
            links = Markup(", ").join(Markup('<a href="#passage-{0}">{0}</a>').format(number) for number in numbers)
            pieces += [escape(text[done : mark.start()]), Markup("[{}]").format(links)]
            done = mark.end()
    return Markup("").join([*pieces, escape(text[done:])])


def _quote(quote: Quote, found: Sequence[Found], language: PageLanguage) -> _ShownQuote:
    words = WORDS[language]
    if not 1 <= quote.passage <= len(found):
        return _ShownQuote(quote.passage, quote.quote, "", quote.reason, words["no_such_passage"])
    one = found[quote.passage - 1]
    doubt = "" if stands(quote.quote, one.passage.text) else words["not_verbatim"]
    page = page_of(one, quote.quote)
    where = _where(one, None if page is None else (page, page), language)
    return _ShownQuote(quote.passage, quote.quote, where, quote.reason, doubt)


def _where(one: Found, pages: tuple[int, int] | None, language: PageLanguage) -> str:
    if pages is None:
        return one.file
    first, last = pages
    told = say(language, "page", page=first) if first == last else say(language, "pages", first=first, last=last)
    return f"{one.file}, {told}"


def _passage(number: int, one: Found, turn: Turn, language: PageLanguage) -> _ShownPassage:
    quotes = [quote for quote in _quotes(turn) if quote.passage == number]
    wanted = [quote.quote for quote in quotes] if any(_quotes(turn)) else list(_answers(turn))
    text = marked(one.passage.text, wanted)
    badge = "quoted" if quotes else "has_answer"
    return _ShownPassage(
        number=number,
        where=_where(one, pages_of(one), language),
        title=one.passage.title,
        score=say(language, "similarity", score=f"{one.score:.2f}"),
        text=text,
        badge=WORDS[language][badge] if "<mark>" in text else "",
        verdicts=tuple(_verdicts(number, turn, language)),
    )


def _quotes(turn: Turn) -> Iterator[Quote]:
    for said in turn.said.values():
        yield from said.answer.citations if said.answer else ()


def _answers(turn: Turn) -> Iterator[str]:
    """Yield what to look for of answers in passages: each as a whole and by sentences, without marks.

    A single letter or sign stands in any text, so it is not looked for.
    """
    for said in turn.said.values():
        text = MARK.sub("", said.answer.answer or "").strip() if said.answer else ""
        yield from (part for part in (text, *_SENTENCE_END.split(text)) if len(part.strip()) > 1)


def _verdicts(number: int, turn: Turn, language: PageLanguage) -> Iterator[tuple[bool, str, str]]:
    """Yield (relevant or not, in words, why) of every judgement of a passage."""
    words = WORDS[language]
    for name, said in turn.said.items():
        for one in said.answer.relevance if said.answer else ():
            if one.passage == number:
                verdict = words["relevant" if one.relevant else "irrelevant"]
                told = say(language, "judged_by", name=words[name], verdict=verdict)
                yield one.relevant, told if len(turn.said) > 1 else verdict, one.reason
