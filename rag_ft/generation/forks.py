"""Cache and attention for decoding: many answers that continue one prompt tree. Chooses no token.

A prompt's keys and values stand still while answers are written, so they are kept apart from those of the answers:
nothing long is copied at a step, no answer's tokens are looked at by another, and what is finished can leave.
Both parts are joined in one softmax, so the result is that of ordinary attention.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import eager_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "forks"
ROOM = 32
"""Steps that room is made for at first, and at least, at a time."""


@dataclass(frozen=True)
class Forked:
    """Keys, or values: of the prompts [rows, heads, slots, size], of the answers [rows, heads, forks, steps, size]."""

    prompt: torch.Tensor
    written: torch.Tensor


class ForkLayer(CacheLayerMixin):  # type: ignore[misc]  # the base class is how transformers wants it
    """One layer's keys and values. Every fork of every row writes one token a step."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.prompt = (keys, values)
        self.written: tuple[torch.Tensor, ...] = ()
        self.steps = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to be done."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Take a step's keys and values [rows, heads, forks, size]; return all of them, Forked."""
        new = (key_states, value_states)
        if not self.written:
            self.written = tuple(states.new_empty(*states.shape[:3], ROOM, states.shape[3]) for states in new)
        elif self.steps == self.written[0].shape[3]:
            room = max(ROOM, self.steps // 4)
            self.written = tuple(pad(states, (0, 0, 0, room)) for states in self.written)
        for buffer, states in zip(self.written, new, strict=True):
            buffer[:, :, :, self.steps] = states
        self.steps += 1
        keys, values = (
            Forked(prompt, written[:, :, :, : self.steps])
            for prompt, written in zip(self.prompt, self.written, strict=True)
        )
        return keys, values

    def keep(self, rows: torch.Tensor, forks: torch.Tensor) -> None:
        """Keep `rows` [kept rows] and of each of them `forks` [kept rows, kept forks]."""
        if len(rows) < len(self.prompt[0]):
            self.prompt = (self.prompt[0][rows], self.prompt[1][rows])
        # The indexed axes, rows and forks, come first: [kept rows, kept forks, heads, steps, size].
        self.written = tuple(states[rows[:, None], :, forks].transpose(1, 2).contiguous() for states in self.written)

    def get_seq_length(self) -> int:
        """Return the slots a fork has behind it."""
        return int(self.prompt[0].shape[2]) + self.steps

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the keys."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """There is no greatest length."""
        return -1


def fork_cache(parts: Sequence[Any], slots: int) -> Any:
    """Join caches of encoded prompts, row under row, each padded to `slots`; the parts are emptied."""
    layers = []
    for index in range(len(parts[0].layers)):
        taken = [part.layers[index] for part in parts]
        keys, values = (
            torch.cat([pad(states, (0, 0, 0, slots - states.shape[2])) for states in kind])
            for kind in ([layer.keys for layer in taken], [layer.values for layer in taken])
        )
        for layer in taken:  # so that at no time there are two of more than one layer
            layer.keys = layer.values = None
        layers.append(ForkLayer(keys, values))
    return Cache(layers=layers)


@contextmanager
def forking(model: Any) -> Iterator[None]:
    """Let a model attend with `forked` until the block ends."""
    AttentionInterface.register(NAME, forked)
    AttentionMaskInterface.register(NAME, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def forked(
    module: Any,
    query: torch.Tensor,
    key: Forked,
    value: Forked,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from `query` [rows, heads, forks, size] to the prompt's slots and to the fork's own tokens.

    `attention_mask` [rows, 1, forks, slots], additive, says which of the prompt's slots a fork sees; it sees all its
    own tokens. `s_aux` [heads] are attention sinks, scores that take weight and give nothing (GPT-OSS). Returns [rows,
    forks, heads, size], as transformers' attention functions do.
    """
    forks, size = query.shape[2:]
    query = query * (scaling if scaling is not None else size**-0.5)
    # Heads that share a key head become rows of one product: [rows, key heads, forks, sharing, size].
    query = query.unflatten(1, (key.prompt.shape[1], -1)).transpose(2, 3)
    earlier = query.flatten(2, 3) @ key.prompt.transpose(-1, -2)
    own = query @ key.written.transpose(-1, -2)
    scores = torch.cat([earlier.unflatten(2, (forks, -1)), own], dim=-1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    slots, seen = attention_mask.shape[-1], scores.shape[-1]
    scores[..., :slots] += attention_mask[:, :, :, None]
    if s_aux is not None:
        sinks = s_aux.to(scores.dtype).view(1, scores.shape[1], 1, -1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(dim=-1).to(value.prompt.dtype)
    mixed = weights[..., :slots].flatten(2, 3) @ value.prompt
    output = mixed.unflatten(2, (forks, -1)) + weights[..., slots:seen] @ value.written
    return output.permute(0, 2, 1, 3, 4).flatten(2, 3), None
