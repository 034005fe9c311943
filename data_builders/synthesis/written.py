"""From replies to questions with gold passages and quotes: reads, filters, counts. Asks through an `Asker`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Passage, Question
from data_builders.servers import Asker, Reply
from data_builders.servers.job import PASSING, count_money, count_tokens
from data_builders.synthesis.candidate import Candidate, candidates
from data_builders.synthesis.filters import Rejection, first_rejection
from data_builders.synthesis.links import source_of
from data_builders.synthesis.others import Judged, Kept, Search, answered_elsewhere, without_repeats
from data_builders.synthesis.plan import Asked, calls, plan
from data_builders.synthesis.settings import TeacherQuestionsSettings
from data_builders.text import contains_answer

GROUPS = {1: "synthesised", 2: "synthesised_two_hop"}
"""What questions are reported under, by how many passages they need."""
REASONS = {
    "no_reply": "calls that brought no answer",
    "well_formed": "questions that could not be read",
    "lengths": "questions too short or too long, or with such an answer or quote",
    "quote": "questions whose quote does not stand in the passage",
    "answer": "questions whose answer does not stand in the passage",
    "unsaid": "questions that say their answer",
    "self_contained": "questions that make no sense without the passage",
    "hops": "questions of two hops that need one passage only",
    "repeats": "questions asked twice",
    "elsewhere": "questions that other passages answer",
}
"""What a report calls the questions that a filter turned away."""


@dataclass(frozen=True)
class Rejected:
    """Something that was turned away, as rejected.jsonl lists it."""

    order: tuple[int, int]
    filter: str
    why: str
    question: str
    answer: str
    quotes: tuple[str, ...]
    passages: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Return the row of rejected.jsonl."""
        return {
            "filter": self.filter,
            "why": self.why,
            "question": self.question,
            "answer": self.answer,
            "quotes": list(self.quotes),
            "passages": list(self.passages),
        }


@dataclass(frozen=True)
class Synthesis:
    """What questions are made of.

    Attributes:
        passages: the corpus.
        sources: names of the sources, in the order of the recipe.
        seed: of the recipe.
    """

    settings: TeacherQuestionsSettings
    passages: Sequence[Passage]
    sources: Sequence[str]
    seed: int

    @property
    def prefixes(self) -> Sequence[str]:
        """Names that stand before ids: only several sources are told apart so."""
        return self.sources if len(self.sources) > 1 else ()

    def plan(self, tally: Tally) -> list[Asked]:
        """Return the calls to make."""
        return plan(self.settings, self.passages, self.seed, self.prefixes, tally)


@dataclass
class _Sorted:
    """Questions and rejections as replies come in; sorted afterwards, so that the order of arrival decides nothing."""

    kept: list[Kept] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def write_synthesis(
    synthesis: Synthesis,
    planned: Sequence[Asked],
    asker: Asker,
    search: Search,
    asked_before: Iterable[Question],
    tally: Tally,
) -> tuple[list[Question], list[Rejected]]:
    """Have questions written and return those that are kept, and what was turned away; both in the order of the plan.

    Replies are read as they come and only questions are held in memory. The result depends on the replies, not on
    their order.

    Args:
        synthesis: settings and passages.
        planned: the calls to make.
        asker: makes them.
        search: finds passages for questions, to see which other ones hold the answer.
        asked_before: questions of the sources, which are not to be asked again.
        tally: is told what was kept and turned away.

    Raises:
        RagFtError: what the asker raises, or the template cannot be filled in.
    """
    found = _Sorted()
    for call, reply in asker(calls(synthesis.settings, synthesis.passages, planned)):
        place = int(call.key)
        _read(synthesis, place, planned[place], reply, found, tally)
    found.kept.sort(key=lambda one: one.order)
    kept = _passed(without_repeats(found.kept, asked_before, synthesis.settings.filters.near_duplicate), found)
    if synthesis.settings.filters.elsewhere != "keep":
        kept = _passed(answered_elsewhere(kept, synthesis.passages, search, synthesis.settings.filters), found)
    found.rejected.sort(key=lambda one: one.order)
    count_money(synthesis.settings.endpoint, tally)
    _tell(kept, found.rejected, tally)
    return [one.question for one in kept], found.rejected


