"""Tokenizers of the Llama 2 kind, which put a space in front of every text: segments are read as in the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import TEMPLATES, WORDS
from token_rows import only_stage, row

from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.training.preflight import preflight
from rag_ft.training.rows import encode_row

LLAMA_2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] "
    "+ ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
GLUED = (  # a control token stands right in front of what the model writes, as in Mistral's third version
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST]' + message['content'] "
    "+ '[/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)


def sentencepiece(kind: str, template: str, controls: tuple[str, ...] = ()) -> Any:
    """Return a small tokenizer with bytes to fall back on; `kind` says who puts the space in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE(unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    plain.train_from_iterator([WORDS], trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"]))
    told = json.loads(plain.to_str())
    vocabulary = told["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    told["model"]["byte_fallback"] = True
    backend = Tokenizer.from_str(json.dumps(told))
    if kind == "normaliser":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = None
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in controls])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


@pytest.mark.parametrize("style", ["answer", "reasoning", "self_reasoning"])
@pytest.mark.parametrize("kind", ["normaliser", "first", "always"])
@pytest.mark.parametrize(
    ("template", "controls"),
    [(LLAMA_2, ()), (ZEPHYR, ()), (GLUED, ("[INST]", "[/INST]"))],
    ids=["llama", "zephyr", "v3"],
)
def test_segments_are_the_ids_of_the_whole_text(
    kind: str, template: str, controls: tuple[str, ...], style: str, tmp_path: Path
) -> None:
    tokenizer = sentencepiece(kind, template, controls)
    one = Encoder(tokenizer, PromptSettings(style=style), {})
    rows = [row(3, [0], [2]), row(2, [])]
    tokens = [encode_row(each, one) for each in rows]
    alone = tokenizer("Alarum", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")  # it is of that kind
    lines = preflight(rows, tokens, one, only_stage(tmp_path))
    assert "prompt: its ids are a prefix of the row's, and the same when tokenised as one text" in lines


def test_other_tokenizers_are_asked_as_before() -> None:
    from tiny_model import tiny_tokenizer

    for template in TEMPLATES:
        tokenizer = tiny_tokenizer(template)
        one = Encoder(tokenizer, PromptSettings(), {})
        texts = ["A town.\n", "Answer: 1801"]
        assert one.parts(texts, before="x") == tuple(
            tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts
        )
