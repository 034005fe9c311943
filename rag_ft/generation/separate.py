"""Greedy generation of every prompt on its own through transformers' `generate`: any model, no sharing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_ft.generation import Generation, Request
from rag_ft.generation.loops import loops
from rag_ft.generation.parts import failed, in_parts

if TYPE_CHECKING:
    import torch

STEPS = 64
"""Tokens written before finished rows leave the batch."""


@dataclass
class _Row:
    """A prompt's answer as far as it is written; `logprobs` has one more where a stop token ended it."""

    request: Request
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: bool = False

    def take(self, tokens: Sequence[int], logprobs: Sequence[float], stop_ids: frozenset[int]) -> None:
        """Add what was written up to a stop token, or to where it goes round in circles."""
        for token, logprob in zip(tokens, logprobs, strict=True):
            self.logprobs.append(logprob)
            if token not in stop_ids:
                self.ids.append(token)
            self.done = token in stop_ids or loops(self.ids)
            if self.done:
                return

    def answer(self, seconds: float) -> Generation:
        """Return it as a generation."""
        confidence = sum(self.logprobs) / len(self.logprobs)
        return Generation(self.request.key, tuple(self.ids), self.request.length, seconds, confidence=confidence)


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
            part = [[request] for request in requests[start : start + self.batch_size]]
            yield in_parts(part, self._batch, failed, proven=start > 0)

    def _batch(self, groups: Sequence[Sequence[Request]]) -> list[Generation]:
        import torch

        began = time.perf_counter()
        rows = [_Row(request) for group in groups for request in group]
        longest = max(row.request.length for row in rows)
        prompts = [[token for ids in row.request.segments for token in ids] for row in rows]
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            self._write(rows, ids.to(self.model.device), mask.to(self.model.device))
        seconds = (time.perf_counter() - began) / len(rows)
        return [row.answer(seconds) for row in rows]

    def _write(self, rows: list[_Row], ids: torch.Tensor, mask: torch.Tensor) -> None:
        """Write into `rows`, some tokens at a time, so that finished ones do not stay until the last is."""
        cache, left = None, self.max_new_tokens
        most = left if _keeps_states(self.model) else STEPS
        while rows and left:
            output, logprobs = self._steps(ids, mask, cache, min(most, left))
            written = output.sequences[:, ids.shape[1] :]
            for row, tokens, told in zip(rows, written.tolist(), logprobs, strict=True):
                row.take(tokens, told, self.stop_ids)
            left -= min(most, left)
            kept = [index for index, row in enumerate(rows) if not row.done]
            mask = _extended(mask, written.shape[1])[kept]
            ids, cache = output.sequences[kept], output.past_key_values if left else None
            if kept and cache is not None and len(kept) < len(rows):
                cache.batch_select_indices(kept)
            rows = [rows[index] for index in kept]

    def _steps(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, count: int) -> tuple[Any, list[list[float]]]:
        """Go on for `count` tokens; return generate's output and the log-probability of each row's tokens."""
        from transformers import LogitsProcessorList

        steps: list[torch.Tensor] = []

        def note(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            steps.append(scores.max(dim=-1).values - scores.logsumexp(dim=-1))
            return scores

        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            logits_processor=LogitsProcessorList([note]),
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=sorted(self.stop_ids),
            pad_token_id=min(self.stop_ids),
            return_dict_in_generate=True,
        )
        return output, [list(told) for told in zip(*(step.tolist() for step in steps), strict=True)]


def _keeps_states(model: Any) -> bool:
    """Tell whether a model's cache holds more than keys and values, of which rows cannot be taken out."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    return bool(getattr(model, "_is_stateful", False)) or not kinds <= {"full_attention", "sliding_attention"}


def _extended(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """Let the tokens written be seen."""
    from torch.nn.functional import pad

    return pad(mask, (0, tokens), value=1)
