"""The snippets of the card run as they stand: PEFT and rag-ft on a tiny adapter, vLLM's and Ollama's against a stub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import Reply, Server, serving
from tiny_model import TEMPLATES

from rag_ft.export.card_facts import CardFacts, Form
from rag_ft.export.card_use import OLLAMA, PASSAGES, QUESTION, VLLM, use
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings, Style

Verb = Callable[..., tuple[int, str, str]]
FORMS: tuple[Form, ...] = ("adapter", "full", "merged", "gguf")
FACTS = CardFacts(
    name="example", weights="org/model", prompt=PromptSettings(), source="jsonl", data={}, training={}, repo="me/rag"
)


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, flags=re.S)


def messages_in_training(tokenizer: Any, settings: PromptSettings, kwargs: dict[str, Any]) -> Any:
    return Encoder(tokenizer, settings, kwargs).messages(QUESTION, PASSAGES)


def facts_of(tokenizer: Any, style: Style, kwargs: dict[str, Any], form: Form = "adapter") -> CardFacts:
    settings = PromptSettings(style=style, abstention='She said "no" \\ 모릅니다.')
    role = Encoder(tokenizer, settings, kwargs).frame.system_role
    return replace(FACTS, prompt=settings, chat_template_kwargs=kwargs, system_role=role, form=form)


class TestOnWeights:
    @pytest.fixture(scope="class")
    def said(self, trained_run: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
        """What the snippets of the card print, run one after the other in the adapter's folder."""
        from rag_ft.cli.report import card_of
        from rag_ft.recipe.settings import Recipe
        from rag_ft.runs import RunFolder

        resolved = yaml.safe_load((trained_run / "recipe.resolved.yaml").read_text())
        recipe = Recipe.model_validate_json(json.dumps(resolved))
        facts = card_of(recipe, RunFolder(trained_run), "rag-ft run tiny.yaml")
        [ours, peft, _] = blocks(use(facts), "python")
        assert "load_generator" in ours  # the shortest way comes first
        code = f"{ours}\nprint('-----')\n{peft}".replace("path/to/tiny-llama", str(tiny_weights))
        script = tmp_path_factory.mktemp("card") / "snippet.py"
        script.write_text(code, encoding="utf-8")
        variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(
            [sys.executable, script],
            cwd=trained_run / "adapter",
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("-----\n")

    def test_peft_writes_what_the_adapter_writes_to_the_prompt_of_training(
        self, said: list[str], trained_run: Path, tiny_weights: Path
    ) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(trained_run / "adapter")
        segments = Encoder(tokenizer, PromptSettings(), {}).prompt(QUESTION, PASSAGES)
        ids = torch.tensor([[each for segment in segments for each in segment]])
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_weights, dtype="auto"), trained_run / "adapter"
        )
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        expected = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        assert expected.strip()
        assert said[1].strip() == expected.strip()

    def test_rag_ft_prints_an_answer_and_its_quotes(self, said: list[str]) -> None:
        assert re.fullmatch(r".+ \(\)\n", said[0], flags=re.S)  # style answer quotes nothing


class TestOnServers:
    @pytest.mark.parametrize("template", TEMPLATES)
    def test_vllm_is_sent_the_prompt_of_training(
        self, tokenizers: dict[str, Any], template: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kwargs = {"enable_thinking": False} if template == "qwen3" else {}
        facts = facts_of(tokenizers[template], "self_reasoning", kwargs)
        client = next(code for code in blocks(use(facts), "python") if VLLM in code)
        with serving(Server(lambda messages, body: Reply("The Odense"))) as server:
            exec(client.replace(VLLM, server.url), {})
        [body] = server.bodies
        assert body["messages"] == messages_in_training(tokenizers[template], facts.prompt, kwargs)
        assert body["model"] == "example"
        assert body.get("chat_template_kwargs", {}) == kwargs
        assert capsys.readouterr().out == "The Odense\n"

    @pytest.mark.parametrize("form", ["adapter", "gguf"])
    def test_ollama_is_sent_instruction_and_prompt_by_curl(self, tokenizers: dict[str, Any], form: Form) -> None:
        facts = facts_of(tokenizers["chatml"], "reasoning", {}, form)
        curl = next(code for code in blocks(use(facts), "sh") if OLLAMA in code)
        with serving(Server(lambda messages, body: Reply("yes"))) as server:
            done = subprocess.run(
                ["bash", "-c", curl.replace(OLLAMA, server.url)],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "NO_PROXY": "*"},
            )
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "yes"
        [body] = server.bodies
        assert body["messages"] == messages_in_training(tokenizers["chatml"], facts.prompt, {})
        assert (body["temperature"], body["max_tokens"]) == (0, 48)

    def test_ollama_is_left_to_place_the_instruction_where_a_template_has_no_system_role(
        self, tokenizers: dict[str, Any]
    ) -> None:
        facts = facts_of(tokenizers["gemma"], "answer", {})
        assert not facts.system_role
        curl = next(code for code in blocks(use(facts), "sh") if OLLAMA in code)
        told = json.loads(curl.split("<<'JSON'\n")[1].removesuffix("\nJSON"))
        assert [one["role"] for one in told["messages"]] == ["system", "user"]
        joined = "\n".join(one["content"] for one in told["messages"])
        [training] = messages_in_training(tokenizers["gemma"], facts.prompt, {})
        assert joined == training["content"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("repo", [None, "me/rag"])
def test_every_block_is_what_its_language_reads(form: Form, repo: str | None) -> None:
    facts = replace(FACTS, form=form, repo=repo, name='it\'s $(bad) "name"', files=["a b.gguf"], revision="abc")
    card = use(facts)
    for code in blocks(card, "python"):
        compile(code, "snippet", "exec")
    shells = blocks(card, "sh")
    assert shells
    for code in shells:
        done = subprocess.run(["bash", "-n", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "$(bad)" not in card
    assert ("hf download me/rag --local-dir rag" in card) is (repo is not None)


@pytest.mark.parametrize(("rank", "told"), [(1, 8), (16, 16), (17, 32), (96, 128)])
def test_vllm_is_told_a_rank_it_takes(rank: int, told: int) -> None:
    assert f"--max-lora-rank {told} " in use(replace(FACTS, rank=rank))


def test_what_vllm_refuses_is_said_with_the_way_round_it() -> None:
    card = use(replace(FACTS, vllm_refuses=["it does not take DoRA"]))
    assert "it does not take DoRA" in card
    assert "vllm serve" not in card
    assert "rag-ft export RECIPE merged" in card
