"""How long a training would take: its floating-point operations over the rate the device reaches. Trains nothing.

A token costs 2 operations a weight forward and 2 backward, 2 more where the weight itself is trained, 2 more where
activations are computed again (arXiv 2001.08361, section 2.1, counts 6 for training everything). Attention adds the
products of queries, keys and values, which grow with the row. The rate is that of one large product of the model's own
shape, measured; EFFICIENCY is what is left of it in training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rag_ft.training.memory_estimate import Demand, compute_dtype, recomputes

EFFICIENCY = 0.45
"""Rate of a training step over that of its products alone: norms, activations, softmax and copies take the rest.
The median of benchmarks/memory_estimate.py, on a CPU. On GPUs it is what models of billions of weights are said to
reach of the peak (arXiv 2205.05198, table 5), and has not been tried here."""

LOW, HIGH = 0.65, 1.5
"""The range: from the estimate times LOW to the estimate times HIGH."""


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds, the most likely and a rough range."""

    seconds: float

    def text(self) -> str:
        """Return "about 2.1 h (1.6 to 3.2)"."""
        unit, size = next((u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 0.0)) if self.seconds >= s)
        scale = size or 1.0
        about, low, high = (self.seconds * factor / scale for factor in (1.0, LOW, HIGH))
        return f"about {about:.1f} {unit} ({low:.1f} to {high:.1f})"


def row_operations(demand: Demand, tokens: int, labelled: int) -> float:
    """Return the floating-point operations of the forward and backward pass over one row.

    Args:
        demand: model and settings.
        tokens: of the row; what questions share counts once.
        labelled: tokens with loss, for which alone logits are computed.
    """
    shape = demand.shape
    again = 1 if recomputes(demand) else 0
    passes = 2 + again + (1 if demand.model.tuning == "full" else 0)
    body = 2 * passes * shape.linear * tokens
    adapter = 2 * (3 + again) * shape.added * tokens
    # queries with keys, weights with values; a token sees half of the row on average
    attention = 2 * tokens**2 * shape.attention * shape.layers * (3 + again)
    head = 4 * shape.hidden * shape.vocabulary * labelled
    return body + adapter + attention + head


def time_estimate(demand: Demand, rows: Sequence[tuple[int, int]], epochs: float, rate: float) -> TimeEstimate:
    """Estimate the time of a training.

    Args:
        demand: model and settings.
        rows: tokens and tokens with loss of each row.
        epochs: how often each is trained.
        rate: operations a second that one product reaches, from `product_rate`.
    """
    each = sum(row_operations(demand, tokens, labelled) for tokens, labelled in rows)
    return TimeEstimate(each * epochs / (rate * EFFICIENCY * demand.place.processes))


def product_rate(demand: Demand, seconds: float = 0.5) -> float:
    """Measure the operations a second of products of the model's width in its type, on the device at hand."""
    import torch

    from rag_ft.models.load import best_device

    device, dtype = best_device(), getattr(torch, compute_dtype(demand))
    width = demand.shape.hidden
    tokens = 4096 if device != "cpu" else 256
    left = torch.ones(tokens, width, dtype=dtype, device=device)
    right = torch.ones(width, 2 * width, dtype=dtype, device=device)
    _ = (left @ right).sum().item()
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds or not done:
        result = left
        for _number in range(8 if device != "cpu" else 1):
            result = left @ right
        _ = result[0, 0].item()  # waits for the device
        done += 8 if device != "cpu" else 1
    return 2.0 * tokens * width * 2 * width * done / spent
