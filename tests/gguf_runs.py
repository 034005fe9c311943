"""Runs of tiny models of the families that are written as GGUF, as if they had been trained. Holds no test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from tiny_model import SAMPLE, TEMPLATES, tiny_recipe, tiny_settings, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from rag_ft.prompting.contract import contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.load import load_recipe

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
SLOWED = {**LLAMA_3, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 512}

# How tokenizers cut text, as published with the models.
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# family -> model type, its further settings, template, how its tokenizer cuts text, the name of that in llama.cpp
RUNS: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "llama": ("llama", {"tie_word_embeddings": True}, "chatml", QWEN, "qwen2"),
    "llama 3": ("llama", {"rope_parameters": SLOWED, "attention_bias": True}, "llama3", LLAMA, "llama-bpe"),
    "mistral": ("mistral", {"head_dim": 32, "sliding_window": None}, "mistral", TEKKEN, "tekken"),
    "qwen2": ("qwen2", {"rope_parameters": YARN}, "chatml", QWEN, "qwen2"),
    "qwen3": ("qwen3", {"head_dim": 32}, "qwen3", QWEN, "qwen2"),
    "gemma2": (
        "gemma2",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 128, "tie_word_embeddings": True},
        "gemma",
        "sentencepiece",
        "default",
    ),
}


@cache
def sentencepiece_tokenizer() -> Any:
    """Return a tokenizer like Gemma's: spaces are letters, bytes stand in for what has no piece."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    controls = ["<pad>", "<eos>", "<s>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    letters = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    letters.normalizer = normalizers.Replace(" ", "▁")
    letters.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = [*controls, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=special, show_progress=False)
    letters.train_from_iterator([SAMPLE, SAMPLE.replace("\n", " ")], trainer)
    # what was trained as special are bytes: they must not be read out of a text
    told = letters.to_str()
    plain = Tokenizer.from_str(_without_added(told))
    plain.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in controls])
    plain.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n",)])
    plain.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATES["gemma"]
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _without_added(told: str) -> str:
    import json

    return json.dumps({**json.loads(told), "added_tokens": []})


def family_tokenizer(name: str) -> Any:
    """Return the tokenizer of a family."""
    _, _, template, words, _ = RUNS[name]
    return sentencepiece_tokenizer() if words == "sentencepiece" else tiny_tokenizer(template, words)


def family_run(folder: Path, name: str, **changes: Any) -> Path:
    """Write base weights of a family, a random adapter on them and the recipe of both; return the recipe.

    `changes` are made to the recipe.
    """
    kind, more, *_ = RUNS[name]
    tokenizer, weights, run = family_tokenizer(name), folder / "weights", folder / "runs" / "tiny"
    torch.manual_seed(2)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    # more embeddings than pieces, as most models have
    config = AutoConfig.for_model(kind, **{**SIZES, **more, **ends, "vocab_size": len(tokenizer) + 5})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # norms and biases that do something
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(weights)
    tokenizer.save_pretrained(weights)
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    )
    adapted.save_pretrained(run / "adapter")
    tokenizer.save_pretrained(run / "adapter")
    kwargs = {"enable_thinking": False} if name == "qwen3" else {}
    contract_of(Encoder(tokenizer, PromptSettings(), kwargs), kwargs).write(run / "adapter")
    settings = {**tiny_settings(weights)["model"], "chat_template_kwargs": kwargs}
    recipe = tiny_recipe(folder, weights, model=settings, **changes)
    (run / "recipe.resolved.yaml").write_text(yaml.safe_dump(load_recipe(recipe, []).model_dump(mode="json")))
    return recipe
