"""Architectures as GGUF has them: hyperparameters, names, orders and values of tensors. Writes no file.

Four families, which are those of the shipped recipes: what llama.cpp wants of each is what its convert_hf_to_gguf.py
writes. A model of another architecture, or one with a feature llama.cpp computes otherwise, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_builders.errors import RagFtError

WAY_OUT = "Take `rag-ft export RECIPE merged`, then convert_hf_to_gguf.py of llama.cpp on its folder."


@dataclass(frozen=True)
class Family:
    """How a type of transformers model becomes an architecture of llama.cpp.

    Attributes:
        architecture: its name there.
        permuted: llama.cpp rotates neighbouring values, transformers halves of a head: rows of q and k are reordered.
        one_added: transformers adds 1 to the weights of norms while it computes, llama.cpp does not.
    """

    architecture: str
    permuted: bool = False
    one_added: bool = False


FAMILIES = {
    "llama": Family("llama", permuted=True),
    "mistral": Family("llama", permuted=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma2": Family("gemma2", one_added=True),
}
"""By `model_type` of transformers."""


@dataclass(frozen=True)
class TensorOut:
    """A tensor under its name in a GGUF; `values` makes it, as float32, when it is its turn."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], Any]


def family_of(config: Any) -> Family:
    """Return the family of a model.

    Raises:
        RagFtError: llama.cpp would compute something else than transformers, or nobody here knows what.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise RagFtError(
            f"export gguf: models of type {config.model_type} are not written here, only {', '.join(FAMILIES)}. "
            f"{WAY_OUT}"
        )
    odd = next((what for what, found in _odd(config, family).items() if found), None)
    if odd:
        raise RagFtError(f"export gguf: this {config.model_type} has {odd}, which is not written here. {WAY_OUT}")
    return family


def _odd(config: Any, family: Family) -> dict[str, bool]:
    """Return what llama.cpp's architecture does not have, and whether the model has it."""
    rope = _rope(config)
    kinds = ("default", "linear", "yarn", *(("llama3",) if family.permuted else ()))
    scale, head = getattr(config, "query_pre_attn_scalar", None), head_size(config)
    # llama.cpp knows the 27B by its 46 layers, whose scale is not the size of a head
    usual = config.hidden_size / config.num_attention_heads if config.num_hidden_layers == 46 else head
    return {
        f"rope_type {rope['rope_type']}": rope["rope_type"] not in kinds,
        "positions that rotate a part of each head": rope.get("partial_rotary_factor", 1) != 1,
        "an attention factor of its own": any(rope.get(name) for name in ("attention_factor", "mscale")),
        "a scale of attention of its own": scale is not None and scale != usual,
        "an activation of its own": _activation(config) != ("gelu_pytorch_tanh" if family.one_added else "silu"),
        "biases of attention": config.model_type in ("qwen3", "gemma2") and config.attention_bias,
        **(_odd_in_gemma2(config) if config.model_type == "gemma2" else {}),
    }


def _odd_in_gemma2(config: Any) -> dict[str, bool]:
    """Return what llama.cpp takes for granted in a Gemma 2: every other layer with a window, and both softcaps."""
    kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(config.num_hidden_layers)]
    softcaps = (config.attn_logit_softcapping, config.final_logit_softcapping)
    return {
        "no softcap of attention or of its output": not all(softcaps),
        "windows in other layers than every other one": not config.sliding_window or list(config.layer_types) != kinds,
        "attention in both directions": bool(config.use_bidirectional_attention),
    }


def _activation(config: Any) -> str:
    found: str = getattr(config, "hidden_activation", None) or config.hidden_act
    return found


def head_size(config: Any) -> int:
    """Return the size of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def context_length(config: Any) -> int:
    """Return the longest sequence that llama.cpp computes as transformers does."""
    window = getattr(config, "sliding_window", None)
    sliding = getattr(config, "use_sliding_window", True) and config.model_type != "gemma2"  # that one has them there
    return min(config.max_position_embeddings, window) if window and sliding else config.max_position_embeddings


def add_hyperparameters(writer: Any, config: Any) -> None:
    """Write what llama.cpp builds the model from."""
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head = head_size(config)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    _add_positions(writer, _rope(config), config)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)


def _rope(config: Any) -> dict[str, Any]:
    """Return how positions rotate; a model with several kinds of layers, Gemma 2 is none, would have one for each."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    return {"rope_type": "default", **found}


def _add_positions(writer: Any, rope: Mapping[str, Any], config: Any) -> None:
    from gguf import RopeScalingType

    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name in ("beta_fast", "beta_slow"):
            if rope.get(name) is not None:
                getattr(writer, f"add_rope_scaling_yarn_{name}")(float(rope[name]))


def tensors(model: Any, family: Family) -> Iterator[TensorOut]:
    """Yield every tensor of a model as its GGUF has it; what is tied comes once."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    config = model.config
    architecture = next(one for one in MODEL_ARCH if MODEL_ARCH_NAMES[one] == family.architecture)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    if _rope(config)["rope_type"] == "llama3":
        yield TensorOut("rope_freqs.weight", (head_size(config) // 2,), lambda: _frequency_factors(config))
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise RagFtError(f"export gguf: llama.cpp has no place for the tensor {name} of this model. {WAY_OUT}")
        yield TensorOut(known, tuple(tensor.shape), _maker(name, tensor, config, family))


def _maker(name: str, tensor: Any, config: Any, family: Family) -> Callable[[], Any]:
    def make() -> Any:
        values = tensor.detach().float().cpu().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        layer = name.split(".")[-2]
        if family.permuted and layer in heads:
            return neighbours(values, heads[layer])
        return values + 1 if family.one_added and layer.endswith("norm") else values

    return make


def neighbours(values: Any, heads: int) -> Any:
    """Reorder the rows of q or k so that the two values which rotate together stand side by side in each head.

    Args:
        values: heads * size rows, of a weight or a bias.
        heads: how many there are.
    """
    half = values.shape[0] // heads // 2
    return values.reshape(heads, 2, half, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _frequency_factors(config: Any) -> Any:
    """Return by what llama.cpp divides each frequency: as much as Llama 3's scaling has slowed it (one per pair)."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope, head = _rope(config), head_size(config)
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = float(rope["rope_theta"]) ** (-(slowed.new_tensor(range(0, head, 2))) / head)
    return (plain / slowed).float().numpy()
