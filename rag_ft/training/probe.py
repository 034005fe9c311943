"""Whether a loaded model keeps the questions of a shared context apart: tried, not read from its configuration.

An attention that ignores a mask raises nothing; the loss merely becomes too good. So three short forward passes tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_ft.training.collate import Collator, model_inputs
from rag_ft.training.devices import anywhere
from rag_ft.training.rows import IGNORED

if TYPE_CHECKING:
    import torch

LENGTHS = (4, 24, 4)  # tokens of the shared prompt, of a question to hide, of a question to look at
MOST = 0.25  # rounding to bfloat16 or 4 bits stays far below this share of what an open view changes


def honours_masks(model: Any) -> bool:
    """Tell whether the last question of a shared context is computed as if it were alone.

    Compares its last logits under the mask, alone, and with the other question in view: the first two must lie near
    each other against their distance from the third. Runs in training mode, where some layers drop masks, with every
    dropout off. Every process has to ask: under FSDP the first alone has read the weights, the others hold zeros, and
    what one finds is true of all.
    """
    import torch

    weight = model.get_input_embeddings().weight
    half = weight.dtype != torch.float32
    ids = [(number * 7919 + 11) % len(weight) for number in range(sum(LENGTHS))]
    inputs = _as_trained(model, ids)
    places = torch.tensor([[*range(LENGTHS[0]), *range(len(ids) - LENGTHS[2], len(ids))]], device=weight.device)
    plain = {"attention_mask": torch.ones_like(inputs["input_ids"])}
    with _training_without_dropout(model), torch.no_grad(), torch.autocast(weight.device.type, weight.dtype, half):
        hidden = _last_logits(model, inputs)
        right = _last_logits(model, {name: inputs[name].gather(1, places) for name in ("input_ids", "position_ids")})
        leaked = _last_logits(model, inputs | plain)
    return anywhere(bool((hidden - right).norm() < MOST * (leaked - right).norm()))


def _as_trained(model: Any, ids: list[int]) -> dict[str, Any]:
    """Return a shared context of two questions the way training shows it to this model."""
    weight = model.get_input_embeddings().weight
    row = {"input_ids": ids, "labels": [IGNORED] * len(ids), "lengths": list(LENGTHS)}
    batch = {name: value.to(weight.device) for name, value in Collator()([row]).items()}
    inputs = model_inputs(batch, getattr(model.config, "_attn_implementation", None), weight.dtype)
    return {name: value for name, value in inputs.items() if name not in ("labels", "logits_to_keep")}


def _last_logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


@contextmanager
def _training_without_dropout(model: Any) -> Iterator[None]:
    import torch

    modes = {module: module.training for module in model.modules()}
    rates = {module: module.attention_dropout for module in modes if getattr(module, "attention_dropout", 0)}
    try:
        model.train()
        for module in modes:
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        for module in rates:
            module.attention_dropout = 0.0
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, rate in rates.items():
            module.attention_dropout = rate
