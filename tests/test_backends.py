"""One recipe, two backends: the same rows, adapter and losses. Unsloth runs in processes of its own, as for a user."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_recipe, tiny_settings
from trainings import trained

from data_builders.errors import RagFtError
from rag_ft.training.backends import open_backend
from rag_ft.training.checkpoints import read_metrics

pytestmark = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="see the Makefile for Unsloth")

Changes = dict[str, dict[str, Any]]
TESTS = Path(__file__).parent

# Name of a run: whether contexts are shared, and what the recipe changes.
SAME: dict[str, tuple[bool, Changes]] = {
    "single, answer": (False, {"model": {"prompt": {"style": "answer"}}, "training": {"max_steps": 6}}),
    "single, reasoning": (
        False,
        {
            "model": {
                "prompt": {"style": "reasoning"},
                "lora": {
                    "rank": 4,
                    "dropout": 0.1,
                    "rank_stabilised": True,
                    "dora": True,
                    "target_modules": ["q_proj"],
                },
            },
            "training": {"max_steps": 2, "gradient_checkpointing": True, "batch_size": 2},
        },
    ),
    "shared, two stages": (
        True,
        {
            "model": {"prompt": {"style": "self_reasoning"}},
            "training": {"max_steps": 2, "stages": [{"name": "one", "spans": ["relevance"]}, {"name": "two"}]},
        },
    ),
}
REFUSED: dict[str, tuple[Changes, str]] = {
    "8 bits": ({"model": {"quantisation": {"kind": "int8"}}}, "model.quantisation.kind=int8: Unsloth loads these"),
    "float16": ({"model": {"dtype": "float16"}}, "model.dtype=float16: Unsloth loads these weights on this device as"),
    "positions": ({"training": {"max_length": 8192}}, "training.max_length=8192 is more than the 4096 positions of"),
    "architecture": ({}, "Unsloth cannot load this model"),
}


@pytest.fixture(scope="module")
def shared_data(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `data` folder of the tiny recipe with three questions a context."""
    from data_builders.build import build_data
    from rag_ft.recipe.load import load_recipe

    folder = tmp_path_factory.mktemp("shared")
    data = tiny_settings(tiny_weights)["data"]
    recipe = load_recipe(tiny_recipe(folder, tiny_weights, data=data | shared_contexts()))
    build_data(recipe.data, recipe.seed, folder / "data", report=lambda line: None)
    return folder / "data"


def shared_contexts() -> dict[str, Any]:
    contexts = {"passages": {"kind": "fixed", "count": 3}, "questions_per_context": 3, "contexts": {"train": 4}}
    return {"contexts": contexts}


@pytest.fixture(scope="module")
def write(tiny_weights: Path, built_data: Path, shared_data: Path) -> Callable[..., Path]:
    """Return a function that writes a recipe beside its built run; see SAME for what it takes."""

    def make(folder: Path, backend: str, shared: bool, changes: Changes, weights: Path = tiny_weights) -> Path:
        told = tiny_settings(weights)
        sections = {name: told[name] | changes.get(name, {}) for name in ("data", "model", "training")}
        sections["data"] |= shared_contexts() if shared else {}
        sections["training"] |= {"backend": backend}
        path = tiny_recipe(folder, weights, **sections)
        shutil.copytree(shared_data if shared else built_data, folder / "runs" / "tiny" / "data")
        return path

    return make


