"""What the short answer of a case is worth: the string metrics applied to it, and whether it is false or planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.metrics.cover import cover_accuracy
from rag_ft.evaluation.metrics.korean import holds_hangul

AnswerMetric = Callable[[str, Sequence[str]], float]
"""From a text and its accepted answers to a number from 0 to 1."""
Metric = Callable[[Case], float | None]
"""From a case to a number from 0 to 1; None where it does not apply to the case, which then stays out of the mean."""


def of_answer(measure: AnswerMetric) -> Metric:
    """Return a string metric as a metric of cases; it applies to every one.

    Abstentions, failures and outputs without an answer are 0. A question annotated as unanswerable has no accepted
    answer: right is who declines, as in SQuAD 2.0 (arXiv 1806.03822).
    """

    def metric(case: Case) -> float:
        settled = _settled(case)
        answer = case.parsed.answer
        if settled is None and answer is None:
            return 0.0  # without this, declining would match an answer that normalises to nothing
        return measure(answer or "", case.prediction.answers) if settled is None else settled

    return metric


def of_output(measure: AnswerMetric) -> Metric:
    """Return a string metric of the whole output, what was written around the answer included."""

    def metric(case: Case) -> float:
        settled = _settled(case)
        return measure(case.prediction.output, case.prediction.answers) if settled is None else settled

    return metric


def where_korean(metric: Metric) -> Metric:
    """Return a metric that applies only where an accepted answer holds Korean letters."""
    return lambda case: metric(case) if holds_hangul(case.prediction.answers) else None


def _settled(case: Case) -> float | None:
    """Return the value that stands without comparing texts."""
    if case.prediction.failure is not None:
        return 0.0
    return float(case.parsed.abstained) if not case.prediction.answers else None


def false_answer(case: Case) -> float | None:
    """Return 1.0 for a wrong answer, 0.0 for a right one; abstentions and failures are left out.

    Wrong is what accuracy says; an output without an answer is no abstention, so it counts as a wrong one.
    """
    if case.prediction.failure is not None or case.parsed.abstained:
        return None
    return 1.0 - cover_accuracy(case.parsed.answer or "", case.prediction.answers)


def hallucinated(case: Case) -> float | None:
    """Return 1.0 where an answer came though the passages lack the evidence; as a mean, the hallucination rate."""
    return float(not case.parsed.abstained) if case.may_decline and not case.prediction.answerable else None


def over_refused(case: Case) -> float | None:
    """Return 1.0 where the output declined though the passages hold the evidence; as a mean, the over-refusal."""
    return float(case.parsed.abstained) if case.may_decline and case.prediction.answerable else None


def misled(case: Case) -> float | None:
    """Return 1.0 where the answer holds what a counterfactual context planted, and no accepted answer."""
    row = case.prediction
    if row.failure is not None or not row.planted:
        return None
    answer = case.parsed.answer or ""
    return cover_accuracy(answer, [row.planted]) * (1.0 - cover_accuracy(answer, row.answers))


def well_formed(case: Case) -> float | None:
    """Return 1.0 where the output has the parts its style asks for, in their order.

    It does not apply to a closed-book prompt in a reasoned style, since that asks for the answer alone.
    """
    if case.style != "answer" and not case.shown:
        return None
    return float(case.prediction.failure is None and case.parsed.well_formed)
