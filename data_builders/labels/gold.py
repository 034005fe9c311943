"""Labels from the source's gold annotations: no teacher, nothing guessed. Composes nothing, renders nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import (
    ContextQuestion,
    ContextRow,
    Evidence,
    Label,
    Passage,
    Question,
    Relevance,
    check_context_row,
)
from data_builders.sentences import quote_with
from data_builders.text import contains_answer

GoldAbsent = Literal["abstain", "answer", "drop"]


def label_rows(
    rows: Iterable[ContextRow], annotated: Callable[[str], Question], gold_absent: GoldAbsent, tally: Tally
) -> Iterator[ContextRow]:
    """Label every question of every row; rows that lose their last question are left out.

    Raises:
        RagFtError: a label breaks an invariant, for example a quote that is not in its passage.
    """
    for row in rows:
        kept = []
        for asked in row.questions:
            if not asked.answerable and asked.answers and gold_absent == "drop":
                tally.drop("questions without gold (contexts.gold_absent: drop)", 1, asked.id)
                continue
            label = gold_label(row.passages, asked, annotated(asked.id), gold_absent)
            tally.count("labels that abstain" if label.answer is None else "labels with an answer")
            kept.append(replace(asked, label=label, label_source="gold"))
        if not kept:
            tally.drop("contexts without a question left", 1, row.id)
            continue
        labelled = replace(row, questions=tuple(kept))
        check_context_row(labelled)
        _measure(labelled, tally)
        yield labelled


def gold_label(
    passages: Sequence[Passage], asked: ContextQuestion, annotated: Question, gold_absent: GoldAbsent
) -> Label:
    """Write the label of one question: a judgement of every shown passage, quotes, analysis, answer.

    Without gold it abstains (no evidence, answer None) or, for `gold_absent` "answer", answers without evidence; a
    question annotated as unanswerable has no answer to give, so it abstains whatever the setting.
    Evidence keeps the order of the annotations: the order of the hops. Where the source annotates none, it is the
    sentence of each gold passage that says the answer. Of several accepted answers the first that is stated is written.
    """
    relevance = tuple(_judge(index, passage, asked, annotated) for index, passage in enumerate(passages))
    if asked.answerable:
        evidence = _evidence(passages, annotated) or _quoted(passages, asked)
        answer = _stated(passages, asked)
        return Label(relevance, evidence, _analysis(annotated, answer), answer)
    if gold_absent == "answer" and asked.answers:
        analysis = "No shown passage answers the question, so the answer comes from memory."
        return Label(relevance, (), analysis, annotated.answers[0])
    return Label(relevance, (), "No shown passage answers the question.", None)


def _judge(index: int, passage: Passage, asked: ContextQuestion, annotated: Question) -> Relevance:
    about = f"It is about {passage.title}" if passage.title else "It is about something else"
    if asked.answerable and index in asked.gold:
        reasons = dict.fromkeys(item.reason for item in annotated.evidence if item.passage_id == passage.id)
        return Relevance(index, True, " ".join(filter(None, reasons)) or f"{about} and supports the answer.")
    if index in asked.has_answer:
        return Relevance(index, False, f"{about} and only mentions the words of the answer.")
    return Relevance(index, False, f"{about} and does not answer the question.")


def _evidence(passages: Sequence[Passage], annotated: Question) -> tuple[Evidence, ...]:
    place = {passage.id: index for index, passage in enumerate(passages)}
    missing = next((item.passage_id for item in annotated.evidence if item.passage_id not in place), None)
    if missing is not None:
        raise RagFtError(
            f"question {annotated.id} quotes passage {missing}, which is not among its gold passages: "
            f"add {missing} to its gold or remove the quote from the source's data."
        )
    return tuple(Evidence(place[item.passage_id], item.quote, item.reason) for item in annotated.evidence)


def _quoted(passages: Sequence[Passage], asked: ContextQuestion) -> tuple[Evidence, ...]:
    """Cite the sentences of gold passages that say the answer, for sources that annotate no quotes."""
    quotes = ((index, quote_with(passages[index].text, asked.answers)) for index in asked.gold)
    return tuple(Evidence(index, quote, "It states the answer.") for index, quote in quotes if quote)


def _stated(passages: Sequence[Passage], asked: ContextQuestion) -> str:
    """Return the first accepted answer that a gold passage states, so that nothing is learned that is not shown.

    Where none does (yes and no, comparisons) it is the first of all.
    """
    shown = [f"{passages[index].title}\n{passages[index].text}" for index in asked.gold]
    stated = (answer for answer in asked.answers if any(contains_answer(text, [answer]) for text in shown))
    return next(stated, asked.answers[0])


def _analysis(annotated: Question, answer: str) -> str:
    return annotated.analysis or f"The relevant passages together give the answer: {answer}."


def _measure(row: ContextRow, tally: Tally) -> None:
    for question in row.questions:
        if question.label is not None:
            tally.measure("quotes per label", len(question.label.evidence))
            tally.measure("words of analysis", len(question.label.analysis.split()))
