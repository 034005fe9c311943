"""`rag-ft run` from a recipe to a report, and `rag-ft inspect` on what it built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_model import tiny_recipe, tiny_run

from data_builders.paths import data_paths
from data_builders.tables import read_context_rows
from rag_ft.cli import main
from rag_ft.recipe.load import load_recipe

Verb = Callable[..., tuple[int, str, str]]

PROMISED = [
    "recipe.resolved.yaml",
    "environment.json",
    *[f"data/{step}/manifest.json" for step in ("source", "clean", "retrieval/bm25", "pools", "contexts", "labels")],
    *[f"data/clean/{kind}-{split}.arrow" for kind in ("passages", "questions") for split in ("train", "test")],
    *[f"data/{step}/train.parquet" for step in ("pools", "contexts", "labels")],
    "data/pools/test.parquet",
    "training/metrics.jsonl",
    "training/summary.json",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/tokenizer.json",
    "adapter/prompt.json",
    "adapter/README.md",
    "evaluation/scores.json",
    "evaluation/examples.json",
    "report/report.html",
    "report/report.md",
]


@pytest.fixture(scope="module")
def recipe(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recipe that was run."""
    path = tiny_recipe(tmp_path_factory.mktemp("whole"), tiny_weights)
    assert main(["run", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    return recipe.parent / "runs" / "tiny"


@pytest.mark.parametrize("file", PROMISED)
def test_a_run_leaves_every_file_it_promises(run: Path, file: str) -> None:
    assert (run / file).stat().st_size > 0


def test_a_run_leaves_no_temporary_file(run: Path) -> None:
    assert [path for path in run.rglob("*") if path.name.startswith(".") or path.name.endswith(".tmp")] == []


def test_the_resolved_recipe_is_the_recipe(recipe: Path, run: Path, tmp_path: Path) -> None:
    assert load_recipe(run / "recipe.resolved.yaml") == load_recipe(recipe)
    recorded = yaml.safe_load((run / "recipe.resolved.yaml").read_text())
    assert recorded["training"]["learning_rate"] == 0.005
    assert recorded["training"]["epochs"] == 1.0  # defaults are written out


def test_the_adapter_loads_with_peft_alone(run: Path, tiny_weights: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model = AutoPeftModelForCausalLM.from_pretrained(run / "adapter")
    assert model.peft_config["default"].base_model_name_or_path == str(tiny_weights)
    assert model.peft_config["default"].r == 4
    assert any(bool(p.any()) for name, p in model.named_parameters() if "lora_B" in name)
    tokenizer, base = (AutoTokenizer.from_pretrained(folder) for folder in (run / "adapter", tiny_weights))
    assert tokenizer.chat_template == base.chat_template
    assert tokenizer.get_vocab() == base.get_vocab()


def test_the_report_is_one_page_without_network(run: Path) -> None:
    page = (run / "report" / "report.html").read_text()
    assert "tuned" in page
    assert "<script src" not in page
    assert 'rel="stylesheet"' not in page


def test_a_second_run_does_nothing_anew(recipe: Path, run: Path, run_verb: Verb) -> None:
    kept = [
        *run.glob("data/**/*"),
        *run.glob("training/**/*"),
        run / "adapter" / "adapter_model.safetensors",
        *run.glob("evaluation/predictions/*"),
    ]
    before = {path: path.stat().st_mtime_ns for path in kept if path.is_file()}
    assert len(before) > 20
    code, out, err = run_verb("run", recipe)
    assert (code, err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert out.count("unchanged") == 6 + 1 + 2  # steps, training, kinds of weights


def test_evaluation_settings_may_change_after_training(recipe: Path, run: Path, run_verb: Verb) -> None:
    adapter = run / "adapter" / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    assert run_verb("run", recipe, "evaluation.confidence=0.9")[0] == 0
    assert json.loads((run / "evaluation" / "scores.json").read_text())["confidence"] == 0.9
    assert adapter.stat().st_mtime_ns == before


def test_restart_trains_anew_from_another_recipe(
    tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = tiny_run(tmp_path, tiny_weights, built_data)
    metrics = tmp_path / "runs" / "tiny" / "training" / "metrics.jsonl"
    assert run_verb("train", recipe)[0] == 0
    code, _, err = run_verb("train", recipe, "training.learning_rate=1e-3")
    assert code == 2
    assert "training.learning_rate was 0.005, now 0.001" in err
    assert "--restart" in err
    assert run_verb("train", recipe, "training.learning_rate=1e-3", "--restart")[0] == 0
    assert max(json.loads(line).get("learning_rate", 0) for line in metrics.read_text().splitlines()) == 1e-3


def test_validation_rows_are_watched_while_training(tiny_weights: Path, tmp_path: Path, run_verb: Verb) -> None:
    recipe = tiny_recipe(tmp_path, tiny_weights)
    changes = ["data.sources.world.questions.validation=3", "training.save_steps=5"]
    assert run_verb("build", recipe, *changes)[0] == 0
    assert run_verb("train", recipe, *changes)[0] == 0
    lines = (tmp_path / "runs" / "tiny" / "training" / "metrics.jsonl").read_text().splitlines()
    watched = {row["step"]: row["eval_loss"] for row in map(json.loads, lines) if "eval_loss" in row}
    assert set(watched) >= {5, 10}
    assert watched[10] < watched[5]


# inspect


def test_inspect_shows_spans_and_token_counts(recipe: Path, run: Path, run_verb: Verb, tiny_weights: Path) -> None:
    from transformers import AutoTokenizer

    code, out, _ = run_verb("inspect", recipe, "-n", 2)
    assert code == 0
    rows = list(read_context_rows(data_paths(run / "data").labels["train"]))
    tokenizer = AutoTokenizer.from_pretrained(tiny_weights)
    for row in rows[:2]:
        (question,) = row.questions
        assert question.label is not None
        answer = question.label.answer or "The passages do not say."
        count = len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1
        assert f"{row.id}: " in out
        assert f", {count} carry loss" in out
        assert f"Question: {question.question}<|im_end|>" in out
        assert f"<|im_start|>assistant\n{answer}<|im_end|>" in out
        assert all(passage.text in out for passage in row.passages)
    assert rows[2].id not in out


def test_inspect_marks_where_each_token_ends(recipe: Path, run_verb: Verb) -> None:
    code, out, _ = run_verb("inspect", recipe, "--tokens")
    assert code == 0
    assert "<|im_start|>│" in out
