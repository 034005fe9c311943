"""Which candidates are kept: one small function a filter, tried in order. Those over all questions are in others.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_builders.documents.chunks import words_in
from data_builders.documents.evidence import fold
from data_builders.synthesis.candidate import Candidate
from data_builders.synthesis.settings import FiltersSettings
from data_builders.synthesis.wording import needs_its_passage
from data_builders.text import answer_kind, contains_answer

Filter = Callable[[Candidate, FiltersSettings], str | None]
FILTERS: dict[str, Filter] = {}
"""In the order in which they are tried. Each says why a candidate goes, or None."""


@dataclass(frozen=True)
class Rejection:
    """Which filter turned a candidate away, and why."""

    filter: str
    why: str


def first_rejection(candidate: Candidate, settings: FiltersSettings) -> Rejection | None:
    """Return what the first filter that turns a candidate away says; None where it is kept."""
    for name, check in FILTERS.items():
        why = check(candidate, settings)
        if why:
            return Rejection(name, why)
    return None


def _named(name: str) -> Callable[[Filter], Filter]:
    def register(check: Filter) -> Filter:
        FILTERS[name] = check
        return check

    return register


@_named("well_formed")
def _well_formed(candidate: Candidate, settings: FiltersSettings) -> str | None:
    return candidate.problem or None


@_named("lengths")
def _lengths(candidate: Candidate, settings: FiltersSettings) -> str | None:
    bounds = settings.lengths
    if bounds is None:
        return None
    measured = [
        ("question", candidate.question, bounds.least_question, bounds.most_question),
        ("answer", candidate.answer, 1, bounds.most_answer),
        *(("quote", quote, bounds.least_quote, bounds.most_quote) for quote in candidate.quotes),
    ]
    for what, text, least, most in measured:
        if not least <= (words := words_in(text)) <= most:
            return f"its {what} has {words} words, not {least} to {most}"
    return None


@_named("quote")
def _quote_stands_in_its_passage(candidate: Candidate, settings: FiltersSettings) -> str | None:
    for quote, found in zip(candidate.quotes, candidate.found, strict=True):
        if not found:
            return f'the quote "{quote}" does not stand in its passage'
    return None


@_named("answer")
def _answer_stands_there(candidate: Candidate, settings: FiltersSettings) -> str | None:
    if answer_kind(candidate.answer) in ("unjudgeable", "empty"):
        return f'"{candidate.answer}" is no answer that a passage says'
    texts = (f"{passage.title}\n{passage.text}" for passage in candidate.passages)
    if any(contains_answer(text, [candidate.answer]) for text in texts):
        return None
    return f'the answer "{candidate.answer}" stands in no passage shown'


@_named("unsaid")
def _answer_is_not_in_the_question(candidate: Candidate, settings: FiltersSettings) -> str | None:
    if settings.unsaid and contains_answer(candidate.question, [candidate.answer]):
        return f'the question says its answer, "{candidate.answer}"'
    return None


@_named("self_contained")
def _makes_sense_by_itself(candidate: Candidate, settings: FiltersSettings) -> str | None:
    return needs_its_passage(candidate.question) or None if settings.self_contained else None


@_named("hops")
def _needs_both_passages(candidate: Candidate, settings: FiltersSettings) -> str | None:
    """One passage with both quotes is enough, as is that of a name which the question says itself."""
    if len(candidate.passages) < 2:
        return None
    for place, passage in enumerate(candidate.passages, start=1):
        if all(fold(quote) in fold(passage.text) for quote in candidate.found):
            return f"passage {place} holds both quotes"
    if contains_answer(candidate.question, [candidate.link]):
        return f'the question names "{candidate.link}", so that one passage is enough'
    if contains_answer(candidate.link, [candidate.answer]):
        return f'its answer is "{candidate.link}", which both passages name'
    return None
