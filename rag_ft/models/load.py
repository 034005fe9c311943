"""Models and tokenizers from settings, and adapters on top of them. No hub code unless the recipe says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.progress import quiet_transformers
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import Weights, loading, resolve_weights


def load_tokenizer(settings: ModelSettings, weights: Weights) -> Any:
    """Load the tokenizer; a missing pad token becomes the end token, which is safe since we mask by attention."""
    from transformers import AutoTokenizer

    with quiet_transformers(), loading(weights.reference, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            weights.location, revision=weights.revision, trust_remote_code=settings.trust_remote_code
        )
    tokenizer.clean_up_tokenization_spaces = False  # would eat spaces in front of punctuation when decoding
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(settings: ModelSettings, weights: Weights, device: str | None = None, *, masked: bool = False) -> Any:
    """Load the base weights in the recipe's dtype on `device` (the best there is when None).

    `masked` is whether rows come with an attention mask of their own (shared contexts, packing).
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = device or best_device()
    dtype = dtype_name(settings.dtype)
    with quiet_transformers(), loading(weights.reference, "model"):
        model = AutoModelForCausalLM.from_pretrained(
            weights.location,
            revision=weights.revision,
            dtype=getattr(torch, dtype),
            attn_implementation=attention_name(settings.attention, device, dtype),
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
        )
    return model.to(device)


def load_base(settings: ModelSettings) -> tuple[Any, Any]:
    """Resolve the recipe's weights; return model and tokenizer."""
    weights = resolve_weights(settings.weights, settings.revision)
    return load_model(settings, weights), load_tokenizer(settings, weights)


def load_adapter(model: Any, folder: Path) -> Any:
    """Put a trained adapter on a base model, frozen and in evaluation mode.

    Raises:
        RagFtError: the folder holds no adapter or one that does not fit the model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (folder / "adapter_model.safetensors").is_file():
        raise RagFtError(f"{folder} holds no adapter. Train one first with `rag-ft train RECIPE`.")
    try:
        # In the base's type: float32 adapters on a bfloat16 base would cast every activation twice.
        return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False).eval()
    except SafetensorError as error:
        raise RagFtError(
            f"the adapter in {folder} is damaged: {error}. Train again with `rag-ft train RECIPE --restart`."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise RagFtError(
            f"the adapter in {folder} does not fit the base weights: {str(error).splitlines()[0]}. "
            "Set model.weights to the weights it was trained on, or train again."
        ) from error


def best_device() -> str:
    """Return this process's GPU where there is one, else "cpu"."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def attention_name(choice: str, device: str, dtype: str) -> str:
    """Resolve `auto` to our blocks where they are faster (bfloat16 on a CPU), else to torch's own kernels."""
    if choice != "auto":
        return choice
    if device == "cpu" and dtype == "bfloat16":
        from rag_ft.models import attention

        return attention.register()
    return "sdpa"


def dtype_name(choice: str) -> str:
    """Resolve `auto` to bfloat16 where the machine multiplies it fast, else float32."""
    import torch

    if choice != "auto":
        return choice
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"
