"""`rag-ft evaluate` with weights of every kind: folders and Hub ids of adapters, whole weights, hybrid adapters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hub_server import Hub, serving
from own_questions import told
from peft import PeftModel
from tiny_model import copied_run, tiny_run, tiny_settings, tiny_tokenizer
from transformers import AutoModelForCausalLM

Verb = Callable[..., tuple[int, str, str]]
COMMIT = "a" * 40
POINTS: dict[str, Any] = {"passages": [1, 2], "gold": ["kept"], "references": ["closed_book"]}


def answers(run: Path, label: str) -> list[tuple[Any, ...]]:
    """Return what the file of a label holds, without the system's name and times; there must be one such file."""
    [file] = (run / "evaluation" / "predictions").glob(f"{label}-*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    return sorted((row["question_id"], row["gold"], row["passages"], row["output"]) for row in rows)


def merged(folder: Path, base: Path, adapter: Path) -> Path:
    """Write the base weights with an adapter added to them, as transformers and PEFT alone do it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_the_same_weights_answer_alike_by_whatever_name(
    trained_run: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    run = tmp_path / "runs" / "tiny"
    copied = shutil.copytree(run / "adapter", tmp_path / "copied adapter")
    whole = merged(tmp_path / "whole", tiny_weights, run / "adapter")
    systems = [
        {"name": "base"},
        {"name": "tuned", "weights": "tuned"},
        {"name": "folder", "weights": str(copied)},
        {"name": "merged", "weights": str(whole)},
    ]
    code, out, err = run_verb("evaluate", recipe, *told(systems=systems, **POINTS))
    assert code == 0, err
    assert out.count(" prompts for 4 questions") == 4
    tuned = answers(run, "tuned")
    assert len(tuned) == 12
    assert answers(run, "copied_adapter") == tuned
    assert answers(run, "whole") == tuned
    assert answers(run, "base") != tuned
    assert "prompts for" not in run_verb("evaluate", recipe, *told(systems=systems, **POINTS))[1]


def test_weights_that_are_not_there_are_told_of_before_any_model_is_asked(
    trained_run: Path, tiny_weights: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    gone = [{"name": "base"}, {"name": "gone", "weights": str(tmp_path / "gone")}]
    message = refused("evaluate", recipe, *told(systems=gone, **POINTS))
    assert 'evaluation.systems, "gone": ' in message
    assert not (tmp_path / "runs" / "tiny" / "evaluation" / "predictions").exists()


def test_an_adapter_of_another_model_is_refused_in_one_sentence(
    trained_run: Path, tiny_weights: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    from safetensors.torch import load_file, save_file

    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    other = shutil.copytree(trained_run / "adapter", tmp_path / "other")
    file = other / "adapter_model.safetensors"
    save_file({name: tensor.repeat(2, 2) for name, tensor in load_file(file).items()}, file)
    systems = [{"name": "other", "weights": str(other)}]
    assert "does not fit the base weights" in refused("evaluate", recipe, *told(systems=systems, **POINTS))


def test_an_adapter_from_the_hub_is_a_system(trained_run: Path, tiny_weights: Path, tmp_path: Path) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    run = tmp_path / "runs" / "tiny"
    hub = Hub({"org/adapter": {COMMIT: trained_run / "adapter"}}, {"org/adapter": COMMIT})
    systems = [{"name": "tuned", "weights": "tuned"}, {"name": "theirs", "weights": "org/adapter"}]
    with serving(hub):
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [sys.executable, "-m", "rag_ft", "evaluate", str(recipe), *told(systems=systems, **POINTS)]
        done = subprocess.run(command, env=variables | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"GET /org/adapter/resolve/{COMMIT}/adapter_model.safetensors" in hub.asked
    assert answers(run, "adapter") == answers(run, "tuned")


def test_a_hybrid_adapter_is_asked_in_both_styles_and_a_plain_one_only_in_its_own(
    tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb, refused: Callable[..., str]
) -> None:
    settings = tiny_settings(tiny_weights)
    model = {**settings["model"], "prompt": {"style": "reasoning"}}
    training = {**settings["training"], "max_steps": 2}
    systems = [
        {"name": "reasoned", "weights": "tuned"},
        {"name": "direct", "weights": "tuned", "style": "answer"},
    ]
    asked = told(systems=systems, max_new_tokens=4, **POINTS)
    plain = tiny_run(tmp_path / "plain", tiny_weights, built_data, model=model, training=training)
    assert run_verb("train", plain)[0] == 0
    assert "trained with prompt_hash" in refused("evaluate", plain, *asked)

    hybrid = tiny_run(
        tmp_path / "hybrid", tiny_weights, built_data, model=model, training={**training, "direct_share": 0.5}
    )
    assert run_verb("train", hybrid)[0] == 0
    code, _, err = run_verb("evaluate", hybrid, *asked)
    assert code == 0, err
    run = tmp_path / "hybrid" / "runs" / "tiny"
    reasoned, direct = answers(run, "tuned"), answers(run, "tuned+answer")
    swept = [[row for row in rows if row[1] == "kept"] for rows in (reasoned, direct)]
    assert len(swept[0]) == len(swept[1]) == 8
    assert swept[0] != swept[1]  # other prompts
    # without passages both styles write the same prompt
    closed = [[row for row in rows if row[1] == "closed_book"] for rows in (reasoned, direct)]
    assert closed[0] == closed[1]
    rows = [json.loads(line) for line in (run / "evaluation/answers.jsonl").read_text().splitlines()]
    recalled = {row["system"]: row["citation_recall"] is None for row in rows if row["gold"] == "kept"}
    assert recalled == {"reasoned": False, "direct": True}
