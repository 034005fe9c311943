"""Chat templates for models without one: ours, a file, another model's; what ends a reply; the adapter's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import TEMPLATES as TINY
from tiny_model import tiny_run, tiny_settings, tiny_tokenizer
from token_rows import only_stage, row

from data_builders.errors import RagFtError
from rag_ft.models.chat_templates import TEMPLATES, choose_template
from rag_ft.models.settings import ModelSettings
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.training.preflight import preflight
from rag_ft.training.rows import IGNORED, encode_row

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Aldo"},
]


def base_tokenizer(eos: str = "<|endoftext|>") -> Any:
    """The tokenizer of a base model: no chat template, no beginning of sequence, texts end with `eos`."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.bos_token = None
    tokenizer.eos_token = eos
    return tokenizer


def with_bos(tokenizer: Any, bos: str = "<s>") -> Any:
    from tokenizers.processors import TemplateProcessing

    tokenizer.bos_token = bos
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )
    return tokenizer


def chosen(tokenizer: Any, template: Path | str) -> Any:
    choose_template(tokenizer, ModelSettings(chat_template=str(template)), None)
    return tokenizer


@pytest.mark.parametrize(
    ("template", "expected", "end"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
            "<|im_start|>assistant\nAldo<|im_end|>\n",
            "<|im_end|>",
        ),
        ("plain", "Be brief.\n\nRequest:\nWho?\n\nReply:\nAldo<|endoftext|>\n\n", "<|endoftext|>"),
    ],
)
def test_our_templates_write_turns_and_an_end_that_stops_a_reply(template: str, expected: str, end: str) -> None:
    tokenizer = chosen(base_tokenizer(), template)
    assert tokenizer.apply_chat_template(CONVERSATION, tokenize=False) == expected
    asked = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert asked + "Aldo" + end == expected[: len(asked) + 4 + len(end)]
    assert tokenizer.eos_token == end


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tokenizer_that_begins_every_text_with_a_token_begins_prompts_so(template: str) -> None:
    tokenizer = chosen(with_bos(base_tokenizer()), template)
    written = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert written.startswith("<s>")
    assert written.count("<s>") == 1


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("style", ["answer", "self_reasoning"])
def test_rows_pass_preflight_and_learn_the_end(template: str, style: str, bos: bool, tmp_path: Path) -> None:
    tokenizer = chosen(with_bos(base_tokenizer()) if bos else base_tokenizer(), template)
    encoder = Encoder(tokenizer, PromptSettings.model_validate({"style": style}), {})
    rows = [row(3, [1]), row(4, [0], [1], [])]
    tokens = [encode_row(each, encoder) for each in rows]
    assert preflight(rows, tokens, encoder, only_stage(tmp_path))
    assert encoder.end == (tokenizer.eos_token_id,)
    assert [label for label in tokens[0].labels if label != IGNORED][-1] == tokenizer.eos_token_id


def test_a_passage_cannot_end_the_turn_of_a_plain_template() -> None:
    encoder = Encoder(chosen(base_tokenizer(), "plain"), PromptSettings(), {})
    neutral = encoder.prompt_texts("Who?<|endoftext|>", row(1, [0]).passages)
    assert "<|endoftext|>" not in "".join(neutral)


def test_a_file_and_another_model_give_their_template_alone(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(TINY["gemma"].replace("{{ bos_token }}", ""))
    from_file = chosen(base_tokenizer(), tmp_path / "own.jinja")
    assert from_file.eos_token == "<end_of_turn>"
    tiny_tokenizer("llama3").save_pretrained(tmp_path / "other")
    (tmp_path / "other/config.json").write_text(json.dumps({"model_type": "llama"}))
    from_model = chosen(with_bos(base_tokenizer()), tmp_path / "other")
    assert from_model.chat_template == TINY["llama3"]
    assert (from_model.bos_token, from_model.eos_token) == ("<s>", "<|eot_id|>")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"No such file or directory\. Give the path of a Jinja template"),
        ("{% for m in messages %}<|turn|>{{ m.content }}<|endoftext|>{% endfor %}", r"writes <\|turn\|>, which is no "),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "no control token of this .*chat_template=plain"),
        ("{% for m in messages %", "Jinja cannot write"),
        ("{{ raise_exception('never') }}", r"Jinja cannot write a conversation with it \(never\)"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_one_sentence(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RagFtError, match=f"^model.chat_template={path}: .*{message}") as caught:
        chosen(base_tokenizer(), path)
    assert "\n" not in str(caught.value)


def test_chatml_without_its_tokens_names_plain() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE({letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")
    with pytest.raises(RagFtError, match=r"it writes <\|im_end\|>, which is no token .*model.chat_template=plain"):
        chosen(tokenizer, "chatml")
    assert chosen(tokenizer, "plain").eos_token == "</s>"
    tokenizer.eos_token = None
    with pytest.raises(RagFtError, match="plain: the tokenizer has no end token"):
        chosen(tokenizer, "plain")


def test_another_model_without_a_template_is_one_sentence(tmp_path: Path) -> None:
    base_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(RagFtError, match=f"^model.chat_template={tmp_path}: .*has no chat template") as caught:
        chosen(base_tokenizer(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def base_weights(tiny_weights: Path, tmp_path: Path) -> Path:
    """The tiny model as a base model: its tokenizer has no chat template."""
    import shutil

    folder = shutil.copytree(tiny_weights, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    base_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_base_model_trains_and_evaluates_and_its_adapter_brings_the_template(
    template: str, base_weights: Path, built_data: Path, tmp_path: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    from transformers import AutoTokenizer

    changed = {**tiny_settings(base_weights)["model"], "chat_template": template}
    recipe = tiny_run(tmp_path, base_weights, built_data, model=changed)
    steps = "training.max_steps=2"
    code, out, err = run_verb("train", recipe, steps)
    assert code == 0, out + err
    saved = AutoTokenizer.from_pretrained(tmp_path / "runs/tiny/adapter")
    assert saved.chat_template == TEMPLATES[template]
    assert saved.eos_token == ("<|im_end|>" if template == "chatml" else "<|endoftext|>")
    assert run_verb("evaluate", recipe, steps, "--limit", "1")[0] == 0


def test_an_adapter_is_not_asked_under_another_template(
    base_weights: Path, built_data: Path, tmp_path: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(TEMPLATES["chatml"])
    changed = {**tiny_settings(base_weights)["model"], "chat_template": str(file)}
    recipe = tiny_run(tmp_path, base_weights, built_data, model=changed)
    assert run_verb("train", recipe, "training.max_steps=2")[0] == 0
    file.write_text(TEMPLATES["plain"])
    code, out, err = run_verb("evaluate", recipe, "training.max_steps=2", "--limit", "1")
    assert code == 2, out
    assert "trained with chat_template_hash" in err


def test_without_a_template_the_message_names_the_setting(base_weights: Path) -> None:
    from rag_ft.models.load import load_tokenizer
    from rag_ft.models.weights import resolve_weights

    tokenizer = load_tokenizer(ModelSettings(), resolve_weights(str(base_weights)))
    with pytest.raises(RagFtError, match=r"has no chat template.*model\.chat_template=plain"):
        Encoder(tokenizer, PromptSettings(), {})
