"""Whether a loaded model keeps the questions of a shared context apart: tried, not read from its configuration.

An attention that ignores a mask raises nothing; the loss merely becomes too good. So three short forward passes tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_ft.training.collate import shared_attention

if TYPE_CHECKING:
    import torch

LENGTHS = (4, 24, 4)  # tokens of the shared prompt, of a question to hide, of a question to look at
MOST = 0.25  # rounding to bfloat16 or 4 bits stays far below this share of what an open view changes


def honours_masks(model: Any) -> bool:
    """Tell whether the last question of a shared context is computed as if it were alone.

    Compares its last logits under the mask, alone, and with the other question in view: the first two must lie near
    each other against their distance from the third. Runs in training mode, where some layers drop masks, with every
    dropout off.
    """
    import torch

    weight = model.get_input_embeddings().weight
    ids = (torch.arange(sum(LENGTHS), device=weight.device) * 7919 + 11) % weight.shape[0]
    lengths = torch.tensor([LENGTHS], device=weight.device)
    mask, positions = shared_attention(lengths, len(ids), weight.dtype)
    alone = torch.cat([ids[: LENGTHS[0]], ids[-LENGTHS[2] :]])
    half = weight.dtype != torch.float32
    with _training_without_dropout(model), torch.no_grad(), torch.autocast(weight.device.type, weight.dtype, half):
        hidden = _last_logits(model, ids, mask, positions)
        right = _last_logits(model, alone, torch.ones_like(alone)[None], torch.arange(len(alone), device=ids.device))
        leaked = _last_logits(model, ids, torch.ones_like(ids)[None], positions)
    return bool((hidden - right).norm() < MOST * (leaked - right).norm())


def _last_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    told = {"attention_mask": mask, "position_ids": positions.view(1, -1), "use_cache": False, "logits_to_keep": 1}
    logits: torch.Tensor = model(input_ids=ids[None], **told).logits
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
