"""The recipes of recipes/models and recipes/methods build, plan and train, on a small world and tiny weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.shipped import shipped_recipes

Verb = Callable[..., tuple[int, str, str]]

MODELS = [name for name in shipped_recipes() if name.startswith("models/")]
METHODS = [name for name in shipped_recipes() if name.startswith("methods/")]
# The recipes of one family build what those of the others do: each kind of machine is built once.
TRAINED = [name for name in MODELS if "gemma" in name] + METHODS

WORLD = "{kind: invented_world, words: [40, 40], questions: {train: 30, validation: 4, test: 8}}"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the dense model of the Hub."""
    if find_spec("sentence_transformers") is None or find_spec("faiss") is None:
        pytest.skip("sentence-transformers and faiss-cpu are not installed: pip install rag-ft[retrieval]")
    from tiny_embedder import write_embedder

    return write_embedder(tmp_path_factory.mktemp("embedder"))


def small(name: str, folder: Path, weights: Path, embedder: Path) -> list[str]:
    """What has to change so that a recipe for eight cards takes seconds here; all else is the recipe's."""
    told = [
        f"runs_dir={folder}",
        "data.processes=1",
        f"model.weights={weights}",
        "model.dtype=float32",
        "model.chat_template=null",
        "model.chat_template_kwargs={}",
        "training.max_length=2048",
        "data.contexts.contexts={train: 30}",
        "training.gradient_accumulation=1",
        "training.trainer.optim=adamw_torch",  # paged and 8-bit ones need CUDA
        f"data.sources={{invented_world: {WORLD}}}",
    ]
    recipe = load_recipe(name)
    dense = [index for index, one in enumerate(recipe.data.retrievers) if one.kind == "dense"]
    told += [f"data.retrievers.{index}.model={embedder}" for index in dense]
    steps = range(len(recipe.training.stages))
    return told + ([f"training.stages.{index}.max_steps=2" for index in steps] or ["training.max_steps=2"])


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_builds_plans_and_trains(
    name: str, tmp_path: Path, tiny_weights: Path, embedder: Path, run_verb: Verb
) -> None:
    told = small(name, tmp_path, tiny_weights, embedder)
    assert run_verb("build", name, *told)[0] == 0
    code, plan, err = run_verb("train", name, "--dry-run", *told)
    assert code == 0, err
    for line in ("trained: ", "tokens", "steps", "memory of", "disk: ", "time: about"):
        assert line in plan
    code, out, err = run_verb("train", name, *told)
    assert code == 0, out + err
    run = tmp_path / load_recipe(name).name
    assert any((run / "adapter").glob("*.safetensors"))
    summary = json.loads((run / "training" / "summary.json").read_text())
    assert summary["steps"] == 2 * max(1, len(load_recipe(name).training.stages))


@pytest.mark.parametrize("name", MODELS)
def test_families_differ_in_weights_alone(name: str) -> None:
    """So that what is built and trained for one stands for the others."""
    kind = name.rpartition("-")[2]
    other = next(one for one in TRAINED if one.endswith(kind))
    one, two = (load_recipe(each).model_dump(mode="json") for each in (name, other))
    assert one["data"] == two["data"]
    assert differing(one["training"], two["training"]) <= {"batch_size", "gradient_accumulation", "max_length"}
    assert differing(one["model"], two["model"]) <= {"weights", "chat_template_kwargs", "attention"}
    rows = [each["training"]["batch_size"] * each["training"]["gradient_accumulation"] for each in (one, two)]
    assert rows[0] == rows[1]


def differing(one: dict[str, Any], two: dict[str, Any]) -> set[str]:
    return {key for key in one if one[key] != two[key]}


def test_plain_instruction_tuning_needs_pairs_and_nothing_built(
    tmp_path: Path, tiny_weights: Path, embedder: Path, run_verb: Verb
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"{n}."}) + "\n" for n in range(30)))
    told = [*small("instruction_tuning", tmp_path, tiny_weights, embedder), f"training.chat.path={pairs}"]
    code, plan, err = run_verb("train", "instruction_tuning", "--dry-run", *told)
    assert code == 0, err
    assert "30" in plan
    code, out, err = run_verb("train", "instruction_tuning", *told)
    assert code == 0, out + err
    assert not (tmp_path / "instruction_tuning" / "data").exists()
    lora = json.loads((tmp_path / "instruction_tuning" / "adapter" / "adapter_config.json").read_text())
    assert (lora["r"], lora["lora_alpha"]) == (16, 16)
