"""What is trained on base weights: a new adapter, one that exists already, or all weights. Saves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag_ft.models.settings import LoraSettings, ModelSettings


def trainable(model: Any, settings: ModelSettings, start: str | None, folder: Path) -> Any:
    """Return the model with the adapter to train on it.

    Args:
        model: the base weights.
        settings: the recipe's `model` section.
        start: an adapter to go on from; None makes a new one.
        folder: where what is needed again to resume is kept.
    """
    from peft import PeftModel, get_peft_model

    if start is not None:
        return PeftModel.from_pretrained(model, start, is_trainable=True)
    return get_peft_model(model, lora_config(settings.lora))


def lora_config(settings: LoraSettings) -> Any:
    """Return the PEFT configuration of a new adapter."""
    from peft import LoraConfig

    modules = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # PEFT reads a text other than all-linear as a regular expression
        target_modules=modules if modules == "all-linear" else [modules] if isinstance(modules, str) else list(modules),
    )
