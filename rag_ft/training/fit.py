"""Fitting a row to a length by leaving out its lowest-ranked negatives. Never cuts a question, gold or target."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from data_builders.records import ContextQuestion, ContextRow, Label
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.training.rows import TokenRow, encode_row


@dataclass(frozen=True)
class Fitted:
    """A row that fits, and what was left out of it."""

    tokens: TokenRow
    row: ContextRow
    dropped_passages: int = 0
    dropped_questions: int = 0


def fit_row(
    row: ContextRow, encoder: Encoder, max_length: int, spans_in_loss: Collection[str] = SPAN_NAMES
) -> Fitted | None:
    """Leave out negatives from the lowest rank up until the row has `max_length` tokens or fewer.

    A shared row without negatives left gives up its last question, whose gold may then be left out like a negative.
    Returns None where one question with its gold passages is too long.
    """
    passages, questions = len(row.passages), len(row.questions)
    while True:
        tokens = encode_row(row, encoder, spans_in_loss)
        if len(tokens.input_ids) <= max_length:
            return Fitted(tokens, row, passages - len(row.passages), questions - len(row.questions))
        worst = _lowest_ranked_negative(row)
        if worst is not None:
            row = without_passage(row, worst)
        elif len(row.questions) > 1:
            row = replace(row, questions=row.questions[:-1])
        else:
            return None


def show_at_most(row: ContextRow, passages: int | None) -> ContextRow:
    """Leave out negatives from the lowest rank up until `passages` are left; gold stays, however many it are."""
    while passages is not None and len(row.passages) > passages:
        worst = _lowest_ranked_negative(row)
        if worst is None:
            return row
        row = without_passage(row, worst)
    return row


def _lowest_ranked_negative(row: ContextRow) -> int | None:
    """Return the index of the passage no question needs and every retriever ranks worst; random ones go first.

    The last passage stays: without any the prompt would be the closed-book one, which nobody should learn to decline.
    """
    if len(row.passages) == 1:
        return None
    needed = {index for question in row.questions for index in question.gold}
    negatives = [index for index in range(len(row.passages)) if index not in needed]
    return max(negatives, key=lambda index: (_best_rank(row, index), index), default=None)


def _best_rank(row: ContextRow, index: int) -> float:
    found = [question.retrieved[index] for question in row.questions]
    return min((item.rank for item in found if item is not None and item.rank > 0), default=math.inf)


def without_passage(row: ContextRow, index: int) -> ContextRow:
    """Return the row without passage `index`; every index behind it moves down by one."""
    passages = row.passages[:index] + row.passages[index + 1 :]
    return replace(row, passages=passages, questions=tuple(_without(question, index) for question in row.questions))


def _without(question: ContextQuestion, index: int) -> ContextQuestion:
    return replace(
        question,
        gold=_moved(question.gold, index),
        has_answer=_moved(question.has_answer, index),
        retrieved=question.retrieved[:index] + question.retrieved[index + 1 :],
        label=None if question.label is None else _label_without(question.label, index),
    )


def _label_without(label: Label, index: int) -> Label:
    relevance = (replace(i, passage=i.passage - (i.passage > index)) for i in label.relevance if i.passage != index)
    evidence = (replace(i, passage=i.passage - (i.passage > index)) for i in label.evidence if i.passage != index)
    return replace(label, relevance=tuple(relevance), evidence=tuple(evidence))


def _moved(indices: tuple[int, ...], gone: int) -> tuple[int, ...]:
    return tuple(index - (index > gone) for index in indices if index != gone)