def _read(synthesis: Synthesis, place: int, asked: Asked, reply: Reply, found: _Sorted, tally: Tally) -> None:
    """Read one reply into questions that passed the filters and those that did not."""
    shown = [synthesis.passages[position] for position in asked.positions]
    count_tokens(reply, tally)
    if reply.text is None:
        why = reply.failure or "the server gave none"
        tally.count(PASSING, int(reply.may_pass))
        found.rejected.append(_rejected(Candidate(tuple(shown)), (place, 0), Rejection("no_reply", why)))
        return
    if reply.truncated:
        tally.count("replies cut off at data.questions.endpoint.max_tokens")
    written = list(candidates(reply.text, shown, asked.link))
    if not written:
        tally.count("passages in which the teacher found nothing to ask")
    tally.count("questions beyond data.questions.per_passage", max(0, len(written) - synthesis.settings.per_passage))
    for number, candidate in enumerate(written[: synthesis.settings.per_passage]):
        rejection = first_rejection(candidate, synthesis.settings.filters)
        if rejection:
            found.rejected.append(_rejected(candidate, (place, number), rejection))
        else:
            question = _question(candidate, synthesis)
            found.kept.append(Kept((place, number), question, asked.positions))


def _question(candidate: Candidate, synthesis: Synthesis) -> Question:
    """Return a candidate as a question; it goes where its passages go, if their source puts them in a split."""
    passages, prefixes = candidate.passages, synthesis.prefixes
    ids = tuple(passage.id for passage in passages)
    evidence = tuple(
        GoldEvidence(passage.id, quote, _reason(candidate, quote))
        for passage, quote in zip(passages, candidate.found, strict=True)
    )
    return Question(
        id=f"s-{content_hash([*ids, candidate.question, candidate.answer])}",
        question=candidate.question,
        answers=(candidate.answer,),
        gold=ids,
        evidence=evidence,
        source=source_of(ids[0], prefixes) or synthesis.sources[0],
        group=GROUPS[len(ids)],
        split=next((passage.split for passage in passages if passage.split), ""),
    )


def _reason(candidate: Candidate, quote: str) -> str:
    if contains_answer(quote, [candidate.answer]):
        return "It states the answer."
    return f"It leads to {candidate.link}." if candidate.link else "It is part of what answers the question."


def _rejected(candidate: Candidate, order: tuple[int, int], rejection: Rejection) -> Rejected:
    ids = tuple(passage.id for passage in candidate.passages)
    texts = (candidate.question, candidate.answer, candidate.quotes)
    return Rejected(order, rejection.filter, rejection.why, *texts, ids)


def _passed(judged: Iterator[Judged], found: _Sorted) -> list[Kept]:
    """Return the questions that nothing speaks against, and list the others."""
    kept = []
    for one, rejection in judged:
        if rejection is None:
            kept.append(one)
            continue
        question = one.question
        quotes = tuple(item.quote for item in question.evidence)
        texts = (question.question, question.answers[0], quotes, question.gold)
        found.rejected.append(Rejected(one.order, rejection.filter, rejection.why, *texts))
    return kept


def _tell(kept: Sequence[Kept], rejected: Sequence[Rejected], tally: Tally) -> None:
    """Count what was kept and what was not, with examples to read; the first of each reason by its passage."""
    tally.count("questions written", len(kept) + sum(one.filter != "no_reply" for one in rejected))
    for one in kept:
        question = one.question
        tally.count(f"questions kept: {question.group}")
        tally.count("questions kept with other passages that support the answer", bool(question.alternatives))
        tally.excerpt("questions kept", f"{question.question} {question.answers[0]}")
    for item in rejected:
        tally.drop(REASONS[item.filter], 1, item.passages[0])
        tally.excerpt(REASONS[item.filter], f"{item.question} {item.answer} ({item.why})".strip())
    _advise(len(kept), rejected, tally)


def _advise(kept: int, rejected: Sequence[Rejected], tally: Tally) -> None:
    silent = tally.dropped[REASONS["no_reply"]]
    if silent:
        tally.advice.append(
            f"{silent} calls brought no answer (rejected.jsonl says why). Those that failed in passing are asked once "
            "more by the next build; later, delete the file manifest.json of this step to ask them again."
        )
    judged = kept + len(rejected) - silent
    if judged >= 20 and kept * 3 < judged:
        worst, amount = tally.dropped.most_common(1)[0]
        tally.advice.append(
            f"{kept} of {judged} questions were kept; most of the others ({amount}) are {worst}. Read rejected.jsonl: "
            "a larger model, another template (data.questions.template) or data.questions.filters may help."
        )


def refuse_nothing(kept: int, rejected: Sequence[Rejected], before: int, listed: str) -> None:
    """Say so where neither the sources nor the teacher gave a question.

    Raises:
        RagFtError: there is none; the message names what most were turned away for.
    """
    if kept or before:
        return
    reasons: dict[str, int] = {}
    for one in rejected:
        reasons[REASONS[one.filter]] = reasons.get(REASONS[one.filter], 0) + 1
    told = ", ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items(), key=lambda item: -item[1])[:3])
    why = f": {told}. {listed} has each of them" if told else ", for there was no passage to ask about"
    raise RagFtError(
        f"the teacher of data.questions wrote no question that can be kept{why}. Change data.questions.endpoint.model, "
        "data.questions.template, data.questions.min_words or data.questions.filters."
    )
