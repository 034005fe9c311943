"""Whether a model keeps the questions of a shared context apart is tried on the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import tiny_config
from transformers import AttentionInterface, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rag_ft.models import attention
from rag_ft.training.probe import honours_masks


def causal_only(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **told: Any
) -> Any:
    """Attend to everything before, as kernels do that know no mask."""
    return sdpa_attention_forward(module, query, key, value, None, **told | {"is_causal": True})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["sdpa", "eager", "causal_blocks"])
def test_attention_that_takes_masks_honours_them(kind: str, dtype: torch.dtype) -> None:
    attention.register()
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(tiny_config(attention_dropout=0.3), attn_implementation=kind, dtype=dtype)
    assert honours_masks(model.eval())
    assert not model.training
    assert model.model.layers[0].self_attn.attention_dropout == 0.3


def test_attention_that_ignores_masks_does_not(tiny_llama: Any) -> None:
    AttentionInterface.register("causal_only", causal_only)
    torch.manual_seed(0)
    assert not honours_masks(LlamaForCausalLM._from_config(tiny_config(), attn_implementation="causal_only"))


def test_layers_that_drop_masks_while_training_do_not(tiny_llama: Any) -> None:
    forward = tiny_llama.forward

    def dropping(attention_mask: Any = None, **told: Any) -> Any:
        return forward(attention_mask=None if tiny_llama.training else attention_mask, **told)

    tiny_llama.forward = dropping
    assert not honours_masks(tiny_llama)


def test_a_model_that_ignores_positions_does_not(tiny_llama: Any) -> None:
    forward = tiny_llama.forward
    tiny_llama.forward = lambda position_ids=None, **told: forward(**told)
    assert not honours_masks(tiny_llama)


def test_dropout_in_an_adapter_does_not_hide_the_answer(tiny_llama: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama, config).train()
    assert honours_masks(model)
    assert all(module.training for module in model.modules())


def test_weights_in_four_bits_honour_masks_and_stay_trainable(tiny_llama: Any, tmp_path: Any) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny_llama.save_pretrained(tmp_path)
    told = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=told, dtype=torch.float32)
    packed = model.model.layers[0].mlp.up_proj.weight
    before = packed.data.clone()
    assert honours_masks(model)
    # bitsandbytes 0.50 repacks weights on a CPU at the first forward pass out of training, for good
    assert torch.equal(packed.data, before)
