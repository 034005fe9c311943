"""What a forward and backward pass keeps in memory, found by running it on tensors without values.

Formulas for this are known (arXiv 2205.05198, section 4.1: 34 bytes a token, layer and unit of width, and the scores
of attention), but each is for one architecture trained in full. An adapter on frozen layers keeps other things:
the frozen layer keeps nothing, the adapter beside it a copy of its input. torch's fake tensors go through the very code
that will train and know the size of everything, so that what autograd keeps is counted instead of derived. One layer
and two layers are traced; their difference is what each further layer adds.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rag_ft.models.settings import ModelSettings
from rag_ft.training.model_shape import linear_layers, skeleton, with_trained


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass on a device.

    Attributes:
        rows, tokens: shape of the batch.
        weights, compute: types of the base weights and of the products, as torch names them.
        attention: the implementation, as transformers names it.
        recompute: whether layers are computed again in the backward pass.
        masked: whether attention takes a dense mask [rows, 1, tokens, tokens].
    """

    rows: int
    tokens: int
    weights: str
    compute: str
    attention: str
    recompute: bool
    masked: bool


def activation_bytes(settings: ModelSettings, config: Any, forward: Pass, layers: int) -> int:
    """Return the most bytes that activations of a decoder's layers take at one time, their gradients included.

    Weights, gradients of weights, the mask and the logits are not in it.
    """
    (one, _), (two, peak) = (_traced(settings, _with_layers(config, count), forward) for count in (1, 2))
    return one + (layers - 1) * (two - one) + (peak - two)


def _with_layers(config: Any, count: int) -> Any:
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:count]
    text.num_hidden_layers = count
    return shorter


def _traced(settings: ModelSettings, config: Any, forward: Pass) -> tuple[int, int]:
    """Return the bytes kept when the forward pass is done, and the most until the backward pass is."""
    base = skeleton(settings, config, forward.weights, _fused() if forward.attention == "sdpa" else forward.attention)
    quantised = {id(layer.weight) for layer in linear_layers(base)} if settings.quantisation.kind == "int8" else set()
    model = with_trained(base, settings).train()
    if forward.recompute:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_sizes(model, quantised)
        compute = getattr(torch, forward.compute)
        inputs, gradient = _batch(base, forward, compute)
        known = [*model.parameters(), *model.buffers(), *inputs.values(), gradient]
        grads = [each.grad for each in model.parameters() if each.grad is not None]
        with _Live([*known, *grads]) as live:
            with torch.autocast("cpu", compute, enabled=compute != torch.float32):
                hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state
            kept = live.live
            hidden.backward(gradient)
    return kept, live.peak


def _fused() -> str:
    """Register torch's attention under a name of its own, by which transformers makes no mask; return the name.

    Real rows without padding between them need none, but transformers looks at their values to know.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("traced_sdpa", sdpa_attention_forward)
    AttentionMaskInterface.register("traced_sdpa", _no_mask)
    return "traced_sdpa"


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Return no mask: causal attention by itself."""


def _give_sizes(model: Any, quantised: set[int]) -> None:
    """Replace what is on the meta device by fake CPU tensors, which autocast and attention treat as real ones.

    A layer in int8 keeps its input as one that is trained does, and unpacks itself to as much as its gradient takes.
    """
    memo: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is None:
                continue
            if id(each) not in memo:
                trained = each.requires_grad or id(each) in quantised
                memo[id(each)] = torch.nn.Parameter(torch.empty(each.shape, dtype=each.dtype), trained)
                if trained:  # gradients stand from the second pass on: they are counted with the weights
                    memo[id(each)].grad = torch.empty(each.shape, dtype=each.dtype)
            module._parameters[name] = memo[id(each)]
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = torch.empty(each.shape, dtype=each.dtype)


def _batch(base: Any, forward: Pass, compute: torch.dtype) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows, tokens = forward.rows, forward.tokens
    inputs = {"input_ids": torch.zeros(rows, tokens, dtype=torch.long)}
    if forward.masked:
        inputs["attention_mask"] = torch.zeros(rows, 1, tokens, tokens, dtype=compute)
        inputs["position_ids"] = torch.zeros(rows, tokens, dtype=torch.long)
    dtype = base.get_input_embeddings().weight.dtype
    return inputs, torch.zeros(rows, tokens, base.config.get_text_config().hidden_size, dtype=dtype)


class _Live(TorchDispatchMode):  # type: ignore[misc]
    """Counts the bytes of the storages alive that were made while it is on; `peak` is the most at one time."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.peak = self.live = 0
        self.seen = {each.untyped_storage()._cdata for each in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self._count(each.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.seen:
            self.seen.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size
