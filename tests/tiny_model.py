"""A random Llama of two layers with a byte-level tokenizer, five kinds of chat templates, and a recipe for them."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_builders.files import file_hash

SAMPLE = """The town of Aldo was founded in 1801 by Berin. The flag of the town is red. Question: When was it founded?
Answer the question from the numbered passages. Several of them look related but are about something else. Reply with
the answer alone, in as few words as possible. When no passage holds the answer, reply: The passages do not say.
Relevance: [1] yes: It tells of Aldo. [2] no: It is about Corin and does not answer the question. Evidence: none
Analysis: The relevant passages together give the answer: 1801. user assistant system"""

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<s>",
    "</s>",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
]
ADDED = ["<think>", "</think>"]  # added, but not flagged special, as in the tokenizers of thinking models

# How tokenizers cut text before merging. Llama 3 and Qwen: newlines stay together and with punctuation before them.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# GPT-2 and SmolLM2: the last white space before a word goes with the word, newlines are white space as any other.
GPT2_WORDS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_CHATML_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

TEMPLATES = {
    "chatml": _CHATML_TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "[SYSTEM_PROMPT] {{ m.content }}[/SYSTEM_PROMPT]{% elif m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('there is no system role') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "qwen3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
}

_BOS_AND_EOS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "gemma": ("<s>", "<end_of_turn>"),
    "qwen3": (None, "<|im_end|>"),
}


@cache
def _merges(words: str) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    spaced = [SAMPLE, SAMPLE.replace("\n", "\n\n"), "x\n\n", "x \n"]  # so that runs of white space are tokens
    raw.train_from_iterator(spaced, trainer)
    raw.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return raw.to_str()


def tiny_tokenizer(template: str = "chatml", words: str = WORDS) -> Any:
    """Return the byte-level tokenizer with one of the chat templates, all of whose control tokens it knows."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    bos, eos = _BOS_AND_EOS[template]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_merges(words)), bos_token=bos, eos_token=eos, pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATES[template]
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def tiny_config(**changes: Any) -> Any:
    """Return the configuration of the tiny Llama. Weights are wide, so that logits are far apart."""
    from transformers import LlamaConfig

    fields: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "tie_word_embeddings": True,
        "bos_token_id": tiny_tokenizer().bos_token_id,
        "eos_token_id": tiny_tokenizer().eos_token_id,
        "pad_token_id": tiny_tokenizer().pad_token_id,
    }
    return LlamaConfig(**fields | changes)


def write_weights(folder: Path, seed: int = 0) -> Path:
    """Save the tiny model and its ChatML tokenizer into `folder`; return it."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    LlamaForCausalLM(tiny_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_settings(weights: Path) -> dict[str, Any]:
    """Return a recipe that builds, trains and evaluates within seconds."""
    return {
        "name": "tiny",
        "seed": 3,
        "data": {
            "sources": {
                "world": {
                    "kind": "invented_world",
                    "questions": {"train": 24, "validation": 0, "test": 4},
                    "words": [40, 45],
                }
            },
            "depth": 6,
            "contexts": {"passages": {"kind": "fixed", "count": 2}, "contexts": {"train": 12}},
        },
        "model": {"weights": str(weights), "dtype": "float32", "lora": {"rank": 4, "alpha": 8}},
        "training": {
            "learning_rate": 5e-3,
            "batch_size": 1,
            "gradient_accumulation": 1,
            "max_length": 2048,
            "save_steps": 2,
        },
        "evaluation": {
            "passages": [1, 2],
            "gold": ["kept"],
            "max_new_tokens": 4,
            "batch_size": 2,
            "resamples": 100,
            "systems": [{"name": "base", "weights": "base"}, {"name": "tuned", "weights": "tuned"}],
        },
    }


def tiny_recipe(folder: Path, weights: Path, **changes: Any) -> Path:
    """Write the tiny recipe, with `changes` to its top-level keys, into `folder`; its run lies in `folder`/runs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny_settings(weights), "runs_dir": str(folder / "runs"), **changes}))
    return path


def tiny_run(folder: Path, weights: Path, data: Path, **changes: Any) -> Path:
    """Write the tiny recipe beside a run folder that holds a copy of a built `data` folder; return the recipe."""
    recipe = tiny_recipe(folder, weights, **changes)
    shutil.copytree(data, folder / "runs" / "tiny" / "data")
    return recipe


def copied_run(folder: Path, weights: Path, run: Path, **changes: Any) -> Path:
    """Write the tiny recipe beside a copy of a whole run folder; return the recipe."""
    recipe = tiny_recipe(folder, weights, **changes)
    shutil.copytree(run, folder / "runs" / "tiny")
    return recipe


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders, which all have names that begin with a dot or end in .tmp.

    Finished parts of a step are kept on purpose.
    """
    hidden = [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith(".tmp")]
    return [path for path in hidden if not path.name.startswith(".parts-")]


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its path in there."""
    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}
