"""What a recipe may say about the exported adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.settings import Settings

Quantisation = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s"
]


class ExportSettings(Settings):
    """What the model card says beyond what was measured, and how whole models are exported."""

    licence: str | None = None
    """Licence of the adapter, as the Hub spells it; null is that of the base model, where rag-ft knows it."""
    language: tuple[str, ...] = ("en",)
    """Languages of the training data, ISO 639-1."""
    data_licences: dict[str, str] = {}
    """Licences of the data, by the names in data.sources, for the cards: {korquad: cc-by-nd-2.0-kr}."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type that merged weights are saved in; auto takes `model.dtype`, and where that is auto too, the type of the base
    weights' own files."""
    quantisation: Quantisation = "q8_0"
    """Bits of a weight in a GGUF file: whole (f32, f16, bf16), blocks of 32 (q8_0 to q4_0), or llama.cpp's k-quants,
    for which llama-cpp-python must be installed."""
    context: Annotated[int, Field(ge=256)] | None = None
    """Longest prompt with answer, in tokens, that a GGUF file is set up for; null takes `training.max_length` and the
    longest answer, as far as the model reaches."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Greatest difference of a logit between the adapter and merged weights, as a share of the range of the logits."""
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Least share of answer tokens for which an export finds the same token most likely as the adapter."""
