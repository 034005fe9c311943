"""Gates: which written labels are let through. The first that turns a label away is named, with its reason.

Each gate takes a candidate and returns why it is turned away, or nothing. None of them changes a label, and each
survives what an earlier one would have found, since gates can be turned off one by one.

What they go by: the self-reasoning paper drops labels with wrong answers and with citations that do not hold
(arXiv 2407.19813, on quality control); a right answer alone keeps lucky ones, so quotes, judgements and analysis are
held against the passages and against one another as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from data_builders.entailment import Entails
from data_builders.labels.agreement import agrees
from data_builders.labels.candidate import Candidate, Rejection, numbers
from data_builders.labels.quotes import likeness, verbatim
from data_builders.labels.settings import GatesSettings
from data_builders.labels.wording import (
    MARK,
    concluded_otherwise,
    denies,
    gives_answer,
    is_irrelevant,
    leaked,
    number_in_its_place,
    says_unanswered,
    stated_answers,
    whole_sentences,
)
from data_builders.records import Passage
from data_builders.text import AnswerMatcher, answer_kind, answer_tokens, contains_answer, joined

_QUOTED = 2
"""Words that a quote has at least, but for one that holds an accepted answer."""
Gate = Callable[[Candidate, GatesSettings, Entails | None], str | None]
"""Returns why a candidate is turned away; None lets it through."""


def check(candidate: Candidate, settings: GatesSettings, entails: Entails | None = None) -> Rejection | None:
    """Lead a candidate through all gates that are on, in their order; return what the first to turn it away says.

    Args:
        candidate: a written label and what it is judged by.
        settings: which gates are on, and their bounds.
        entails: the model of `gates.support.model`, for (premise, hypothesis) pairs; not asked where that is null.

    Raises:
        ValueError: `gates.support.model` is set and no model was handed over.
    """
    if settings.support and settings.support.model and entails is None:
        raise ValueError("gates.support.model is set: hand over what load_entailment returns")
    for name, gate in GATES.items():
        if getattr(settings, name) in (None, False):
            continue
        if why := gate(candidate, settings, entails):
            return Rejection(name, why)
    return None


def well_formed(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find what could not be read, and parts that the style asks for and the label lacks.

    Style self_reasoning judges every passage once, with a reason, and writes an analysis; an answer has quotes. Style
    reasoning names at least one passage for an answer, with a reason. That a context without evidence must not be
    answered at all is for other gates to say.
    """
    if candidate.problems:
        return " ".join(candidate.problems)
    return next(_missing(candidate), None)


def _missing(candidate: Candidate) -> Iterator[str]:
    label, whole = candidate.label, candidate.style == "self_reasoning"
    answers = label.answer is not None and candidate.asked.answerable
    judged = [item.passage for item in label.relevance]
    twice = [index for index in judged if judged.count(index) > 1]
    if label.answer is not None and not label.answer.strip():
        yield "The answer is empty."
    if twice:
        yield f"It judges {numbers(twice)} more than once."
    if whole and len(judged) < len(candidate.passages):
        yield f"It judges {len(judged)} of {len(candidate.passages)} passages."
    if bare := [item.passage for item in label.relevance if (whole or item.relevant) and not item.reason.strip()]:
        yield f"It gives no reason for its judgement of {numbers(bare)}."
    if whole and not label.analysis.strip():
        yield "It has no analysis."
    if bare := [item.passage for item in label.evidence if not answer_tokens(item.quote)]:
        yield f"A quote of {numbers(bare)} is empty."
    if answers and not (label.evidence if whole else any(item.relevant for item in label.relevance)):
        yield "It answers without quoting a passage." if whole else "It answers without naming a relevant passage."


