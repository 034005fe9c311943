"""The prompt contract: a hash of all that is written, and the chat templates that cannot be trained with."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_model import tiny_tokenizer

from data_builders.errors import RagFtError
from rag_ft.prompting import templates
from rag_ft.prompting.contract import check_contract, contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings


def encoder(template: str = "chatml", **changes: Any) -> Encoder:
    chosen = {"titles": True, **changes}
    return Encoder(tiny_tokenizer(template), PromptSettings.model_validate(chosen), {"enable_thinking": False})


def test_the_hash_changes_with_every_setting() -> None:
    chosen = [
        {},
        {"style": "reasoning"},
        {"style": "self_reasoning"},
        {"question_position": "both"},
        {"question_position": "before"},
        {"titles": False},
        {"abstention": "Nobody knows."},
    ]
    hashes = [prompt_hash(PromptSettings.model_validate(changes)) for changes in chosen]
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == prompt_hash(PromptSettings())


def other_instructions(style: str) -> dict[str, str]:
    return {**templates.INSTRUCTIONS, style: "Answer. {abstention}"}


@pytest.mark.parametrize(
    ("word", "other", "changes"),
    [
        ("TEMPLATE_VERSION", 99, {}),
        ("CLOSED_BOOK", "Answer.", {}),
        ("NO_EVIDENCE", "nothing", {"style": "self_reasoning"}),
        ("NO_PASSAGE_RELEVANT", "None.", {"style": "reasoning"}),
        ("INSTRUCTIONS", other_instructions("answer"), {}),
        ("INSTRUCTIONS", other_instructions("self_reasoning"), {"style": "self_reasoning"}),
        ("passage_text", lambda number, title, text, show: f"({number}) {text}\n", {}),
        ("question_text", lambda question: f"Q: {question}", {}),
        ("question_ahead_text", lambda question: f"Q: {question}\n", {"question_position": "before"}),
    ],
)
def test_the_hash_changes_with_every_word_that_is_written(
    monkeypatch: pytest.MonkeyPatch, word: str, other: Any, changes: dict[str, Any]
) -> None:
    chosen = PromptSettings.model_validate(changes)
    before = prompt_hash(chosen)
    monkeypatch.setattr(templates, word, other)
    assert prompt_hash(chosen) != before


def test_the_hash_of_a_style_does_not_depend_on_the_words_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_hash(PromptSettings())
    monkeypatch.setattr(templates, "INSTRUCTIONS", other_instructions("reasoning"))
    assert prompt_hash(PromptSettings()) == before


def test_a_contract_is_kept_by_the_same_prompt_and_broken_by_another(tmp_path: Any) -> None:
    contract_of(encoder(), {}).write(tmp_path)
    check_contract(tmp_path, contract_of(encoder(), {}))
    for other, field in [(encoder(titles=False), "prompt_hash"), (encoder("qwen3"), "chat_template_hash")]:
        with pytest.raises(RagFtError, match=f"trained with {field} .*evaluation.allow_prompt_mismatch=true"):
            check_contract(tmp_path, contract_of(other, {}))
    (tmp_path / "prompt.json").write_text("{")
    with pytest.raises(RagFtError, match=r"prompt\.json is missing or damaged"):
        check_contract(tmp_path, contract_of(encoder(), {}))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template, so no prompt can be written"),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "writes no end-of-turn token after an answer"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
            "is not a prefix of a full conversation.*model.chat_template_kwargs",
        ),
        (
            "{% for m in messages %}<|im_start|>{{ m.content | upper }}<|im_end|>{% endfor %}",
            "writes a message 0 times instead of once",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(template: str | None, message: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RagFtError, match=f"(?s){message}"):
        Encoder(tokenizer, PromptSettings(), {})