@pytest.fixture(scope="module")
def without_layers(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an architecture that writes no text by itself."""
    from transformers import T5Config

    folder = tmp_path_factory.mktemp("t5") / "weights"
    shutil.copytree(tiny_weights, folder)
    T5Config(d_model=8, n_positions=4096).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def unsloth(
    write: Callable[..., Path], without_layers: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folders of every recipe of SAME and REFUSED after Unsloth was to train it, all in one process."""
    folder = tmp_path_factory.mktemp("unsloth")
    recipes = {name: write(folder / name, "unsloth", *told) for name, told in SAME.items()}
    for name, (changes, _) in REFUSED.items():
        other = {"weights": without_layers} if name == "architecture" else {}
        recipes[name] = write(folder / name, "unsloth", False, changes, **other)
    command = [sys.executable, str(TESTS / "trainings.py"), *map(str, recipes.values())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert "Unsloth" not in done.stdout + done.stderr  # its banners stay out of our output
    assert sorted(path.name for path in folder.iterdir()) == sorted(recipes)  # nothing is left where it ran
    return {name: path.parent for name, path in recipes.items()}


def steps(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "runs" / "tiny" / "training").rglob("metrics.jsonl"))
    return [row for file in files for row in read_metrics(file) if "loss" in row]


@pytest.mark.parametrize("name", SAME)
def test_either_backend_trains_on_the_same_rows_to_the_same_losses(
    name: str, unsloth: dict[str, Path], write: Callable[..., Path], tmp_path: Path
) -> None:
    ours = trained(write(tmp_path / "run", "transformers", *SAME[name]))
    theirs = json.loads((unsloth[name] / "result.json").read_text())
    assert (ours["unsloth"], theirs["unsloth"]) == (False, True)
    assert ours["rows"] == theirs["rows"]
    one, two = steps(tmp_path / "run"), steps(unsloth[name])
    assert [row["num_tokens"] for row in one] == [row["num_tokens"] for row in two]
    # On a CPU in float32 they are the same to the last bit; on another device they need not be.
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    assert [row["grad_norm"] for row in two] == pytest.approx([row["grad_norm"] for row in one], rel=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_unsloth_would_change_in_silence_is_refused(name: str, unsloth: dict[str, Path]) -> None:
    message = json.loads((unsloth[name] / "result.json").read_text())["refused"]
    assert REFUSED[name][1] in message
    assert "set training.backend=transformers" in message
    assert "\n" not in message


def test_a_killed_training_goes_on_and_its_adapter_is_read_without_unsloth(
    unsloth: dict[str, Path],
    write: Callable[..., Path],
    run_verb: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Any,
) -> None:
    from peft import PeftModel

    recipe, run = write(tmp_path, "unsloth", *SAME["single, answer"]), tmp_path / "runs" / "tiny"
    command = [sys.executable, "-m", "rag_ft", "train", str(recipe)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(read_metrics(run / "training" / "metrics.jsonl")) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "adapter").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on from checkpoint-" in done.stdout
    assert [row["loss"] for row in steps(tmp_path)] == [row["loss"] for row in steps(unsloth["single, answer"])]

    monkeypatch.setitem(sys.modules, "unsloth", None)  # importing it would fail
    code, out, err = run_verb("evaluate", recipe)
    assert code == 0, out + err
    adapted = PeftModel.from_pretrained(tiny_llama, run / "adapter")
    saved = load_file(run / "adapter" / "adapter_model.safetensors")
    assert sum("lora_B" in name for name in saved) == 14  # seven linear layers in each of two
    assert type(adapted.get_base_model()).__module__ == "transformers.models.llama.modeling_llama"


def test_nothing_but_its_own_backend_imports_unsloth(
    write: Callable[..., Path],
    run_verb: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)
    monkeypatch.setitem(sys.modules, "unsloth_zoo", None)
    recipe = write(tmp_path, "transformers", False, {"training": {"max_steps": 2}})
    for verb in ("check", "build", "train", "evaluate"):
        code, out, err = run_verb(verb, recipe)
        assert code == 0, out + err


def test_unsloth_is_refused_in_one_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RagFtError, match=r"one of 2 processes\. Start one process .* or set training\.backend="):
        open_backend("unsloth")


def test_unsloth_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(RagFtError, match=r"pip install 'rag-ft\[unsloth\]'`.*`pip install --no-deps unsloth==\S+ uns"):
        open_backend("unsloth")


def test_unsloth_is_refused_where_transformers_came_first() -> None:
    assert "transformers" in sys.modules
    with pytest.raises(RagFtError, match=r"transformers is imported already .* Train with `rag-ft train RECIPE`"):
        open_backend("unsloth")
    assert "unsloth" not in sys.modules


def test_importing_the_trainer_leaves_unsloth_the_first_place() -> None:
    code = (
        "import sys, rag_ft.training.launch; print([n for n in ('torch', 'transformers', 'trl') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_logits_come_at_the_positions_of_labels_from_a_forward_that_ignores_them(tiny_llama: Any) -> None:
    from peft import LoraConfig, get_peft_model

    from rag_ft.training.unsloth_backend import keep_logits_at_positions

    forward = tiny_llama.forward
    model = get_peft_model(tiny_llama, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    ids, keep = torch.arange(20, 28)[None], torch.tensor([2, 3, 6])
    everywhere = model(input_ids=ids).logits
    tiny_llama.forward = lambda logits_to_keep=0, **told: forward(**told)
    assert model(input_ids=ids, logits_to_keep=keep).logits.shape[1] == 8
    keep_logits_at_positions(model)
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=keep).logits, everywhere[:, keep])
    assert torch.equal(model(input_ids=ids).logits, everywhere)  # as generation calls it
    tiny_llama.forward = forward
    torch.testing.assert_close(model(input_ids=ids, logits_to_keep=keep).logits, everywhere[:, keep])


def test_defaults_of_trl_come_back_where_unsloth_wrote_its_own() -> None:
    from trl import SFTConfig

    from rag_ft.training.unsloth_backend import keep_trl_defaults

    class Rewritten(SFTConfig):  # type: ignore[misc]
        """As Unsloth writes it on CUDA: other defaults, handed on."""

        def __init__(self, output_dir: Any = None, optim: str = "sgd", weight_decay: float = 0.001, **more: Any):
            super().__init__(output_dir=output_dir, optim=optim, weight_decay=weight_decay, use_cpu=True, **more)

    stock = SFTConfig(output_dir="x", use_cpu=True)
    assert Rewritten(output_dir="x").optim == "sgd"
    assert keep_trl_defaults(SFTConfig) == {}
    assert keep_trl_defaults(Rewritten) == {"optim": stock.optim, "weight_decay": 0.0}
    assert Rewritten(output_dir="x").optim == stock.optim
    assert Rewritten(output_dir="x").weight_decay == 0.0
    assert Rewritten(output_dir="x", weight_decay=0.5).weight_decay == 0.5
