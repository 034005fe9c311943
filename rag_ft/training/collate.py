"""Token rows as padded batches, and the attention mask of shared contexts. The only place that knows both forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_ft.models.segment_tree import ROOT, tree_mask
from rag_ft.training.rows import IGNORED

if TYPE_CHECKING:
    import torch

PADDING = 0  # the id under padding is never attended to and never a label


@dataclass(frozen=True)
class Collator:
    """Pads rows on the right. A batch of ordinary rows gets a plain mask, one with shared contexts gets `lengths`."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input_ids, labels and attention_mask [rows, tokens], and lengths [rows, segments] where needed."""
        import torch

        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], PADDING),
            "labels": _padded([row["labels"] for row in rows], IGNORED),
            "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0),
        }
        if any(len(row["lengths"]) > 2 for row in rows):
            batch["lengths"] = _padded([row["lengths"] for row in rows], 0)
        return {name: torch.tensor(values) for name, values in batch.items()}


def _padded(rows: list[list[int]], filler: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [list(row) + [filler] * (longest - len(row)) for row in rows]


def shared_attention(lengths: torch.Tensor, tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the additive mask [rows, 1, tokens, tokens] and positions [rows, tokens] of shared contexts.

    `lengths` [rows, segments] is as in TokenRow, padded with 0: segment 0 is the shared prompt, the others continue
    it and do not see each other; positions restart behind the shared prompt. Padding sees itself only.
    """
    import torch

    device = lengths.device
    visible = torch.eye(tokens, dtype=torch.bool, device=device).repeat(lengths.shape[0], 1, 1)
    positions = torch.zeros(lengths.shape[0], tokens, dtype=torch.long, device=device)
    for row, counts in enumerate(lengths):
        used = int(counts.sum())
        segments = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
        visible[row, :used, :used] = tree_mask(segments, [ROOT, *[0] * (len(counts) - 1)])
        starts = counts.cumsum(0) - counts
        offsets = torch.where(torch.arange(len(counts), device=device) > 0, counts[0] - starts, 0)
        positions[row, :used] = torch.arange(used, device=device) + offsets[segments]
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, torch.finfo(dtype).min)
    return mask[:, None], positions
