"""Picks the engine that fits a model and a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag_ft.generation import Engine, Request
from rag_ft.generation.reach import Reach, WithinReach, within
from rag_ft.generation.separate import SeparateEngine
from rag_ft.generation.tree import TreeEngine
from rag_ft.models.positions import reach
from rag_ft.models.segment_tree import allows_trees
from rag_ft.prompting.encode import Encoder


def choose_engine(
    model: Any,
    encoder: Encoder,
    groups: Sequence[Sequence[Request]],
    *,
    max_new_tokens: int,
    batch_size: int,
    share: bool,
) -> Engine:
    """Return the prefix-sharing engine where the recipe wants it and the model's attention allows it.

    Where a prompt of `groups` goes beyond the model's positions, the engine answers it with a failure.
    """
    bounds = Reach(reach(model.config), max_new_tokens)
    answered = [within(group, bounds) for group in groups]
    # An upper bound of what one tree and its answers put into the cache.
    longest = max((sum(request.length + max_new_tokens for request in group) for group in answered), default=0)
    share = share and shares(model, longest)
    engine = (TreeEngine if share else SeparateEngine)(model, stop_ids(model, encoder), max_new_tokens, batch_size)
    return engine if sum(map(len, answered)) == sum(map(len, groups)) else WithinReach(engine, bounds)


def shares(model: Any, longest: int) -> bool:
    """Tell whether prompts of a group, `longest` tokens with their answers, can go through a model as one tree."""
    return allows_trees(model.config, longest) and allows_forks(model)


def allows_forks(model: Any) -> bool:
    """Tell whether a model's attention can be exchanged for that of rag_ft/generation/forks.py."""
    return bool(getattr(model, "_supports_attention_backend", False))


def stop_ids(model: Any, encoder: Encoder) -> frozenset[int]:
    """Return every token that ends an answer: the template's end of turn and the model's own end tokens."""
    return end_tokens(model.generation_config, encoder)


def end_tokens(config: Any, encoder: Encoder) -> frozenset[int]:
    """Return the template's end of turn and the end tokens of a generation config, which may be None."""
    configured = config.eos_token_id if config else None
    own = configured if isinstance(configured, list) else [configured]
    return frozenset({encoder.end[-1], *(token for token in own if token is not None)})
