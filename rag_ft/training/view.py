"""A training row as coloured text: what the model reads, what it learns to write, and how many tokens each takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rich.text import Text

from data_builders.records import ContextRow
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.training.chat import Conversation, encoded_chat, fit_chat
from rag_ft.training.fit import Fitted, fit_row
from rag_ft.training.rows import IGNORED

_STYLES = {
    "head": "dim",
    "passage": "",
    "gold passage": "bold",
    "question": "cyan",
    "relevance": "black on yellow",
    "evidence": "black on bright_blue",
    "analysis": "black on magenta",
    "answer": "black on green",
    "end": "white on red",
}
_READ_ONLY = "italic dim"
_TOKEN_BORDER = "│"


@dataclass(frozen=True)
class View:
    """How rows are shown: with which spans in the loss, fitted to which length, tokens marked or not."""

    encoder: Encoder
    max_length: int
    spans: Collection[str] = SPAN_NAMES
    show_tokens: bool = False

    def left_out(self, row: str) -> Text:
        """Return a line that says that a row does not fit."""
        return Text(f"\n{row}: longer than training.max_length={self.max_length}, left out", style="red")

    def append(self, text: Text, style: str, ids: Ids) -> None:
        """Append ids as text."""
        if self.show_tokens:
            pieces = [self.encoder.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]
            written = "".join(piece + _TOKEN_BORDER for piece in pieces)
        else:
            written = self.encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        text.append(written, style=style)


def legend(spans: Collection[str] = SPAN_NAMES) -> Text:
    """Return a line that explains the colours."""
    text = Text("Coloured background carries loss. ")
    for name, style in _STYLES.items():
        text.append(name, style=_READ_ONLY if name in SPAN_NAMES and name not in spans else style)
        text.append("  ")
    return text


def row_view(row: ContextRow, view: View) -> Text:
    """Return a row as it is trained on, after fitting; every question behind the one context it shares."""
    fitted = fit_row(row, view.encoder, view.max_length, view.spans)
    if fitted is None:
        return view.left_out(row.id)
    row, lengths = fitted.row, fitted.tokens.lengths
    text = Text(_heading(fitted), style="underline")
    for number, question in enumerate(row.questions):
        assert question.label is not None
        segments = view.encoder.prompt(question.question, row.passages)
        if not number:
            _append_passages(text, row, segments, view)
        shown = "gold shown" if question.answerable else "gold not shown"
        text.append(f"\n({question.id}, {question.group}, {shown}, {lengths[number + 1]} tokens)\n", style="italic dim")
        view.append(text, _STYLES["question"], segments[-1])
        for span in view.encoder.target(question.label):
            view.append(text, _STYLES[span.name] if span.name in view.spans else _READ_ONLY, span.ids)
        text.append("\n")
    return text


def _heading(fitted: Fitted) -> str:
    tokens = fitted.tokens
    loss = sum(label != IGNORED for label in tokens.labels)
    return (
        f"\n{fitted.row.id}: {sum(tokens.lengths)} tokens, {tokens.lengths[0]} shared by "
        f"{len(fitted.row.questions)} question(s), {loss} carry loss, {fitted.dropped_passages} negatives left out, "
        f"style {tokens.style}\n\n"
    )


def _append_passages(text: Text, row: ContextRow, segments: tuple[Ids, ...], view: View) -> None:
    view.append(text, _STYLES["head"], segments[0])
    gold = {index for asked in row.questions for index in asked.gold}
    for index, ids in enumerate(segments[1:-1]):
        view.append(text, _STYLES["gold passage" if index in gold else "passage"], ids)


def chat_view(conversation: Conversation, view: View) -> Text:
    """Return a chat row as it is trained on, after fitting. Its answers carry loss in every stage."""
    fitted = fit_chat(conversation, view.encoder, view.max_length)
    if fitted is None:
        return view.left_out(conversation.id)
    loss = sum(label != IGNORED for label in fitted.tokens.labels)
    text = Text(
        f"\n{conversation.id}: {len(fitted.tokens.input_ids)} tokens, {loss} carry loss, "
        f"{fitted.dropped_turns} oldest turns left out, style chat\n\n",
        style="underline",
    )
    for span in encoded_chat(fitted.conversation, view.encoder):
        view.append(text, _STYLES.get(span.name, ""), span.ids)
    text.append("\n")
    return text
