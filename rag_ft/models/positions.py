"""How far a model's positions reach, and stretching them (RoPE scaling). Loads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_builders.errors import RagFtError

_GLOBAL = "full_attention"  # layers with a window never see positions far apart


def stretch(config: Any, told: Mapping[str, Any]) -> None:
    """Put the recipe's `rope_scaling` into a model's configuration, in place.

    What `told` does not say stays as the model has it: the base frequency and the share of each head that is rotated.
    Lengths are counted from those the model was pretrained with, even where its own configuration stretches them.

    Raises:
        RagFtError: the model has no rotary positions, or another number of frequencies.
    """
    text = config.get_text_config()
    before = getattr(text, "rope_parameters", None)
    if not before:
        raise RagFtError(
            f"model.rope_scaling: a model of type {config.model_type} has no rotary positions to stretch. "
            "Set model.rope_scaling=null."
        )
    layered = _GLOBAL in before
    own = before[_GLOBAL] if layered else before
    if all(own.get(name) == value for name, value in told.items()):
        return  # weights that were saved with stretched positions
    known = told.get("original_max_position_embeddings", own.get("original_max_position_embeddings"))
    known = known or text.max_position_embeddings
    kept = {name: own[name] for name in ("rope_theta", "partial_rotary_factor") if own.get(name) is not None}
    scaled = {**kept, **told, "original_max_position_embeddings": known}
    if told["rope_type"] in ("linear", "dynamic"):  # transformers takes no such key with these
        del scaled["original_max_position_embeddings"]
    # dynamic scaling begins where the positions known before end, so transformers must be told that number
    text.max_position_embeddings = known if told["rope_type"] == "dynamic" else int(known * told.get("factor", 1))
    _check_frequencies(text, scaled)
    text.rope_parameters = {**before, _GLOBAL: scaled} if layered else scaled


def _check_frequencies(text: Any, scaled: Mapping[str, Any]) -> None:
    """A list of one factor would be taken for all frequencies, another length fails in the middle of loading."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    frequencies = len(range(0, int(head * scaled.get("partial_rotary_factor", 1)), 2))
    for name in ("short_factor", "long_factor"):
        if len(scaled.get(name, range(frequencies))) != frequencies:
            raise RagFtError(
                f"model.rope_scaling.{name} has {len(scaled[name])} numbers, but this model's positions have "
                f"{frequencies} frequencies. Write one number for each, as published for the model."
            )


def reach(config: Any) -> int | None:
    """Return the longest sequence in tokens that a model knows positions for; None where nothing limits it."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    rope = rope.get(_GLOBAL, rope)
    if not limit or not rope.get("factor"):
        return limit
    base = limit if rope["rope_type"] == "dynamic" else rope.get("original_max_position_embeddings", 0)
    return max(limit, int(base * rope["factor"]))


def check_reach(config: Any, longest: int) -> None:
    """Refuse rows that go further than the model's positions.

    Raises:
        RagFtError: `longest`, in tokens, is more than the model knows.
    """
    limit = reach(config)
    if limit is not None and longest > limit:
        raise RagFtError(
            f"training.max_length={longest} is more than the {limit} positions the model knows. Set "
            f"training.max_length={limit}, or stretch its positions with model.rope_scaling, for example "
            f"{{rope_type: yarn, factor: {-(-longest // limit)}.0}}."
        )
