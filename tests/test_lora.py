"""Every way to train weights, through `rag-ft train`: the loss falls, and what is saved is what was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from tiny_model import tiny_config
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from tuned_runs import FULL, Logits, close, logits, losses, reloaded, tuned_recipe

from data_builders.errors import RagFtError
from rag_ft.models.adapters import save_checked, weights_hash
from rag_ft.models.initialise import start_at_quantisation_error
from rag_ft.models.lora import in_float32, kept_in_float32, lora_config, trainable
from rag_ft.models.settings import LoraSettings, ModelSettings
from rag_ft.models.tuned import load_tuned
from rag_ft.models.weights import resolve_weights

Verb = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]

# name -> the recipe's `model` section beside the weights
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "some modules": {"lora": {"target_modules": ["q_proj", "self_attn.v_proj"]}},
    "rsLoRA": {"lora": {"rank_stabilised": True}},
    "DoRA": {"lora": {"dora": True}},
    "embeddings": {"lora": {"train_embeddings": True}},
    "PiSSA": {"lora": {"initialisation": "pissa"}},
    "PiSSA, rsLoRA, dropout": {"lora": {"initialisation": "pissa", "rank_stabilised": True, "dropout": 0.1}},
    "PiSSA, embeddings": {"lora": {"initialisation": "pissa", "train_embeddings": True}},
    "full": FULL,
}
RATES = {name: {"learning_rate": 2e-3} for name in ("embeddings", "PiSSA, embeddings", "full")}
TENSORS = {"some modules": 8, "DoRA": 42, "embeddings": 30, "PiSSA, embeddings": 30, "full": 20}


@pytest.fixture
def make(tiny_weights: Path, built_data: Path) -> Make:
    """Return a function that makes a folder with a recipe of twelve steps; its data are built."""
    return lambda folder, model, **training: tuned_recipe(folder, tiny_weights, built_data, model, **training)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_loss_falls_and_what_is_saved_is_what_was_trained(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb, spied: Logits, name: str
) -> None:
    code, out, err = run_verb("train", make(tmp_path, VARIANTS[name], **RATES.get(name, {}), epochs=2))
    assert code == 0, out + err
    run = tmp_path / "runs" / "tiny"
    steps = losses(run)
    assert len(steps) == 24
    assert sum(steps[12:]) < 0.95 * sum(steps[:12])  # the same rows in the second epoch
    assert f"{TENSORS.get(name, 28)} tensors" in out
    base = logits(AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32))
    close(spied["begins"][0], base)  # whatever the adapter starts at, the model starts at the base
    assert not torch.allclose(spied["ends"][0], base, atol=1e-2)
    close(reloaded(run / "adapter", tiny_weights), spied["ends"][0])
    settings = ModelSettings(weights=str(tiny_weights), dtype="float32", tuning="full" if name == "full" else "lora")
    loaded = load_tuned(settings, resolve_weights(str(tiny_weights)), run / "adapter")
    close(logits(loaded), spied["ends"][0])
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", ["DoRA", "embeddings", "PiSSA", "full"])
def test_a_second_stage_goes_on_where_the_first_ended(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb, spied: Logits, name: str
) -> None:
    stages = [{"name": "one", "max_steps": 3}, {"name": "two", "max_steps": 3}]
    code, out, err = run_verb("train", make(tmp_path, VARIANTS[name], stages=stages))
    assert code == 0, out + err
    run = tmp_path / "runs" / "tiny"
    close(spied["begins"][1], spied["ends"][0])
    assert not torch.allclose(spied["ends"][1], spied["ends"][0], atol=1e-3)
    close(reloaded(run / "training" / "one" / "adapter", tiny_weights), spied["ends"][0])
    close(reloaded(run / "adapter", tiny_weights), spied["ends"][1])
    if name == "PiSSA":  # made ordinary once, not once more
        assert [json.loads((f / "adapter_config.json").read_text())["r"] for f in adapters(run)] == [8, 8]


def adapters(run: Path) -> list[Path]:
    return [run / "training" / "one" / "adapter", run / "adapter"]


@pytest.mark.parametrize(
    ("name", "left"),
    [("PiSSA, rsLoRA, dropout", 0), ("PiSSA, rsLoRA, dropout", 2), ("PiSSA, embeddings", 2), ("full", 2)],
)
def test_a_resumed_training_ends_bit_by_bit_as_an_uninterrupted_one(
    make: Make, tmp_path: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch, name: str, left: int
) -> None:
    recipe = make(tmp_path, VARIANTS[name], max_steps=4)
    assert run_verb("train", recipe)[0] == 0
    run = tmp_path / "runs" / "tiny"
    before, curve = weights_hash(run / "adapter"), losses(run)
    shutil.rmtree(run / "adapter")
    for checkpoint in (run / "training" / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > left:
            shutil.rmtree(checkpoint)
    monkeypatch.setattr(LoraLayer, "pissa_init", lambda *_: pytest.fail("the weights are decomposed once more"))
    code, out, _ = run_verb("train", recipe)
    assert code == 0
    assert ("going on from checkpoint-2" in out) == bool(left)
    assert losses(run) == curve
    assert weights_hash(run / "adapter") == before


def test_factors_of_another_start_are_not_taken(make: Make, tmp_path: Path, run_verb: Verb) -> None:
    recipe = make(tmp_path, VARIANTS["PiSSA"], max_steps=3)
    assert run_verb("train", recipe)[0] == 0
    run = tmp_path / "runs" / "tiny"
    for folder in (run / "adapter", run / "training" / "checkpoints"):
        shutil.rmtree(folder)  # as if killed before the first checkpoint
    code, out, err = run_verb("train", recipe, "model.lora.rank=3")
    assert code == 0, out + err
    assert json.loads((run / "adapter" / "adapter_config.json").read_text())["r"] == 6


def test_pissa_begins_at_the_largest_singular_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config())
    layer = model.model.layers[0].mlp.down_proj
    left, right = torch.linalg.qr(torch.randn(64, 64))[0], torch.linalg.qr(torch.randn(128, 64))[0]
    layer.weight.data = left @ torch.diag(0.5 ** torch.arange(64.0)) @ right.T  # singular values 1, 1/2, 1/4, ...
    original = layer.weight.data.clone()
    adapted = trainable(
        model, ModelSettings(lora=LoraSettings(rank=2, alpha=6, initialisation="pissa")), None, tmp_path
    )
    inside = adapted.base_model.model.model.layers[0].mlp.down_proj
    product = inside.lora_B["default"].weight @ inside.lora_A["default"].weight
    largest = left[:, :2] @ torch.diag(torch.tensor([1.0, 0.5])) @ right[:, :2].T
    torch.testing.assert_close(3 * product, largest, rtol=0, atol=1e-5)  # alpha / rank = 3
    torch.testing.assert_close(inside.get_base_layer().weight, original - largest, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lora", [{"initialisation": "pissa"}, {"train_embeddings": True}])
def test_what_needs_whole_weights_is_refused_where_no_process_holds_them(
    tiny_llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, Any]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    settings = ModelSettings(lora=LoraSettings.model_validate(lora))
    with pytest.raises(RagFtError, match=f"model.lora.{next(iter(lora))}=.* or launch with --accelerate ddp"):
        trainable(tiny_llama, settings, None, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_output_layer_are_trained_saved_and_stay_tied_if_they_were(tmp_path: Path, tied: bool) -> None:
    LlamaForCausalLM(tiny_config(tie_word_embeddings=tied)).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    adapted = trainable(model, ModelSettings(lora=LoraSettings(rank=2, train_embeddings=True)), None, tmp_path)
    learned = {name: p for name, p in adapted.named_parameters() if p.requires_grad and "lora" not in name}
    assert len(learned) == (1 if tied else 2)
    assert {parameter.dtype for parameter in learned.values()} == {torch.float32}
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.01)
    save_checked(adapted, tmp_path / "adapter", lambda folder: None)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    ends = [tensors[f"base_model.model.{name}.weight"] for name in ("model.embed_tokens", "lm_head")]
    assert torch.equal(*ends) == tied
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    on = trainable(base, ModelSettings(adapter="x"), str(tmp_path / "adapter"), tmp_path)
    close(logits(on), logits(adapted.float()))
    assert torch.equal(*(on.get_submodule(n).weight for n in ("model.model.embed_tokens", "model.lm_head"))) == tied


def test_embeddings_go_on_unrounded_on_bfloat16_weights(tmp_path: Path) -> None:
    LlamaForCausalLM(tiny_config()).save_pretrained(tmp_path / "base")
    settings = ModelSettings(lora=LoraSettings(rank=2, train_embeddings=True))
    first = trainable(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), settings, None, tmp_path)
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.01)
    save_checked(first, tmp_path / "adapter", lambda folder: None)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    second = trainable(base, settings, str(tmp_path / "adapter"), tmp_path)
    one, two = ({n: p for n, p in m.named_parameters() if p.requires_grad} for m in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_bfloat16_weights_are_trained_in_float32(
    make: Make, tmp_path: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    from rag_ft.training import assemble

    seen = []
    run_trainer = assemble.run_trainer

    def watched(job: Any, stage: Any, trainer: Any) -> Any:
        seen.append({parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad})
        assert trainer.args.bf16
        return run_trainer(job, stage, trainer)

    monkeypatch.setattr(assemble, "run_trainer", watched)
    model = {"dtype": "bfloat16", **VARIANTS["full" if tuning == "full" else "embeddings"]}
    code, out, err = run_verb("train", make(tmp_path, model, learning_rate=2e-3, epochs=2))
    assert code == 0, out + err
    assert seen == [{torch.float32}]
    steps = losses(tmp_path / "runs" / "tiny")
    assert sum(steps[12:]) < 0.95 * sum(steps[:12])


# modules


@pytest.mark.parametrize("wanted", [("q_proj", "q_porj"), ("embed_tokens",), ("lm_head",), ("mlp",)])
def test_a_module_that_is_not_there_is_refused_with_those_that_are(
    tiny_llama: Any, tmp_path: Path, wanted: tuple[str, ...]
) -> None:
    settings = ModelSettings(lora=LoraSettings(target_modules=wanted))
    with pytest.raises(RagFtError, match=f'no linear layer "{wanted[-1]}".* It has down_proj, gate_proj, k_proj') as e:
        trainable(tiny_llama, settings, None, tmp_path)
    assert "\n" not in str(e.value)


# quantised weights


def nf4_model(weights: Path) -> Any:
    from transformers import BitsAndBytesConfig

    pytest.importorskip("bitsandbytes")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_quant_storage=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(weights, quantization_config=config, dtype=torch.float32)


def effective(layer: Any) -> torch.Tensor:
    """The matrix that a layer with an adapter multiplies by, column by column."""
    with torch.no_grad():
        found: torch.Tensor = layer(torch.eye(layer.in_features)[None])[0].T
    return found


def test_loftq_begins_nearer_to_the_unquantised_weights_by_as_much_as_the_rank_can(
    tiny_weights: Path, tmp_path: Path
) -> None:
    original = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32).model.layers[1].mlp.up_proj
    rank = 8
    plain, begun = (
        get_peft_model(nf4_model(tiny_weights), lora_config(LoraSettings(rank=rank, alpha=3 * rank))) for _ in range(2)
    )
    start_at_quantisation_error(begun)
    path = "base_model.model.model.layers.1.mlp.up_proj"
    lost, left = (effective(m.get_submodule(path).eval()) - original.weight for m in (plain, begun))
    singular = torch.linalg.svdvals(lost)
    assert float(left.norm()) == pytest.approx(float(singular[rank:].norm()), rel=1e-3)  # Eckart and Young's bound
    assert float(left.norm()) < 0.95 * float(lost.norm())


def test_trl_does_not_round_adapters_on_quantised_weights(tiny_weights: Path) -> None:
    model = in_float32(get_peft_model(nf4_model(tiny_weights), lora_config(LoraSettings(rank=2))))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with kept_in_float32(model):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    after = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("initialisation", ["zero", "loftq"])
def test_a_quantised_base_is_trained_and_its_adapter_reloads(
    make: Make, tiny_weights: Path, tmp_path: Path, run_verb: Verb, spied: Logits,
    initialisation: str,
) -> None:  # fmt: skip
    pytest.importorskip("bitsandbytes")
    stages = [{"name": "one", "max_steps": 4}, {"name": "two", "max_steps": 4}]
    model = {"quantisation": {"kind": "nf4"}, "lora": {"initialisation": initialisation}}
    code, out, err = run_verb("train", make(tmp_path, model, stages=stages))
    assert code == 0, out + err
    run = tmp_path / "runs" / "tiny"
    close(spied["begins"][1], spied["ends"][0])
    settings = ModelSettings.model_validate({"dtype": "float32", "quantisation": {"kind": "nf4"}})
    loaded = load_tuned(settings, resolve_weights(str(tiny_weights)), run / "adapter")
    close(logits(loaded), spied["ends"][1])
    assert {t.dtype for t in load_file(run / "adapter" / "adapter_model.safetensors").values()} == {torch.float32}
