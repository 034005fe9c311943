"""A labelled context row as token ids and labels. Labels come from spans of ids, never from searching for markers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from data_builders.records import ContextRow
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.render import SPAN_NAMES

IGNORED = -100


@dataclass(frozen=True)
class TokenRow:
    """One training sequence.

    Attributes:
        input_ids, labels: parallel; labels are IGNORED everywhere but in the spans that carry loss.
        lengths: tokens of the shared prompt, then of each question with its target. Two entries are an ordinary
            row; more are a shared context, where each question sees the shared prompt and itself only.
        style: what is written: a style of the prompt, or `chat`.
    """

    id: str
    input_ids: Ids
    labels: Ids
    lengths: Ids
    style: str = ""

    def columns(self) -> dict[str, list[int]]:
        """The columns the trainer reads."""
        return {"input_ids": list(self.input_ids), "labels": list(self.labels), "lengths": list(self.lengths)}


def encode_row(row: ContextRow, encoder: Encoder, spans_in_loss: Collection[str] = SPAN_NAMES) -> TokenRow:
    """Tokenise a row. The end-of-turn token carries loss where "end" is in `spans_in_loss`.

    The prompt's ids are a prefix of each question's path by construction, as both are the same segments.
    """
    trunk: Ids = ()
    ids: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    for question in row.questions:
        assert question.label is not None, "rows are labelled before they are tokenised"
        segments = encoder.prompt(question.question, row.passages)
        if not ids:
            trunk = tuple(token for segment in segments[:-1] for token in segment)
            ids, labels, lengths = list(trunk), [IGNORED] * len(trunk), [len(trunk)]
        target = encoder.target(question.label)
        leaf = [*segments[-1], *(token for span in target for token in span.ids)]
        ids += leaf
        labels += [IGNORED] * len(segments[-1])
        for span in target:
            labels += span.ids if span.name in spans_in_loss else [IGNORED] * len(span.ids)
        lengths.append(len(leaf))
    return TokenRow(row.id, tuple(ids), tuple(labels), tuple(lengths), encoder.settings.style)


def row_texts(row: ContextRow, encoder: Encoder) -> Iterator[tuple[str, Ids, str]]:
    """Yield (what it is, its ids joined from segments, its text) of the prompt and of all of two questions at most."""
    for question in row.questions[:2]:
        assert question.label is not None
        prompt = tuple(token for ids in encoder.prompt(question.question, row.passages) for token in ids)
        target = tuple(token for span in encoder.target(question.label) for token in span.ids)
        text = "".join(encoder.prompt_texts(question.question, row.passages))
        yield "the prompt", prompt, text
        yield "prompt and target", prompt + target, text + encoder.target_text(question.label)
