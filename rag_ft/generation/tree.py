"""Greedy generation that encodes what the prompts of a sweep share only once, for transformers models.

The prompts of a group are laid out as one segment tree (rag_ft/models/segment_tree.py): passages that several prompts
begin with stand there once, and every prompt's end is a leaf. One forward pass fills the cache for all of them; after
that each step decodes one token for every unfinished leaf of every group in the batch (rag_ft/generation/forks.py).
Token-identical to separate generation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_ft.generation import Generation, Lend, Request
from rag_ft.generation.loops import loops
from rag_ft.generation.parts import failed, in_parts
from rag_ft.models.segment_tree import SegmentTree, ancestor_matrix, tree_mask

if TYPE_CHECKING:
    import torch

WASTE = 0.75
"""Finished leaves leave the batch when no more than this share of it would be left."""


@dataclass
class _Leaf:
    """The end of one prompt, and of every equal prompt. Its next input token is `pending` at `position`."""

    node: int
    pending: int
    position: int
    requests: list[Request]
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    chosen: int = 0
    done: bool = False

    def take(self, token: int, logprob: float, stop_ids: frozenset[int]) -> None:
        """Add the token chosen, or end with it; an answer that goes round in circles ends too."""
        self.logprob += logprob
        self.chosen += 1
        if token in stop_ids:
            self.done = True
            return
        self.ids.append(token)
        self.pending, self.position = token, self.position + 1
        self.done = loops(self.ids)

    def answers(self, seconds: float) -> list[Generation]:
        """Return the answer to each of the equal prompts."""
        confidence = self.logprob / self.chosen
        return [
            Generation(request.key, tuple(self.ids), request.length, seconds, confidence=confidence)
            for request in self.requests
        ]


class TreeEngine:
    """Prefix-shared greedy generation. Limits: models whose attention is full in every layer (see `allows_trees`)."""

    def __init__(self, model: Any, stop_ids: frozenset[int], max_new_tokens: int, batch_size: int) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers of each batch of groups, groups of like length together."""
        ordered = sorted((group for group in groups if group), key=lambda group: max(r.length for r in group))
        for start in range(0, len(ordered), self.batch_size):
            yield in_parts(ordered[start : start + self.batch_size], self._batch, failed, proven=start > 0)

    def _batch(self, groups: Sequence[Sequence[Request]]) -> list[Generation]:
        import torch

        from rag_ft.generation.forks import forking

        began = time.perf_counter()
        plans = [_plan(group) for group in groups]
        leaves = [leaves for _, leaves in plans]
        with torch.inference_mode():
            state = _prefill(self.model, [tree for tree, _ in plans], leaves)
            with forking(self.model):
                for _ in range(self.max_new_tokens):
                    if not _compacted(state):
                        break
                    _decode_step(self.model, state, self.stop_ids)
        seconds = (time.perf_counter() - began) / sum(map(len, groups))
        return [answer for row in leaves for leaf in row for answer in leaf.answers(seconds)]


def steps(lend: Lend, request: Request, stop_ids: frozenset[int], max_new_tokens: int) -> Iterator[int]:
    """Yield the tokens that the engine writes for one prompt, without the stop token, as each is chosen.

    The model is taken anew for every token: between two of them others may have it.
    """
    import torch

    from rag_ft.generation.forks import forking

    tree, leaves = _plan([request])
    with lend() as model, torch.inference_mode():
        state = _prefill(model, [tree], [leaves])
    for _ in range(max_new_tokens):
        with lend() as model, torch.inference_mode(), forking(model):
            _decode_step(model, state, stop_ids)
        if leaves[0].chosen > len(leaves[0].ids):
            return
        yield leaves[0].ids[-1]
        if leaves[0].done:
            return


def _plan(group: Sequence[Request]) -> tuple[SegmentTree, list[_Leaf]]:
    """Lay a group out. The last token of each prompt is held back: it is the first decoding step's input."""
    tree, leaves = SegmentTree(), dict[tuple[int, tuple[int, ...]], _Leaf]()
    for request in group:
        trunk = tree.add_path(request.segments[:-1])
        last = request.segments[-1]
        leaf = leaves.get((trunk, last))
        if leaf is None:
            node = tree.add(last[:-1], trunk)
            leaf = leaves[(trunk, last)] = _Leaf(node, last[-1], tree.starts[node] + len(last) - 1, [])
        leaf.requests.append(request)
    return tree, list(leaves.values())


