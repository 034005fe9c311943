"""Abstention against answerability of the context: how often a system declines when, and only when, it should.

Answerable means that the gold passages are shown, whatever the data set says about the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Abstention:
    """The 2 x 2 table and its rates. A rate whose denominator is empty is None.

    Attributes:
        hallucination_rate: share of unanswerable contexts that were answered.
        over_refusal: share of answerable contexts that were declined.
        refusal_precision: share of abstentions whose context was unanswerable.
        refusal_recall: share of unanswerable contexts that were declined.
        answerable_precision: share of answers whose context was answerable.
        answerable_recall: share of answerable contexts that were answered.
    """

    answered_answerable: int
    abstained_answerable: int
    answered_unanswerable: int
    abstained_unanswerable: int
    hallucination_rate: float | None
    over_refusal: float | None
    refusal_precision: float | None
    refusal_recall: float | None
    refusal_f1: float | None
    answerable_precision: float | None
    answerable_recall: float | None
    answerable_f1: float | None


def abstention(outcomes: Iterable[tuple[bool, bool]]) -> Abstention:
    """Count (answerable, abstained) pairs and derive the rates."""
    table = Counter((bool(answerable), bool(abstained)) for answerable, abstained in outcomes)
    answered, over_refused = table[True, False], table[True, True]
    hallucinated, declined = table[False, False], table[False, True]
    return Abstention(
        answered_answerable=answered,
        abstained_answerable=over_refused,
        answered_unanswerable=hallucinated,
        abstained_unanswerable=declined,
        hallucination_rate=_share(hallucinated, hallucinated + declined),
        over_refusal=_share(over_refused, answered + over_refused),
        refusal_precision=_share(declined, declined + over_refused),
        refusal_recall=_share(declined, declined + hallucinated),
        refusal_f1=_share(2 * declined, 2 * declined + over_refused + hallucinated),
        answerable_precision=_share(answered, answered + hallucinated),
        answerable_recall=_share(answered, answered + over_refused),
        answerable_f1=_share(2 * answered, 2 * answered + over_refused + hallucinated),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
