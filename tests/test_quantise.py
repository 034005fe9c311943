"""Base weights in 8 and 4 bits: what is stored, how near it computes, that it learns, trains and evaluates."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_run, tiny_settings
from torch.nn.functional import cosine_similarity

from data_builders.errors import RagFtError
from rag_ft.models.load import load_model
from rag_ft.models.lora import lora_config
from rag_ft.models.quantise import quantisation_config
from rag_ft.models.settings import LoraSettings, ModelSettings
from rag_ft.models.weights import resolve_weights

pytest.importorskip("bitsandbytes", reason="pip install 'rag-ft[quantisation]'")

IDS = torch.arange(20, 60)[None]

# The values of NF4 in the paper's appendix E (arXiv 2305.14314), to seven digits.
NF4 = [
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
]  # fmt: skip


def loaded(weights: Path, kind: str, dtype: str = "float32", **quantisation: Any) -> Any:
    told = {"kind": kind, **quantisation}
    settings = ModelSettings.model_validate({"weights": str(weights), "dtype": dtype, "quantisation": told})
    return load_model(settings, resolve_weights(str(weights)), "cpu").eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def nearest_nf4(weight: torch.Tensor, block: int = 64) -> torch.Tensor:
    """The weight as NF4 knows it, by the definition: each block over its largest value, to the nearest of 16 values."""
    blocks = weight.float().reshape(-1, block)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    values = torch.tensor(NF4)
    return (values[((blocks / scale)[..., None] - values).abs().argmin(dim=-1)] * scale).reshape(weight.shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4_weights_take_a_half_byte_each_packed_in_the_dtype_with_scales_quantised_too(
    tiny_weights: Path, dtype: str
) -> None:
    import bitsandbytes

    model, whole = loaded(tiny_weights, "nf4", dtype), loaded(tiny_weights, "none", dtype)
    kind = getattr(torch, dtype)
    found = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(found) == 14  # 2 layers x 7 linear maps
    for module in found:
        assert module.weight.dtype == module.weight.quant_storage == kind
        assert module.weight.nbytes * 2 == module.in_features * module.out_features
        assert module.weight.quant_state.quant_type == "nf4"
        assert module.weight.quant_state.nested
        assert module.compute_dtype == kind
    assert model.lm_head.weight.dtype == model.model.norm.weight.dtype == kind
    assert type(model.lm_head) is type(whole.lm_head)


def test_nf4_weights_are_the_nearest_values_of_the_paper(tiny_weights: Path) -> None:
    import bitsandbytes

    model, whole = loaded(tiny_weights, "nf4", double=False), loaded(tiny_weights, "none")
    packed = model.model.layers[1].mlp.down_proj.weight
    assert not packed.quant_state.nested
    found = bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
    expected = nearest_nf4(whole.model.layers[1].mlp.down_proj.weight.detach())
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-5)


def test_int8_weights_take_a_byte_each(tiny_weights: Path) -> None:
    import bitsandbytes

    model = loaded(tiny_weights, "int8")
    found = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)]
    assert len(found) == 14
    assert {module.weight.dtype for module in found} == {torch.int8}
    assert all(module.weight.nbytes == module.in_features * module.out_features for module in found)


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.998), ("nf4", 0.9)])
def test_quantised_models_answer_much_as_whole_ones(tiny_weights: Path, kind: str, least: float) -> None:
    near = cosine_similarity(
        logits(loaded(tiny_weights, kind)).flatten(), logits(loaded(tiny_weights, "none")).flatten(), 0
    )
    assert float(near) > least


def dequantised(model: Any, weights: Path) -> Any:
    """The whole model with the values that the quantised one stands for."""
    import bitsandbytes

    whole = loaded(weights, "none")
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            value = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            value = module.weight.data.float() * (module.weight.SCB / 127)[:, None]
        else:
            continue
        whole.get_submodule(name).weight.data.copy_(value)
    return whole


def adapter_gradients(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(model, lora_config(LoraSettings(rank=2, alpha=4))).train()
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted(IDS, labels=IDS).loss.backward()
    return {name: parameter.grad for name, parameter in adapted.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("answered_before", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_learns_through_quantised_weights_as_through_whole_ones_of_their_values(
    tiny_weights: Path, kind: str, answered_before: bool
) -> None:
    model = loaded(tiny_weights, kind)
    reference = dequantised(model, tiny_weights)
    if answered_before:  # a validation between two steps; bitsandbytes repacks NF4 for the CPU in evaluation mode
        logits(model)
    found, expected = adapter_gradients(model), adapter_gradients(reference)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float(gradient.norm()) > 0
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-4 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_run_on_quantised_weights_trains_and_evaluates(
    kind: str, tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    changed = {**tiny_settings(tiny_weights)["model"], "quantisation": {"kind": kind}}
    recipe = tiny_run(tmp_path, tiny_weights, built_data, model=changed)
    code, out, err = run_verb("train", recipe, "training.max_steps=3")
    assert code == 0, out + err
    summary = json.loads((tmp_path / "runs/tiny/training/summary.json").read_text())
    assert summary["steps"] == 3
    code, out, err = run_verb("evaluate", recipe, "training.max_steps=3", "--limit", "2")
    assert code == 0, out + err
    names = {path.name for path in (tmp_path / "runs/tiny/evaluation/predictions").iterdir()}
    code, out, err = run_verb("evaluate", recipe, "training.max_steps=3", "--limit", "2")
    assert "unchanged" in out
    assert {path.name for path in (tmp_path / "runs/tiny/evaluation/predictions").iterdir()} == names


def test_without_bitsandbytes_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from rag_ft.models import quantise

    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    settings = ModelSettings.model_validate({"quantisation": {"kind": "nf4"}})
    with pytest.raises(RagFtError, match=r"pip install 'rag-ft\[quantisation\]'.*model.quantisation.kind=none"):
        quantisation_config(settings, "bfloat16")
    assert quantisation_config(ModelSettings(), "bfloat16") is None


def test_the_type_of_multiplications_may_be_chosen(tiny_weights: Path) -> None:
    model = loaded(tiny_weights, "nf4", "float32", compute_dtype="bfloat16")
    layer = model.model.layers[0].mlp.up_proj
    assert (layer.compute_dtype, layer.weight.dtype) == (torch.bfloat16, torch.float32)


def test_bitsandbytes_says_nothing_below_errors(tiny_weights: Path) -> None:
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logging.getLogger("bitsandbytes").setLevel(logging.NOTSET)
    loaded(tiny_weights, "none")  # PEFT imports it all the same
    assert not logger.isEnabledFor(logging.WARNING)
    assert logger.isEnabledFor(logging.ERROR)
