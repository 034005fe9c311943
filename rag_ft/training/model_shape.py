"""The architecture of a model without its weights: exact counts of parameters, from its configuration alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.failures import loading
from data_builders.progress import quiet_transformers
from rag_ft.models.quantise import quiet_bitsandbytes
from rag_ft.models.settings import ModelSettings


@dataclass(frozen=True)
class ModelShape:
    """How large a model is and what of it is trained. Counts are parameters; what is tied counts once.

    Attributes:
        config: the model's configuration, as transformers has it.
        total: all base weights.
        linear: those in the linear layers that bitsandbytes quantises: all but the output layer.
        linear_outputs: output features of these layers together; int8 keeps one scale for each.
        largest: the largest of these layers.
        per_layer: all of one decoder layer, on average.
        added: what the adapter adds to the base.
        trained: what has gradients and optimizer state.
        layers, hidden, vocabulary: of the decoder.
        attention: heads times the size of one.
    """

    config: Any
    total: int
    linear: int
    linear_outputs: int
    largest: int
    per_layer: int
    added: int
    trained: int
    layers: int
    hidden: int
    vocabulary: int
    attention: int


def model_shape(settings: ModelSettings, config: Any) -> ModelShape:
    """Count the parameters of a model and of what the recipe trains on it."""
    quiet_bitsandbytes()
    base = skeleton(settings, config)
    linear = list(linear_layers(base))
    total = _count(base)
    outside = _count(base.get_input_embeddings()) + (0 if _tied(base) else _count(base.get_output_embeddings()))
    text = config.get_text_config()
    sizes = {"layers": text.num_hidden_layers, "hidden": text.hidden_size, "vocabulary": text.vocab_size}
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    trained = with_trained(base, settings)
    return ModelShape(
        config=config,
        total=total,
        linear=sum(layer.weight.numel() for layer in linear),
        linear_outputs=sum(layer.out_features for layer in linear),
        largest=max((layer.weight.numel() for layer in linear), default=0),
        per_layer=(total - outside) // text.num_hidden_layers,
        added=_count(trained) - total,
        trained=sum(each.numel() for each in trained.parameters() if each.requires_grad),
        attention=text.num_attention_heads * head,
        **sizes,
    )


def skeleton(settings: ModelSettings, config: Any, dtype: str = "bfloat16", attention: str = "sdpa") -> Any:
    """Return the base model on the meta device: every module and shape, no values."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), loading(settings.weights, "configuration"), torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            copy.deepcopy(config),  # transformers writes the type and the attention into it
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=settings.trust_remote_code,
        )


def with_trained(base: Any, settings: ModelSettings) -> Any:
    """Put on a skeleton what the recipe trains; an adapter that exists counts by its own configuration."""
    import torch
    from peft import PeftConfig, get_peft_model

    from rag_ft.models.lora import in_float32, new_adapter
    from rag_ft.models.tuned import adapter_folder

    if settings.tuning == "full":
        return base.requires_grad_(True)
    with torch.device("meta"):
        if settings.adapter is not None:
            config = PeftConfig.from_pretrained(str(adapter_folder(settings.adapter)))
            config.inference_mode, config.init_lora_weights = False, True
            return in_float32(get_peft_model(base, config))
        # where an adapter starts changes its values, not its size, and a skeleton has no values
        return new_adapter(base, settings.lora.model_copy(update={"initialisation": "zero"}), Path())


def linear_layers(model: Any) -> Iterator[Any]:
    """Yield the linear layers of a base model, without the output layer."""
    from torch.nn import Linear

    output = model.get_output_embeddings()
    yield from (module for module in model.modules() if isinstance(module, Linear) and module is not output)


def _count(model: Any) -> int:
    return sum(each.numel() for each in model.parameters()) if model is not None else 0


def _tied(model: Any) -> bool:
    output = model.get_output_embeddings()
    return output is None or output.weight is model.get_input_embeddings().weight
