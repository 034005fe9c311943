"""Fitting a row to a length by leaving out its lowest-ranked negatives. Never cuts a question, gold or target."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

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
        if len(tokens.input_ids) > max_length:
            row, tokens = _with_fewest_left_out(row, tokens, encoder, max_length, spans_in_loss)
        if len(tokens.input_ids) <= max_length:
            return Fitted(tokens, row, passages - len(row.passages), questions - len(row.questions))
        if len(row.questions) == 1:
            return None
        row = replace(row, questions=row.questions[:-1])


def _with_fewest_left_out(
    row: ContextRow, tokens: TokenRow, encoder: Encoder, max_length: int, spans_in_loss: Collection[str]
) -> tuple[ContextRow, TokenRow]:
    """Return the row with as few negatives left out as make it fit; without any, too long, where all are too few.

    The lengths of the passages say about how many must go, so that a row is encoded a few times and not once for each.
    """
    order = _negatives_from_the_last(row)
    texts = encoder.prompt(row.questions[0].question, row.passages)[1:-1]
    saved = list(accumulate(len(texts[index]) for index in order))
    excess = len(tokens.input_ids) - max_length

    def without_first(count: int) -> tuple[ContextRow, TokenRow]:
        if count == 0:
            return row, tokens
        fewer = without_passages(row, set(order[:count]))
        return fewer, encode_row(fewer, encoder, spans_in_loss)

    count = min(bisect_left(saved, excess) + 1, len(order))
    found = without_first(count)
    while len(found[1].input_ids) > max_length and count < len(order):
        count += 1
        found = without_first(count)
    while count > 1 and len((fuller := without_first(count - 1))[1].input_ids) <= max_length:
        count -= 1
        found = fuller
    return found


def show_at_most(row: ContextRow, passages: int | None) -> ContextRow:
    """Leave out negatives from the lowest rank up until `passages` are left; gold stays, however many it are."""
    if passages is None or len(row.passages) <= passages:
        return row
    return without_passages(row, set(_negatives_from_the_last(row)[: len(row.passages) - passages]))


def _negatives_from_the_last(row: ContextRow) -> list[int]:
    """Return the indices of passages no question needs: random ones first, then those every retriever ranks worst.

    One passage stays: without any the prompt would be the closed-book one, which nobody should learn to decline.
    """
    needed = {index for question in row.questions for index in question.gold}
    negatives = [index for index in range(len(row.passages)) if index not in needed]
    order = sorted(negatives, key=lambda index: (_best_rank(row, index), index), reverse=True)
    return order if needed else order[:-1]


def _best_rank(row: ContextRow, index: int) -> float:
    found = [question.retrieved[index] for question in row.questions]
    return min((item.rank for item in found if item is not None and item.rank > 0), default=math.inf)


def without_passages(row: ContextRow, gone: Collection[int]) -> ContextRow:
    """Return the row without some passages, named by their index; every index behind one moves down."""
    kept = [index for index in range(len(row.passages)) if index not in gone]
    return replace(
        row,
        passages=tuple(row.passages[index] for index in kept),
        questions=tuple(_only(question, kept) for question in row.questions),
    )


def _only(question: ContextQuestion, kept: Sequence[int]) -> ContextQuestion:
    place = {index: number for number, index in enumerate(kept)}
    return replace(
        question,
        gold=tuple(place[index] for index in question.gold if index in place),
        has_answer=tuple(place[index] for index in question.has_answer if index in place),
        retrieved=tuple(question.retrieved[index] for index in kept),
        label=None if question.label is None else _label_of(question.label, place),
    )


def _label_of(label: Label, place: Mapping[int, int]) -> Label:
    relevance = (replace(item, passage=place[item.passage]) for item in label.relevance if item.passage in place)
    evidence = (replace(item, passage=place[item.passage]) for item in label.evidence if item.passage in place)
    return replace(label, relevance=tuple(relevance), evidence=tuple(evidence))
