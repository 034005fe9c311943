"""Folders with the published shapes of well-known models: their config.json and the tiny tokenizer, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_model import tiny_tokenizer

LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
QWEN = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
GEMMA = {"hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16}
NEMO = {"hidden_size": 5120, "intermediate_size": 14336, "num_hidden_layers": 40, "num_attention_heads": 32}
UNTIED = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": False}
TIED = {"num_key_value_heads": 8, "max_position_embeddings": 8192, "tie_word_embeddings": True}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.1-8b": ("llama", {**LLAMA, **UNTIED, "vocab_size": 128256}),
    "qwen3-8b": ("qwen3", {**QWEN, **UNTIED, "vocab_size": 151936, "head_dim": 128}),
    "gemma-2-9b": ("gemma2", {**GEMMA, **TIED, "vocab_size": 256000, "head_dim": 256}),
    "mistral-nemo-12b": ("mistral", {**NEMO, **UNTIED, "vocab_size": 131072, "head_dim": 128, "sliding_window": None}),
}
PUBLISHED = {"llama-3.1-8b": 8.03, "qwen3-8b": 8.19, "gemma-2-9b": 9.24, "mistral-nemo-12b": 12.25}
"""Billions of parameters, as the models' pages state them."""


def shape_config(name: str) -> Any:
    """Return the configuration of a model."""
    from transformers import AutoConfig

    kind, fields = SHAPES[name]
    return AutoConfig.for_model(kind, **fields)


def write_shape(folder: Path, name: str) -> Path:
    """Write configuration and tokenizer of a model into `folder`; return it."""
    shape_config(name).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
