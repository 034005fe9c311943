"""Greedy generation of every prompt on its own through transformers' `generate`: any model, no sharing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rag_ft.generation import Generation, Request


class SeparateEngine:
    """One row per prompt, padded on the left. Slower on sweeps than TreeEngine, and works for every causal model."""

    def __init__(self, model: Any, stop_ids: frozenset[int], max_new_tokens: int, batch_size: int) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield the answers batch by batch, prompts of like length together."""
        requests = sorted((request for group in groups for request in group), key=lambda request: request.length)
        for start in range(0, len(requests), self.batch_size):
            yield self._batch(requests[start : start + self.batch_size])

    def _batch(self, requests: Sequence[Request]) -> list[Generation]:
        import torch

        began = time.perf_counter()
        longest = requests[-1].length
        rows = [[token for ids in request.segments for token in ids] for request in requests]
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=sorted(self.stop_ids),
                pad_token_id=min(self.stop_ids),
            )
        seconds = (time.perf_counter() - began) / len(requests)
        written = output[:, longest:].tolist()
        return [
            Generation(request.key, self._until_stop(ids), request.length, seconds)
            for request, ids in zip(requests, written, strict=True)
        ]

    def _until_stop(self, ids: list[int]) -> tuple[int, ...]:
        end = next((index for index, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return tuple(ids[:end])
