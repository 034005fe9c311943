"""FlexAttention's block masks for rows that must not see each other: cost follows the mask, and nothing is square.

Tokens lie in blocks of 128. Which blocks a block may see is worked out from the range of rows and questions in each, so
that the largest thing made is [blocks, blocks]. torch's create_block_mask would evaluate every pair of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "flex_attention"
BLOCK = 128


def block_mask(rows: torch.Tensor, questions: torch.Tensor) -> Any:
    """Return the BlockMask of sequences in which every token sees, up to itself, its row's prompt and its question.

    Args:
        rows: which row a token belongs to, [sequences, tokens], ascending along a sequence; padding, at the end, -1.
        questions: which question of the row, from 1; 0 is the prompt that they share. Of the same shape.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    tokens = rows.shape[1]
    # Up to whole blocks, as kernels may ask about tokens past the end. Padding and what is past the end become the last
    # of the rows, two, so that a block which reaches past the end is never seen in full.
    rows = torch.nn.functional.pad(rows, (0, -tokens % BLOCK), value=-2)
    rows = torch.where(rows < 0, rows.shape[1] - rows, rows).int()
    questions = torch.nn.functional.pad(questions, (0, -tokens % BLOCK)).int()

    def sees(sequence: Any, head: Any, query: Any, key: Any) -> Any:
        asked = questions[sequence, key]
        same = (asked == 0) | (asked == questions[sequence, query])
        return (query >= key) & (rows[sequence, query] == rows[sequence, key]) & same

    some, every = _blocks_seen(rows, questions)
    return BlockMask.from_kv_blocks(
        *_listed(some & ~every),
        *_listed(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(tokens, tokens),
    )


def _blocks_seen(rows: torch.Tensor, questions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return of which blocks a block may see some tokens, and of which every token, [sequences, blocks, blocks].

    The first may hold a pair of blocks too many, which costs time; the second holds no pair that is not seen in full.
    """
    import torch

    rows_meet, one_row = _overlap(rows)
    questions_meet, one_question = _overlap(questions)
    of_key = questions.unflatten(1, (-1, BLOCK))
    some = rows_meet & (questions_meet | (of_key == 0).any(dim=2)[:, None, :])
    every = one_row & (one_question | (of_key == 0).all(dim=2)[:, None, :])
    blocks = of_key.shape[1]
    earlier = torch.ones(blocks, blocks, dtype=torch.bool, device=rows.device).tril(-1)
    own = torch.eye(blocks, dtype=torch.bool, device=rows.device)
    return (some & earlier) | own, every & earlier


def _overlap(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each pair of blocks whether their ranges of values meet, and whether both hold one value, the same."""
    low, high = values.unflatten(1, (-1, BLOCK)).aminmax(dim=2)
    ends = low[:, :, None] - high[:, None, :], high[:, :, None] - low[:, None, :]
    return (ends[0] <= 0) & (ends[1] >= 0), (ends[0] == 0) & (ends[1] == 0)


def _listed(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many blocks each block sees, [sequences, 1, blocks], and all of them with those in front."""
    numbers = seen.int()
    order = numbers.argsort(dim=2, descending=True, stable=True)
    return numbers.sum(dim=2).int()[:, None], order.int()[:, None].contiguous()