def citations(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find numbers of passages that were not shown: of judgements, quotes and marks [n]."""
    label, count = candidate.label, len(candidate.passages)
    named = [*(item.passage for item in label.relevance), *(item.passage for item in label.evidence)]
    marks = (number for text in _written(candidate) for mark in MARK.findall(text) for number in _digits(mark))
    outside = [index for index in chain(named, (number - 1 for number in marks)) if not 0 <= index < count]
    return f"It cites {numbers(outside)}, and the passages shown are [1] to [{count}]." if outside else None


def _digits(mark: str) -> list[int]:
    return [int(number) for number in mark.strip("[]").replace(";", ",").split(",")]


def no_evidence(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find quotes and relevant passages in a label of a context that does not hold all that the answer needs."""
    if candidate.asked.answerable:
        return None
    label = candidate.label
    if label.evidence:
        return f"It quotes {numbers([item.passage for item in label.evidence])}, and this context has no evidence."
    relevant = [item.passage for item in label.relevance if item.relevant]
    return f"It calls {numbers(relevant)} relevant, and this context has no evidence." if relevant else None


def quotes(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find quotes that are not in the passage they cite, or say nothing; how texts are compared is in quotes.py."""
    least = settings.quotes or 1.0
    for item in candidate.label.evidence:
        if len(answer_tokens(item.quote)) < _QUOTED and not contains_answer(item.quote, candidate.asked.answers):
            return f'"{item.quote}" is too short to say anything: quote a sentence.'
        passage = _shown(candidate, item.passage)
        if passage is not None and not verbatim(item.quote, passage.text, least):
            return _misquoted(candidate, item.passage, item.quote, least)
    return None


def _misquoted(candidate: Candidate, index: int, quote: str, least: float) -> str:
    elsewhere = [place for place, other in enumerate(candidate.passages) if verbatim(quote, other.text, least)]
    if elsewhere:
        return f'"{quote}" stands in {numbers(elsewhere)}, not in [{index + 1}].'
    if verbatim(quote, candidate.passages[index].title, least):
        return f'"{quote}" stands in the title of [{index + 1}], not in its text.'
    found = likeness(quote, candidate.passages[index].text)
    return f'"{quote}" is not in [{index + 1}]: the likeness to it is {found:.2f}, at least {least:.2f} is asked for.'


def answer(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find answers that agree with no accepted one (agreement.py), and answers and abstentions out of place."""
    asked, said = candidate.asked, candidate.label.answer
    if not asked.answerable:
        return None if said is None else f'It answers "{said}", and this context has no evidence.'
    accepted = " | ".join(asked.answers) or "none"
    if said is None:
        return f"It abstains, and {numbers(asked.gold) or 'this context'} shows the answer: {accepted}."
    return None if agrees(said, asked.answers) else f'"{said}" agrees with no accepted answer: {accepted}.'


def support(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find answers that the cited passages do not say.

    Cited are the quoted passages; without quotes, those judged relevant. With a model they have to entail, read
    together, what the analysis comes to. Without one, one of them has to bear an accepted answer, as the guard of
    negatives looks for it; not every gold passage has to be cited. Where no gold passage bears the answer word for word
    (yes and no, comparisons, sums), one of them has to be cited: that they say it is what the annotation tells.
    """
    label, asked = candidate.label, candidate.asked
    if label.answer is None or not asked.answerable:
        return None
    named = [item.passage for item in label.evidence] or [item.passage for item in label.relevance if item.relevant]
    cited = {index: passage for index in named if (passage := _shown(candidate, index)) is not None}
    if settings.support is not None and settings.support.model and entails is not None:
        premise = "\n".join(f"{passage.title}\n{passage.text}".strip() for passage in cited.values())
        sentence = hypothesis(candidate)
        is_said = bool(cited) and entails([(premise, sentence)])[0]
        return None if is_said else f'{numbers(named) or "nothing"}, cited, does not entail "{sentence}".'
    matcher = AnswerMatcher.of(asked.answers, asked.question)
    bearing = {index for index, passage in enumerate(candidate.passages) if matcher.bears(_read(passage))}
    wanted = bearing if bearing & set(asked.gold) else set(asked.gold)
    if wanted & set(cited):
        return None
    told = "does not hold an accepted answer" if wanted is bearing else "is no gold passage"
    return f"What it cites, {numbers(named) or 'nothing'}, {told}; {numbers(tuple(wanted)) or 'none'} would."


def hypothesis(candidate: Candidate) -> str:
    """Return what the cited passages have to entail: the last sentence of the analysis that holds the answer.

    Without one, or where the answer is a verdict such as yes, it is the question and the answer behind it.
    """
    label, asked = candidate.label, candidate.asked
    said = label.answer or ""
    told = [one for one in whole_sentences(label.analysis) if contains_answer(one, [said, *asked.answers])]
    if told and answer_kind(said) != "unjudgeable":
        return " ".join(MARK.sub("", told[-1]).split())
    return f"{asked.question} {said}"


def consistent(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find contradictions: between judgements, reasons and quotes, and between analysis and answer (wording.py)."""
    return next(chain(_contradicting_judgements(candidate), _contradicting_analysis(candidate)), None)


def _contradicting_judgements(candidate: Candidate) -> Iterator[str]:
    label = candidate.label
    relevant = {item.passage for item in label.relevance if item.relevant}
    irrelevant = {item.passage for item in label.relevance if not item.relevant}
    if both := relevant & irrelevant:
        yield f"It judges {numbers(list(both))} relevant and irrelevant."
    if quoted := [item.passage for item in label.evidence if item.passage in irrelevant]:
        yield f"It quotes {numbers(quoted)} and judges it irrelevant."
    if label.answer is not None and label.relevance and not relevant:
        yield "It judges no passage relevant and answers all the same."
    for item in label.relevance:
        if item.relevant and is_irrelevant(item.reason):
            yield f'It judges [{item.passage + 1}] relevant, for this reason: "{item.reason}"'
        if not item.relevant and gives_answer(item.reason):
            yield f'It judges [{item.passage + 1}] irrelevant, for this reason: "{item.reason}"'


def _contradicting_analysis(candidate: Candidate) -> Iterator[str]:
    label, asked = candidate.label, candidate.asked
    reasons = (item.reason for item in label.relevance if item.relevant)
    text = label.analysis or " ".join(reasons)
    for said in stated_answers(text):
        if label.answer is None:
            yield f'It abstains, and its analysis says that the answer is "{said}".'
        elif not (agrees(said, asked.answers) or contains_answer(said, [label.answer]) or _is_in(said, label.answer)):
            yield f'Its answer is "{label.answer}", and its analysis says that it is "{said}".'
    if label.answer is None:
        return
    answers = [label.answer, *asked.answers]
    if denied := says_unanswered(text, answers):
        yield f'It answers, and its analysis says: "{denied}"'
    is_verdict = any(answer_kind(one) == "unjudgeable" for one in asked.answers)
    if not is_verdict and (other := concluded_otherwise(text, answers, asked.question)):
        yield f'Its answer is "{label.answer}", and its analysis comes to "{other}"'
    shown = [f"{passage.title}\n{passage.text}" for passage in candidate.passages]
    if not is_verdict and (other := number_in_its_place(text, answers, asked.question, shown)):
        yield f'Its answer is "{label.answer}", and its analysis has another number in its place: "{other}"'
    if not is_verdict and not contains_answer(asked.question, answers) and denies(text, answers):
        yield f'Its answer is "{label.answer}", and its analysis says that it is not: "{text}"'


def _is_in(said: str, answer: str) -> bool:
    """Tell whether what an analysis says is a part of the answer, as where a full stop inside it cuts it short."""
    return contains_answer(answer, [said])


def leak(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find words about an answer given beforehand or about instructions, and answers that only a teacher can know.

    Words that a passage or the question has as well are the topic, no leak. An abstention must not tell the answer that
    it says nobody shows; it may speak of one that a passage or the question mentions.
    """
    texts = (f"{passage.title}\n{passage.text}" for passage in candidate.passages)
    shown = [candidate.asked.question, *texts]
    told = " ".join(_written(candidate))
    if found := leaked(told, shown):
        return f'Its reasoning speaks of "{found}".'
    if candidate.label.answer is not None:
        return None
    known = [one for one in candidate.asked.answers if answer_kind(one) == "strong" and contains_answer(told, [one])]
    hidden = [one for one in known if not any(contains_answer(text, [one]) for text in shown)]
    return f'It abstains and still tells "{hidden[0]}", which no passage shows.' if hidden else None


def length(candidate: Candidate, settings: GatesSettings, entails: Entails | None) -> str | None:
    """Find reasoning outside the bounds.

    Counted are the words of reasons and analysis as the answer matcher cuts them, without marks and English articles:
    signs in Chinese, Japanese and Thai. Quotes and answer do not count.
    """
    if settings.length is None:
        return None
    words = sum(len(answer_tokens(MARK.sub(" ", text))) for text in _written(candidate))
    if settings.length.least <= words <= settings.length.most:
        return None
    return f"Its reasoning has {words} words; {settings.length.least} to {settings.length.most} are asked for."


GATES: dict[str, Gate] = {
    "well_formed": well_formed,
    "citations": citations,
    "no_evidence": no_evidence,
    "quotes": quotes,
    "answer": answer,
    "support": support,
    "consistent": consistent,
    "leak": leak,
    "length": length,
}
"""In their order: what is not there is not judged, what is not grounded need not be consistent."""


def _written(candidate: Candidate) -> list[str]:
    """Return the reasoning of a label: reasons and analysis, quotes aside."""
    label = candidate.label
    reasons = chain((item.reason for item in label.relevance), (item.reason for item in label.evidence))
    return [*reasons, label.analysis]


def _shown(candidate: Candidate, index: int) -> Passage | None:
    return candidate.passages[index] if 0 <= index < len(candidate.passages) else None


def _read(passage: Passage) -> str:
    return joined(f"{passage.title}\n{passage.text}")
