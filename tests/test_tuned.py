"""Going on from an adapter, and saving what was trained only if it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import tiny_tokenizer
from tuned_runs import FULL, Logits, close, reloaded, tuned_recipe

from data_builders.errors import RagFtError
from rag_ft.models.adapters import remember_start, save_checked
from rag_ft.recipe.licences import PACKAGED

Verb = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]
VALUES = 476 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64  # of the tiny model


@pytest.fixture
def make(tiny_weights: Path, built_data: Path) -> Make:
    """Return a function that makes a folder with a recipe of twelve steps; its data are built."""
    return lambda folder, model, **training: tuned_recipe(folder, tiny_weights, built_data, model, **training)


# going on from an adapter


@pytest.fixture
def earlier(trained_run: Path, tmp_path: Path) -> Path:
    """An adapter of rank 4 that was trained before."""
    return Path(shutil.copytree(trained_run / "adapter", tmp_path / "earlier"))


def test_an_adapter_is_trained_further_and_its_own_rank_wins(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb, spied: Logits, earlier: Path
) -> None:
    model = {"adapter": str(earlier), "lora": {"rank": 9, "alpha": 8, "target_modules": ["q_proj"]}}
    code, out, err = run_verb("train", make(tmp_path, model))
    assert code == 0, out + err
    assert f"going on from the adapter {earlier}\n" in out
    assert "its own settings win over model.lora: rank 4, not 9, target_modules ['down_proj'" in out
    assert "warning" not in out
    close(spied["begins"][0], reloaded(earlier, tiny_weights))
    close(reloaded(tmp_path / "runs" / "tiny" / "adapter", tiny_weights), spied["ends"][0])
    assert not torch.allclose(spied["ends"][0], spied["begins"][0], atol=1e-3)


def test_an_adapter_on_packaged_weights_names_their_hub_id_and_no_folder_of_this_machine(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, str(tiny_weights), "org/tiny")
    code, out, err = run_verb("train", make(tmp_path, {"lora": {"rank": 4}}))
    assert code == 0, out + err
    [file] = tmp_path.glob("runs/*/adapter/adapter_config.json")
    assert json.loads(file.read_text())["base_model_name_or_path"] == "org/tiny"
    assert str(tiny_weights) not in file.read_text()


def test_an_adapter_trained_with_another_prompt_is_reported_not_refused(
    make: Make, tmp_path: Path, run_verb: Verb, earlier: Path
) -> None:
    recipe = make(tmp_path, {"adapter": str(earlier), "prompt": {"style": "reasoning"}}, max_steps=3)
    code, out, err = run_verb("train", recipe)
    assert code == 0, out + err
    assert "warning: it was trained with another prompt (prompt_hash in prompt.json) than model.prompt says" in out


def _no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _changes_the_base(folder: Path) -> None:
    _configure(folder, init_lora_weights="pissa_niter_4")


def _another_kind(folder: Path) -> None:
    _configure(folder, peft_type="IA3")


def _damaged(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def _of_another_model(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor.repeat(2, 2) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def _configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_weights, "it has no adapter_model.safetensors, so it holds no adapter. Give the folder"),
        (_no_folder, "no such folder. Give the folder or the Hub id"),
        (_changes_the_base, "init_lora_weights=pissa_niter_4, which changes the base weights"),
        (_another_kind, "of the kind IA3, but only LoRA"),
        (_damaged, "adapter_config.json is damaged"),
        (_of_another_model, "does not fit the base weights"),
    ],
)
def test_an_adapter_one_cannot_go_on_from_is_refused(
    make: Make, tmp_path: Path, refused: Callable[..., str], earlier: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(earlier)
    assert message in refused("train", make(tmp_path, {"adapter": str(earlier)}))


def test_an_adapter_id_that_the_hub_does_not_give_is_refused(
    make: Make, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "model.adapter=some-one/no-adapter: not in the local Hub cache, and HF_HUB_OFFLINE is set" in refused(
        "train", make(tmp_path, {"adapter": "some-one/no-adapter"})
    )


# saving


def test_an_adapter_that_did_not_move_from_its_start_is_not_saved(tiny_llama: Any, tmp_path: Path) -> None:
    adapted = get_peft_model(tiny_llama, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    remember_start(adapted)
    with pytest.raises(RagFtError, match="every lora_B of the adapter is what it was before: nothing was learned"):
        save_checked(adapted, tmp_path / "adapter", lambda folder: None)
    assert list(tmp_path.iterdir()) == []


def test_full_weights_that_are_broken_or_did_not_move_are_not_saved(tiny_llama: Any, tmp_path: Path) -> None:
    remember_start(tiny_llama)
    with pytest.raises(RagFtError, match="every weight is what it was before: nothing was learned"):
        save_checked(tiny_llama, tmp_path / "adapter", lambda folder: None)
    with torch.no_grad():
        tiny_llama.model.norm.weight.add_(1)
    partial = {name: t for name, t in tiny_llama.state_dict().items() if "layers.1.mlp.up" not in name}
    with pytest.raises(RagFtError, match=f"are incomplete: {VALUES - 64 * 128:,} of {VALUES:,} values are there"):
        save_checked(tiny_llama, tmp_path / "adapter", lambda folder: None, partial)
    with torch.no_grad():
        tiny_llama.model.norm.weight[3] = float("nan")
    with pytest.raises(RagFtError, match="the trained model holds values that are not finite"):
        save_checked(tiny_llama, tmp_path / "adapter", lambda folder: None)
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        tiny_llama.model.norm.weight[3] = 2.0
    summary = save_checked(tiny_llama, tmp_path / "adapter", lambda folder: tiny_tokenizer().save_pretrained(folder))
    assert summary.startswith("weights: 20 tensors")
    assert "1 of them learned" in summary


def test_fully_trained_weights_are_evaluated_and_described_as_such(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = make(tmp_path, FULL, max_steps=2)
    for verb in ("train", "evaluate", "report"):
        code, out, err = run_verb(verb, recipe)
        assert code == 0, out + err
    folder = tmp_path / "runs" / "tiny" / "adapter"
    expected = {"model.safetensors", "config.json", "tokenizer.json", "prompt.json", "README.md"}
    assert expected <= {path.name for path in folder.iterdir()}
    card = (folder / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "PeftModel" not in card
    assert "lora" not in card.lower()
    assert "Adapter: none, all weights were trained" in card
    scores = json.loads((tmp_path / "runs" / "tiny" / "evaluation" / "scores.json").read_text())
    assert {cell["system"] for cell in scores["cells"]} == {"base", "tuned"}
    (stored,) = (tmp_path / "runs" / "tiny" / "evaluation" / "predictions").glob("tuned-*.jsonl")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert run_verb("evaluate", recipe)[0] == 0  # other weights, other answers
    assert len(list(stored.parent.glob("tuned-*.jsonl"))) == 2
