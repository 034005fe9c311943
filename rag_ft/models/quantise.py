"""Base weights in fewer bits through bitsandbytes. Trains nothing."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.models.settings import ModelSettings


def quantisation_config(settings: ModelSettings, dtype: str) -> Any:
    """Return what transformers quantises weights by while it loads them; None where the recipe wants none.

    `dtype` is the name of the type of the weights that stay as they are (embeddings, norms, output layer). NF4 packs
    its bits into tensors of that type too: FSDP shards parameters of one type only (answer.ai's FSDP and QLoRA).

    Raises:
        RagFtError: bitsandbytes is not installed.
    """
    told = settings.quantisation
    if told.kind == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise RagFtError(
            f"model.quantisation.kind={told.kind}: bitsandbytes is not installed. Install it with "
            "`pip install 'rag-ft[quantisation]'`, or set model.quantisation.kind=none."
        )
    import torch
    from transformers import BitsAndBytesConfig

    if told.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = dtype if told.compute_dtype == "auto" else told.compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=told.double,
        bnb_4bit_compute_dtype=getattr(torch, compute),
        bnb_4bit_quant_storage=getattr(torch, dtype),
    )


def keep_gradients(model: Any) -> Any:
    """Keep bitsandbytes from repacking NF4 weights on a CPU; return the model.

    bitsandbytes 0.50.2 repacks a layer for AVX-512 at its first pass in evaluation mode, for good, and computes
    packed layers by an operation without gradient: after the first validation nothing would be learned below the last
    layer, without a word. Packed scales are rounded to bfloat16 besides, so that evaluation would see other weights
    than training.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def quiet_bitsandbytes() -> None:
    """Silence its notes on kernels it did not find and on every cast; errors still show."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