@dataclass
class _State:
    """What is decoded: the leaves of each row, side by side, and what each sees of the prompts.

    Attributes:
        cache: of prompts and answers, rows and forks as in `leaves`.
        leaves: a row may have fewer than the widest one.
        mask: additive, [rows, 1, forks, prompt slots], on the model's device.
    """

    cache: Any
    leaves: list[list[_Leaf]]
    mask: torch.Tensor


def _prefill(model: Any, trees: Sequence[SegmentTree], leaves: Sequence[Sequence[_Leaf]]) -> _State:
    """Run all trees through the model: together on a GPU, one by one on a CPU, which gains nothing from padding."""
    import torch

    from rag_ft.generation.forks import fork_cache

    together = 1 if model.device.type == "cpu" else len(trees)
    longest, widest = max(map(len, trees)), max(map(len, leaves))
    parts = [_encode(model, trees[start : start + together]) for start in range(0, len(trees), together)]
    seen = torch.zeros(len(trees), widest, longest, dtype=torch.bool)
    for row, (tree, ends) in enumerate(zip(trees, leaves, strict=True)):
        visible = ancestor_matrix(tree.parents)[[leaf.node for leaf in ends]]
        seen[row, : len(ends), : len(tree)] = visible[:, torch.tensor(tree.segments())]
    return _State(fork_cache(parts, longest), [list(row) for row in leaves], _additive(seen[:, None], model))


def _encode(model: Any, trees: Sequence[SegmentTree]) -> Any:
    """Return the cache of one forward pass over trees padded on the right."""
    import torch
    from transformers import DynamicCache

    longest, device = max(map(len, trees)), model.device
    ids = torch.zeros(len(trees), longest, dtype=torch.long)
    positions = torch.zeros_like(ids)
    mask = torch.eye(longest, dtype=torch.bool).repeat(len(trees), 1, 1)  # padding sees itself: no empty softmax
    for row, tree in enumerate(trees):
        ids[row, : len(tree)] = torch.tensor(tree.tokens())
        positions[row, : len(tree)] = torch.tensor(tree.positions())
        mask[row, : len(tree), : len(tree)] = tree_mask(torch.tensor(tree.segments()), tree.parents)
    cache = DynamicCache()
    model(
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=_additive(mask[:, None], model),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache


def _compacted(state: _State) -> bool:
    """Take finished leaves out of the batch where that makes it much smaller; return whether any leaf is left."""
    import torch

    active = [[fork for fork, leaf in enumerate(row) if not leaf.done] for row in state.leaves]
    kept = [row for row, forks in enumerate(active) if forks]
    if not kept:
        return False
    width = max(map(len, active))
    if len(kept) * width > WASTE * len(state.leaves) * state.mask.shape[2]:
        return True
    device = state.mask.device
    rows = torch.tensor(kept, device=device)
    # Rows with fewer leaves than the widest are filled up with copies of one, which nobody reads.
    forks = torch.tensor([active[row] + active[row][:1] * (width - len(active[row])) for row in kept], device=device)
    for layer in state.cache.layers:
        layer.keep(rows, forks)
    state.leaves = [[state.leaves[row][fork] for fork in active[row]] for row in kept]
    state.mask = state.mask[rows[:, None], :, forks].transpose(1, 2)
    return True


def _decode_step(model: Any, state: _State, stop_ids: frozenset[int]) -> None:
    """Feed the pending token of every leaf and choose the next."""
    import torch

    width = state.mask.shape[2]
    fed = torch.zeros(2, len(state.leaves), width, dtype=torch.long)
    for row, leaves in enumerate(state.leaves):
        fed[:, row, : len(leaves)] = torch.tensor([[leaf.pending, leaf.position] for leaf in leaves]).T
    ids, positions = fed.to(model.device)
    logits = model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=state.mask,
        past_key_values=state.cache,
        use_cache=True,
    ).logits.float()
    best, chosen = logits.max(dim=-1)
    logprobs = (best - logits.logsumexp(dim=-1)).tolist()
    for leaves, tokens, told in zip(state.leaves, chosen.tolist(), logprobs, strict=True):
        for leaf, token, logprob in zip(leaves, tokens, told, strict=False):
            if not leaf.done:
                leaf.take(token, logprob, stop_ids)


def _additive(mask: torch.Tensor, model: Any) -> torch.Tensor:
    """Turn a bool mask into the additive form every attention implementation takes, on the model's device."""
    import torch

    mask = mask.to(model.device)
    floor = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(~mask, floor)
