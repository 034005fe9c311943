"""Greedy generation that encodes what the prompts of a sweep share only once, for transformers models.

The prompts of a group are laid out as one segment tree (rag_ft/models/segment_tree.py): passages that several prompts
begin with stand there once, and every prompt's end is a leaf. One forward pass fills the cache for all of them; after
that each step decodes one token for every leaf of every group in the batch. Token-identical to separate generation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_ft.generation import Generation, Request
from rag_ft.models.segment_tree import SegmentTree, ancestor_matrix, tree_mask

if TYPE_CHECKING:
    import torch


@dataclass
class _Leaf:
    """The end of one prompt, and of every equal prompt. Its next input token is `pending` at `position`."""

    node: int
    pending: int
    position: int
    requests: list[Request]
    ids: list[int] = field(default_factory=list)
    done: bool = False


class TreeEngine:
    """Prefix-shared greedy generation. Limits: models whose attention is full in every layer (see `supports`)."""

    def __init__(self, model: Any, stop_ids: frozenset[int], max_new_tokens: int, batch_size: int) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers of each batch of groups, groups of like length together."""
        ordered = sorted((group for group in groups if group), key=lambda group: max(r.length for r in group))
        for start in range(0, len(ordered), self.batch_size):
            yield self._batch(ordered[start : start + self.batch_size])

    def _batch(self, groups: Sequence[Sequence[Request]]) -> list[Generation]:
        import torch

        began = time.perf_counter()
        plans = [_plan(group) for group in groups]
        with torch.inference_mode():
            state = _prefill(self.model, [tree for tree, _ in plans])
            leaves = [leaves for _, leaves in plans]
            for _ in range(self.max_new_tokens):
                if not _decode_step(self.model, state, leaves, self.stop_ids):
                    break
        answered = [(request, leaf) for row in leaves for leaf in row for request in leaf.requests]
        seconds = (time.perf_counter() - began) / len(answered)
        return [Generation(request.key, tuple(leaf.ids), request.length, seconds) for request, leaf in answered]


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
    """Cache and visibility: `seen[row][node, slot]` for prompt slots; `owners[row, slot]` for decoded slots."""

    cache: Any
    seen: list[torch.Tensor]
    owners: torch.Tensor


def _prefill(model: Any, trees: Sequence[SegmentTree]) -> _State:
    """Run all trees through the model: together on a GPU, one by one on a CPU, which gains nothing from padding."""
    import torch
    from transformers import DynamicCache

    together = 1 if model.device.type == "cpu" else len(trees)
    longest = max(map(len, trees))
    caches = [_encode(model, trees[start : start + together]) for start in range(0, len(trees), together)]
    cache = DynamicCache()
    for index, layers in enumerate(zip(*(part.layers for part in caches), strict=True)):
        keys = torch.cat([_lengthened(layer.keys, longest) for layer in layers])
        values = torch.cat([_lengthened(layer.values, longest) for layer in layers])
        cache.update(keys, values, index)
    return _State(cache, [_visible(tree, longest) for tree in trees], torch.empty(len(trees), 0, dtype=torch.long))


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


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    """Pad keys or values [rows, heads, tokens, size] on the right; no mask lets the padding be seen."""
    import torch

    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2]))


def _visible(tree: SegmentTree, length: int) -> torch.Tensor:
    """Return which prompt slots each segment sees at its end, bool [segments, length]."""
    import torch

    visible = torch.zeros(len(tree.parents), length, dtype=torch.bool)
    visible[:, : len(tree)] = ancestor_matrix(tree.parents)[:, torch.tensor(tree.segments())]
    return visible


def _decode_step(model: Any, state: _State, leaves: list[list[_Leaf]], stop_ids: frozenset[int]) -> bool:
    """Feed the pending token of every unfinished leaf and choose the next; return whether any was unfinished."""
    import torch

    active = [[index for index, leaf in enumerate(row) if not leaf.done] for row in leaves]
    width = max(map(len, active))
    if not width:
        return False
    ids = torch.zeros(len(leaves), width, dtype=torch.long)
    positions, owners = torch.zeros_like(ids), torch.full_like(ids, -1)
    prompt = torch.zeros(len(leaves), width, state.seen[0].shape[1], dtype=torch.bool)
    for row, indices in enumerate(active):
        for slot, index in enumerate(indices):
            leaf = leaves[row][index]
            ids[row, slot], positions[row, slot], owners[row, slot] = leaf.pending, leaf.position, index
            prompt[row, slot] = state.seen[row][leaf.node]
    state.owners = torch.cat([state.owners, owners], dim=1)
    mask = torch.cat([prompt, owners[:, :, None] == state.owners[:, None, :]], dim=2)
    logits = model(
        input_ids=ids.to(model.device),
        position_ids=positions.to(model.device),
        attention_mask=_additive(mask[:, None], model),
        past_key_values=state.cache,
        use_cache=True,
    ).logits
    chosen = logits.argmax(dim=-1).tolist()
    for row, indices in enumerate(active):
        for slot, index in enumerate(indices):
            _advance(leaves[row][index], chosen[row][slot], stop_ids)
    return True


def _advance(leaf: _Leaf, token: int, stop_ids: frozenset[int]) -> None:
    leaf.done = token in stop_ids
    if not leaf.done:
        leaf.ids.append(token)
        leaf.pending, leaf.position = token, leaf.position + 1


def _additive(mask: torch.Tensor, model: Any) -> torch.Tensor:
    """Turn a bool mask into the additive form every attention implementation takes, on the model's device."""
    import torch

    mask = mask.to(model.device)
    floor = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(~mask, floor)
