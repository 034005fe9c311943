"""Our CPU attention against torch's fused kernel and transformers' eager one, forward and backward, one layer."""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from benchmarks.results_file import write_result
from rag_ft.models.attention import causal_blocks

TOKENS, HEADS, KEY_HEADS, SIZE = 1280, 9, 3, 64  # SmolLM2-135M at a quickstart context


def main() -> None:
    """Time each function five times in turn and write the medians."""
    torch.manual_seed(0)
    module = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS, training=True, is_causal=True)
    inputs = [
        torch.randn(1, heads, TOKENS, SIZE, dtype=torch.bfloat16, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    floor = torch.finfo(torch.bfloat16).min
    mask = torch.full((1, 1, TOKENS, TOKENS), floor, dtype=torch.bfloat16).triu(1)
    functions = {"blocks": causal_blocks, "sdpa": sdpa_attention_forward, "eager": eager_attention_forward}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(6):
        for name, function in functions.items():
            began = time.perf_counter()
            function(module, *inputs, mask, scaling=SIZE**-0.5, dropout=0.0)[0].sum().backward()
            times[name].append(time.perf_counter() - began)
    medians = {name: sorted(values[1:])[2] for name, values in times.items()}  # the first round warms up
    numbers = {f"{name} (ms)": round(1000 * value, 1) for name, value in medians.items()}
    numbers["speed-up over sdpa"] = round(medians["sdpa"] / medians["blocks"], 2)
    write_result("attention", numbers, "python -m benchmarks.attention")


if __name__ == "__main__":
    main()
