"""Models and tokenizers from settings, and adapters on top of them. No hub code unless the recipe says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading
from data_builders.progress import quiet_transformers
from rag_ft.models.chat_templates import choose_template
from rag_ft.models.positions import check_reach, stretch
from rag_ft.models.quantise import keep_gradients, quantisation_config, quiet_bitsandbytes
from rag_ft.models.settings import ModelSettings
from rag_ft.models.sharding import sharding
from rag_ft.models.weights import Weights, resolve_model


def load_tokenizer(settings: ModelSettings, weights: Weights) -> Any:
    """Load the tokenizer with the recipe's chat template.

    A missing pad token becomes the end token, which is safe since we mask by attention.
    """
    from transformers import AutoTokenizer

    quiet_bitsandbytes()
    with quiet_transformers(), loading(weights.reference, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            weights.location, revision=weights.revision, trust_remote_code=settings.trust_remote_code
        )
    tokenizer.clean_up_tokenization_spaces = False  # would eat spaces in front of punctuation when decoding
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    choose_template(tokenizer, settings, weights.template_revision)
    return tokenizer


def load_model(
    settings: ModelSettings,
    weights: Weights,
    device: str | None = None,
    *,
    masked: bool = False,
    longest: int | None = None,
) -> Any:
    """Load the base weights in the recipe's dtype and quantisation on `device` (the best there is when None).

    Quantised weights are quantised one by one as they are read: the whole is never there in full precision.

    Args:
        settings: the recipe's `model` section.
        weights: what it names, resolved.
        device: as torch calls it.
        masked: rows come with an attention mask of their own (shared contexts, packing).
        longest: longest row in tokens that will be trained on; the model's positions must reach it.

    Raises:
        RagFtError: the weights cannot be loaded so.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_bitsandbytes()
    device = device or best_device()
    dtype = dtype_name(settings.dtype)
    quantised = quantisation_config(settings, dtype)
    config = load_config(settings, weights, longest)
    with quiet_transformers(), loading(weights.reference, "model"):
        model = AutoModelForCausalLM.from_pretrained(
            weights.location,
            config=config,
            revision=weights.revision,
            adapter_kwargs={"revision": weights.revision},  # looked for on the main branch otherwise
            dtype=getattr(torch, dtype),
            attn_implementation=attention_name(
                settings.attention, device, dtype, masked=masked, capped=caps_scores(config)
            ),
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            **({} if quantised is None else {"quantization_config": quantised, "device_map": {"": device}}),
        )
    # Under FSDP and ZeRO-3 the whole of it may not fit on one device: the trainer hands the shares out.
    return model.to("cpu" if sharding() else device) if quantised is None else keep_gradients(model)


def load_config(settings: ModelSettings, weights: Weights, longest: int | None = None) -> Any:
    """Load the model's configuration, its positions stretched as the recipe says.

    Raises:
        RagFtError: the positions cannot be stretched, or do not reach `longest` tokens.
    """
    from transformers import AutoConfig

    with quiet_transformers(), loading(weights.reference, "configuration"):
        config = AutoConfig.from_pretrained(
            weights.location, revision=weights.revision, trust_remote_code=settings.trust_remote_code
        )
    if settings.rope_scaling is not None:
        stretch(config, settings.rope_scaling)
    if longest is not None:
        check_reach(config, longest)
    return config


def load_base(settings: ModelSettings) -> tuple[Any, Any]:
    """Resolve the recipe's weights; return model and tokenizer."""
    weights = resolve_model(settings)
    return load_model(settings, weights), load_tokenizer(settings, weights)


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """Put a trained adapter on a base model: frozen and in evaluation mode, or `trainable` and in float32.

    Raises:
        RagFtError: the folder holds no adapter or one that does not fit the model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (folder / "adapter_model.safetensors").is_file():
        raise RagFtError(f"{folder} holds no adapter. Train one first with `rag-ft train RECIPE`.")
    try:
        # For answering in the base's type: float32 adapters on a bfloat16 base would cast every activation twice.
        adapted = PeftModel.from_pretrained(
            model, str(folder), is_trainable=trainable, autocast_adapter_dtype=trainable
        )
    except SafetensorError as error:
        raise RagFtError(
            f"the adapter in {folder} is damaged: {error}. Train again with `rag-ft train RECIPE --restart`."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise RagFtError(
            f"the adapter in {folder} does not fit the base weights: {str(error).splitlines()[0]}. "
            "Set model.weights to the weights it was trained on, or train again."
        ) from error
    return adapted if trainable else adapted.eval()


def best_device() -> str:
    """Return this process's GPU where there is one, else "cpu"."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def caps_scores(config: Any) -> bool:
    """Tell whether a model caps the scores of its attention (Gemma 2)."""
    return bool(getattr(config.get_text_config(), "attn_logit_softcapping", None))


def attention_name(choice: str, device: str, dtype: str, *, masked: bool = False, capped: bool = False) -> str:
    """Resolve `auto` to what is fastest: our blocks for bfloat16 on a CPU, block masks for masked rows on a GPU, else
    torch's own kernels. Where scores are `capped`, these two would leave the caps out in silence: eager then.

    Raises:
        RagFtError: flex_attention on a CPU, where torch cannot train with it; sdpa for a model that caps its scores.
    """
    if choice == "sdpa" and capped:
        raise RagFtError(
            "model.attention=sdpa leaves out the cap that this model puts on its attention's scores: set it to auto."
        )
    if choice == "flex_attention" and device == "cpu":
        raise RagFtError("model.attention=flex_attention needs a GPU, and this machine has none: set it to auto.")
    if choice != "auto":
        return choice
    if masked and device.startswith("cuda"):
        return "flex_attention"
    if capped:
        return "eager"
    if device == "cpu" and dtype == "bfloat16":
        from rag_ft.models import attention

        return attention.register()
    return "sdpa"


def dtype_name(choice: str) -> str:
    """Resolve `auto` to bfloat16 where the machine multiplies it fast, float16 on older GPUs, else float32."""
    import torch

    if choice != "auto":
        return choice
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"
