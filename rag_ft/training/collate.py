"""Token rows as batches, padded or laid end to end, and what keeps rows and questions apart in attention.

The only place that knows the form of a batch. Where a sequence holds more than one question, the batch says for every
token to which row and which question it belongs; the mask is made of that on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rag_ft.models import flex
from rag_ft.training.rows import IGNORED

if TYPE_CHECKING:
    import torch

PADDING = 0  # the id under padding is never attended to and never a label
NO_ROW = -1  # what padding belongs to

Row: TypeAlias = dict[str, Any]  # as TokenRow.columns gives it


@dataclass(frozen=True)
class Collator:
    """Makes a batch of rows: one sequence each, padded on the right, or all of them in one sequence (`flat`)."""

    flat: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return a batch.

        input_ids, labels and attention_mask are [sequences, tokens]; logits_to_keep [labels] holds the places whose
        next token carries loss in some sequence. Where a sequence holds several questions there are also position_ids,
        rows (from 0, padding -1) and questions (from 1, the prompt they share 0), all [sequences, tokens].
        """
        import torch

        sequences = [list(rows)] if self.flat else [[row] for row in rows]
        labels = torch.tensor(_padded([_labels(rows) for rows in sequences], IGNORED))
        batch = {
            "input_ids": _padded([_joined(rows, "input_ids") for rows in sequences], PADDING),
            "attention_mask": _padded([[1] * sum(map(_tokens, rows)) for rows in sequences], 0),
        }
        if any(len(rows) > 1 or len(rows[0]["lengths"]) > 2 for rows in sequences):
            batch |= {
                "position_ids": _padded([_positions(rows) for rows in sequences], 0),
                "rows": _padded([_row_numbers(rows) for rows in sequences], NO_ROW),
                "questions": _padded([_question_numbers(rows) for rows in sequences], 0),
            }
        kept = (labels[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
        if "row" in rows[0]:
            batch["row_numbers"] = [row["row"] for row in rows]  # only to name the rows of a bad batch
        return {"labels": labels, "logits_to_keep": kept} | {k: torch.tensor(v) for k, v in batch.items()}


def _tokens(row: Row) -> int:
    return len(row["input_ids"])


def _joined(rows: Sequence[Row], column: str) -> list[int]:
    return [token for row in rows for token in row[column]]


def _labels(rows: Sequence[Row]) -> list[int]:
    """Join labels; no row's first token is a label, or it would be learned from the end of the row before."""
    return [label for row in rows for label in (IGNORED, *row["labels"][1:])]


def _positions(rows: Sequence[Row]) -> list[int]:
    """Count from 0 in each row, and in each question from the end of the prompt that it shares."""
    found: list[int] = []
    for row in rows:
        shared, *asked = row["lengths"]
        found += range(shared)
        for length in asked:
            found += range(shared, shared + length)
    return found


def _row_numbers(rows: Sequence[Row]) -> list[int]:
    return [number for number, row in enumerate(rows) for _ in row["input_ids"]]


def _question_numbers(rows: Sequence[Row]) -> list[int]:
    return [number for row in rows for number, length in enumerate(row["lengths"]) for _ in range(length)]


def _padded(rows: list[list[int]], filler: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [list(row) + [filler] * (longest - len(row)) for row in rows]


def model_inputs(
    batch: dict[str, torch.Tensor], attention: str | None, dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """Return a batch as the model takes it: rows and questions become what its attention keeps them apart by.

    Flash attention takes the borders of rows, flex_attention a block mask, any other a dense additive mask. A batch
    without them needs no mask at all, except by flash attention, which leaves padding out by it: padding stands behind
    every token, where causal attention does not look, and attention without a mask is faster.

    Args:
        batch: as the collator makes it.
        attention: the model's attention implementation.
        dtype: the type of its weights.
    """
    attention = attention or ""
    inputs = {name: value for name, value in batch.items() if name not in ("rows", "questions")}
    if "flash" not in attention:
        del inputs["attention_mask"]
    if "rows" not in batch:
        return inputs
    if "flash" in attention:
        del inputs["attention_mask"]
        return inputs | _row_borders(batch["position_ids"])
    if attention == flex.NAME:
        return inputs | {"attention_mask": flex.block_mask(batch["rows"], batch["questions"])}
    return inputs | {"attention_mask": dense_mask(batch["rows"], batch["questions"], dtype)}


def dense_mask(rows: torch.Tensor, questions: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return the additive mask [sequences, 1, tokens, tokens] of rows and questions, both [sequences, tokens].

    A token sees, up to itself, the shared prompt of its row and its own question. Padding sees padding, so that no
    softmax is empty.
    """
    import torch

    tokens = rows.shape[1]
    asked = questions[:, None, :]
    visible = (asked == 0) | (asked == questions[:, :, None])
    visible &= rows[:, None, :] == rows[:, :, None]
    visible &= torch.ones(tokens, tokens, dtype=torch.bool, device=rows.device).tril()
    mask = torch.zeros(visible.shape, dtype=dtype, device=rows.device)
    return mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)[:, None]


def _row_borders(positions: torch.Tensor) -> dict[str, Any]:
    """Return what flash attention takes for joined rows, once for all layers; each row begins at position 0."""
    import torch

    starts = (positions[0] == 0).nonzero().squeeze(1)
    borders = torch.nn.functional.pad(starts, (0, 1), value=positions.shape[1]).int()
    longest = int(borders.diff().max())
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}
