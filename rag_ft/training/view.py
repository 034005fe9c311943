"""A training row as coloured text: what the model reads, what it learns to write, and how many tokens each takes."""

from __future__ import annotations

from rich.text import Text

from data_builders.records import ContextRow
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.training.fit import fit_row
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
_TOKEN_BORDER = "│"


def legend() -> Text:
    """Return a line that explains the colours."""
    text = Text("Coloured background carries loss. ")
    for name, style in _STYLES.items():
        text.append(name, style=style)
        text.append("  ")
    return text


def row_view(row: ContextRow, encoder: Encoder, max_length: int, *, show_tokens: bool = False) -> Text:
    """Return a row as it is trained on, after fitting; every question behind the one context it shares."""
    fitted = fit_row(row, encoder, max_length)
    if fitted is None:
        return Text(f"\n{row.id}: longer than training.max_length={max_length}, left out", style="red")
    row, lengths = fitted.row, fitted.tokens.lengths
    loss = sum(label != IGNORED for label in fitted.tokens.labels)
    text = Text(
        f"\n{row.id}: {sum(lengths)} tokens, {lengths[0]} shared by {len(row.questions)} question(s), "
        f"{loss} carry loss, {fitted.dropped_passages} negatives left out\n\n",
        style="underline",
    )
    for number, question in enumerate(row.questions):
        assert question.label is not None
        segments = encoder.prompt(question.question, row.passages)
        if not number:
            _append(text, "head", segments[0], encoder, show_tokens)
            gold = {index for asked in row.questions for index in asked.gold}
            for index, ids in enumerate(segments[1:-1]):
                _append(text, "gold passage" if index in gold else "passage", ids, encoder, show_tokens)
        shown = "gold shown" if question.answerable else "gold not shown"
        text.append(f"\n({question.id}, {question.group}, {shown}, {lengths[number + 1]} tokens)\n", style="italic dim")
        _append(text, "question", segments[-1], encoder, show_tokens)
        for span in encoder.target(question.label):
            _append(text, span.name, span.ids, encoder, show_tokens)
        text.append("\n")
    return text


def _append(text: Text, name: str, ids: Ids, encoder: Encoder, show_tokens: bool) -> None:
    if show_tokens:
        pieces = [encoder.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]
        written = "".join(piece + _TOKEN_BORDER for piece in pieces)
    else:
        written = encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    text.append(written, style=_STYLES[name])
