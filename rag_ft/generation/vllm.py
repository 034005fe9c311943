"""Generation with vLLM, which shares prefixes by itself and takes LoRA adapters. Needs a GPU and the extra `vllm`."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.generation import Engine, Generation, Request
from rag_ft.generation.choose import end_tokens
from rag_ft.generation.reach import Reach, WithinReach
from rag_ft.models.load import dtype_name, load_config
from rag_ft.models.positions import reach
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import Weights
from rag_ft.prompting.encode import Encoder

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as max_lora_rank (vllm/config/lora.py, 0.33)."""


@dataclass(frozen=True)
class VllmEngine:
    """Prompts as token ids, so they are those of training; greedy.

    Attributes:
        llm: a `vllm.LLM`.
        lora: its LoRARequest, or None for the base weights.
        stop_ids: tokens that end an answer.
        max_new_tokens: longest output.
        batch_size: groups handed over together; what a kill loses at most.
    """

    llm: Any
    lora: Any
    stop_ids: frozenset[int]
    max_new_tokens: int
    batch_size: int

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers batch by batch. No prompt may be longer than what was loaded for."""
        groups = [group for group in groups if group]
        for start in range(0, len(groups), self.batch_size):
            yield self._batch([request for group in groups[start : start + self.batch_size] for request in group])

    def _batch(self, requests: Sequence[Request]) -> list[Generation]:
        from vllm import SamplingParams

        began = time.perf_counter()
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=self.max_new_tokens,
            stop_token_ids=sorted(self.stop_ids),
            logprobs=0,  # of the chosen token alone
            detokenize=False,
        )
        prompts = [{"prompt_token_ids": [t for ids in request.segments for t in ids]} for request in requests]
        outputs = self.llm.generate(prompts, sampling, use_tqdm=False, lora_request=self.lora)
        seconds = (time.perf_counter() - began) / len(requests)
        return [self._answer(*pair, seconds) for pair in zip(requests, outputs, strict=True)]

    def _answer(self, request: Request, output: Any, seconds: float) -> Generation:
        """Read vLLM's output, whose last token may be the stop token."""
        written = output.outputs[0]
        ids = tuple(written.token_ids)
        end = next((index for index, token in enumerate(ids) if token in self.stop_ids), len(ids))
        total = written.cumulative_logprob
        confidence = total / len(ids) if ids and total is not None else None
        return Generation(request.key, ids[:end], request.length, seconds, confidence=confidence)


@dataclass(frozen=True)
class Loaded:
    """Weights in vLLM, and what is needed to ask them: the LoRARequest or None, end tokens, positions, if limited."""

    llm: Any
    lora: Any
    generation_config: Any
    positions: int | None


def load_vllm(settings: ModelSettings, weights: Weights, adapter: Path | None, longest: int) -> Loaded:
    """Load weights, and an adapter where there is one, into vLLM for prompts that have `longest` tokens with answers.

    Raises:
        RagFtError: vLLM or a GPU is missing, or vLLM does not take these weights or this adapter.
    """
    _require_vllm(settings)
    rank = None if adapter is None else adapter_rank(adapter)
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    positions = reach(load_config(settings, weights))
    try:
        llm = LLM(
            model=weights.location,
            revision=weights.revision,
            skip_tokenizer_init=True,
            trust_remote_code=settings.trust_remote_code,
            dtype=dtype_name(settings.dtype),
            max_model_len=min(longest, positions) if positions else longest,
            enable_prefix_caching=True,
            **({} if settings.rope_scaling is None else {"hf_overrides": {"rope_parameters": settings.rope_scaling}}),
            **({} if rank is None else {"enable_lora": True, "max_lora_rank": rank}),
        )
    except (ValueError, RuntimeError) as error:
        raise RagFtError(
            f"vLLM does not load {weights.reference}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            ". Set evaluation.engine=transformers."
        ) from error
    lora = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
    return Loaded(llm, lora, _generation_config(weights), positions)


def vllm_engine(loaded: Loaded, encoder: Encoder, *, max_new_tokens: int, batch_size: int) -> Engine:
    """Return an engine over loaded weights; prompts beyond their positions are failures."""
    stops = end_tokens(loaded.generation_config, encoder)
    engine = VllmEngine(loaded.llm, loaded.lora, stops, max_new_tokens, batch_size)
    return WithinReach(engine, Reach(loaded.positions, max_new_tokens))


def adapter_rank(adapter: Path) -> int:
    """Return the least max_lora_rank under which vLLM takes an adapter.

    Raises:
        RagFtError: it is of a kind that vLLM does not take (vllm#9280, #3404).
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unknown = [name for name in ("modules_to_save", "use_dora", "trainable_token_indices") if config.get(name)]
    unknown += ["bias"] if config.get("bias", "none") != "none" else []
    needed = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if unknown or needed > RANKS[-1]:
        why = f"has {', '.join(unknown)}" if unknown else f"is of rank {needed}"
        raise RagFtError(
            f"the adapter in {adapter} {why}, which vLLM does not take. Set evaluation.engine=transformers, or name "
            "merged weights in evaluation.systems."
        )
    return next(rank for rank in RANKS if rank >= needed)


def _require_vllm(settings: ModelSettings) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise RagFtError(
            "evaluation.engine=vllm needs the package vllm, which is not installed. Run `pip install 'rag-ft[vllm]'`, "
            "or set evaluation.engine=transformers."
        )
    import torch

    if not torch.cuda.is_available():
        raise RagFtError("evaluation.engine=vllm needs a GPU, and this machine has none: set it to transformers.")
    if settings.quantisation.kind != "none":
        raise RagFtError(
            "evaluation.engine=vllm does not quantise weights as model.quantisation does, so it would evaluate others: "
            "set evaluation.engine=transformers, or model.quantisation.kind=none."
        )


def _generation_config(weights: Weights) -> Any:
    """Return what the weights say about generation; None where they say nothing."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(weights.location, revision=weights.revision)
    except OSError:
        return None
