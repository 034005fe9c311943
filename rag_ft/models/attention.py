"""Causal attention for CPUs by blocks of matrix products, which skip what no token may see.

torch's fused CPU kernel computes every cell of a masked square. A block of queries needs the keys up to its own end
only, and of these, where a mask keeps branches of a tree apart, those that some query of the block may see. bfloat16
products run on the processor's dot-product units: three times as fast at a thousand tokens (benchmarks/attention.py).
Scores are rounded to bfloat16 as in transformers' eager attention.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "causal_blocks"
BLOCK = 256
MOSTLY = 0.9
"""Keys are left out of a block where no more than this share of them is seen; below that, choosing costs more."""


def register() -> str:
    """Make the attention known to transformers; return the name to load a model with."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, causal_blocks)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def causal_blocks(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` [rows, heads, queries, size] to `key` and `value` [rows, key heads, keys, size].

    Query i may see key j <= i + keys - queries at most; `attention_mask` [rows, 1, queries, keys], additive, says
    which of those. Returns [rows, queries, heads, size], as transformers' attention functions do.
    """
    import torch

    rows, heads, queries, size = query.shape
    earlier = key.shape[2] - queries
    # Heads that share a key head become rows of one product, so that keys are never copied for each of them.
    query = (query * (scaling if scaling is not None else size**-0.5)).unflatten(1, (key.shape[1], -1))
    columns = _columns(attention_mask, earlier) if attention_mask is not None else {}
    blocks = []
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        seen: Any = columns.get(start, slice(earlier + stop))
        keys, values = (
            states[:, :, seen] if isinstance(seen, slice) else states.index_select(2, seen) for states in (key, value)
        )
        scores = query[:, :, :, start:stop].flatten(2, 3) @ keys.transpose(-1, -2)
        scores = scores.unflatten(2, (-1, stop - start))
        if attention_mask is not None:
            scores = scores + attention_mask[:, :, None, start:stop, seen]
        else:
            future = torch.ones(stop - start, earlier + stop, dtype=torch.bool).triu(earlier + start + 1)
            scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).to(value.dtype)
        if dropout:  # asked for before calling: at 0 it would still keep a copy for the backward pass
            weights = torch.nn.functional.dropout(weights, dropout, module.training)
        mixed = weights.flatten(2, 3) @ values
        blocks.append(mixed.unflatten(2, (-1, stop - start)))
    output = torch.cat(blocks, dim=3).reshape(rows, heads, queries, size)
    return output.transpose(1, 2).contiguous(), None


def _columns(mask: torch.Tensor, earlier: int) -> dict[int, torch.Tensor]:
    """Return, by the first query of a block, the keys that some query of it may see, where these are much fewer.

    The mask is the same for all layers of a forward pass, so it is looked through once.
    """
    import torch

    if type(mask) is not torch.Tensor:  # one without values, as the memory estimate traces
        return {}
    known: dict[int, torch.Tensor] | None = _known().get(mask)
    if known is None:
        known, least = {}, torch.finfo(mask.dtype).min
        for start in range(0, mask.shape[2], BLOCK):
            stop = min(start + BLOCK, mask.shape[2])
            seen = (mask[:, :, start:stop, : earlier + stop] > least).flatten(0, 2).any(dim=0)
            if seen.sum() < MOSTLY * len(seen):
                known[start] = seen.nonzero().squeeze(1)
        _known()[mask] = known
    return known


@lru_cache(maxsize=1)
def _known() -> Any:
    from torch.utils.weak import WeakTensorKeyDictionary

    return WeakTensorKeyDictionary()
