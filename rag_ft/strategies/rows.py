"""Prompts as rows of a key-value cache that are continued more than once: decoded together, scored. Knows no passages.

Rows are ordinary rows, padded on the left, so that every causal model takes them: windows, recurrent layers and flash
attention included. The last token of each prompt is held back as the first input of whatever continues it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_ft.generation.loops import loops
from rag_ft.prompting.encode import Ids

if TYPE_CHECKING:
    import torch

LOGITS = 2**27
"""Logits that scoring holds at once: half a gigabyte in float32."""


@dataclass(frozen=True)
class Rows:
    """Encoded prompts.

    Attributes:
        cache: transformers' cache of all tokens so far. Continuing rows changes it: take `picked` rows first.
        mask: 1 where a slot of the cache holds a token of the row, int64 [rows, slots].
        pending: each row's next input token, int64 [rows].
    """

    cache: Any
    mask: torch.Tensor
    pending: torch.Tensor


@dataclass(frozen=True)
class Mixture:
    """Rows that write one sequence together: `weights` are their shares of every token's probability."""

    rows: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Written:
    """A sequence with the stop token that ended it, if one did, and its natural log-probability."""

    ids: Ids
    log_probability: float


def encode(model: Any, prompts: Sequence[Ids]) -> Rows:
    """Run prompts of two tokens or more through the model at once."""
    import torch

    longest, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    mask = mask[:, :-1]
    output = model(
        input_ids=ids[:, :-1],
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    return Rows(output.past_key_values, mask, ids[:, -1])


def picked(rows: Rows, indices: Sequence[int]) -> Rows:
    """Return the rows at `indices`, which may repeat, in a cache of their own."""
    import torch

    chosen = torch.tensor(indices, device=rows.mask.device)
    cache = copy(rows.cache)
    cache.layers = [_own(layer) for layer in cache.layers]
    cache.reorder_cache(chosen)
    return Rows(cache, rows.mask[chosen], rows.pending[chosen])


def _own(layer: Any) -> Any:
    """Copy a layer of a cache but not its tensors: reordering replaces them, in the dictionaries it keeps too."""
    found = copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(found, name, dict(value))
    return found


def _continued(model: Any, rows: Rows, ids: torch.Tensor, fresh: torch.Tensor) -> tuple[torch.Tensor, Rows]:
    """Feed `ids` [rows, tokens], padded on the right where `fresh` is 0; return their logits and the longer rows."""
    import torch

    mask = torch.cat([rows.mask, fresh], dim=1)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1)[:, -ids.shape[1] :],
        past_key_values=rows.cache,
        use_cache=True,
    )
    return output.logits, replace(rows, cache=output.past_key_values, mask=mask)


def decode(
    model: Any, prompts: Rows, mixtures: Sequence[Mixture], stop_ids: frozenset[int], max_new_tokens: int
) -> list[Written]:
    """Write the sequence of every mixture greedily: each token is the most probable one under the weighted sum.

    A mixture of one row is plain greedy decoding. Rows whose mixture has ended, or goes round in circles, leave the
    batch.
    """
    import torch

    ids: list[list[int]] = [[] for _ in mixtures]
    scores = [0.0] * len(mixtures)
    live = list(range(len(mixtures)))
    rows = picked(prompts, [row for mixture in mixtures for row in mixture.rows])
    for _ in range(max_new_tokens):
        logits, rows = _continued(model, rows, rows.pending[:, None], torch.ones_like(rows.pending)[:, None])
        chosen = _agreed(logits[:, -1], [mixtures[index].weights for index in live])
        for index, (token, score) in zip(live, chosen, strict=True):
            ids[index].append(token)
            scores[index] += score
        tokens = [ids[index][-1] for index in live for _ in mixtures[index].rows]
        rows = replace(rows, pending=torch.tensor(tokens, device=rows.pending.device))
        still = [index for index in live if ids[index][-1] not in stop_ids and not loops(ids[index])]
        if not still:
            break
        if len(still) < len(live):
            slots = [index for index in live for _ in mixtures[index].rows]
            rows = picked(rows, [slot for slot, index in enumerate(slots) if index in still])
        live = still
    return [Written(tuple(tokens), score) for tokens, score in zip(ids, scores, strict=True)]


def _agreed(logits: torch.Tensor, weights: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Return each mixture's most probable token and its log-probability; `logits` [rows, vocabulary] lie in order.

    Summed as probabilities: that of the best token is at least one by the size of the vocabulary.
    """
    import torch

    flat = torch.tensor([weight for mixture in weights for weight in mixture], device=logits.device)
    probabilities = torch.softmax(logits.float(), dim=-1) * flat[:, None]
    mixed = torch.stack([part.sum(dim=0) for part in probabilities.split([len(mixture) for mixture in weights])])
    tokens = mixed.argmax(dim=-1)
    best = mixed.gather(1, tokens[:, None])[:, 0].log()
    return list(zip(tokens.tolist(), best.tolist(), strict=True))


def beams(
    model: Any, prompts: Sequence[Ids], count: int, stop_ids: frozenset[int], max_new_tokens: int
) -> list[list[Ids]]:
    """Return the `count` best sequences of a beam search for every prompt, each with the stop token that ended it."""
    import torch

    longest, device = max(map(len, prompts)), model.device
    found = model.generate(
        input_ids=torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device),
        attention_mask=torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
        ),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=count,
        num_return_sequences=count,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        eos_token_id=sorted(stop_ids),
        pad_token_id=min(stop_ids),
    )
    written = [_ended(ids, stop_ids) for ids in found[:, longest:].tolist()]
    return [written[start : start + count] for start in range(0, len(written), count)]


def _ended(ids: Sequence[int], stop_ids: frozenset[int]) -> Ids:
    end = next((index for index, token in enumerate(ids) if token in stop_ids), len(ids))
    return tuple(ids[: end + 1])


def scored(model: Any, prompts: Rows, pairs: Collection[tuple[int, Ids]]) -> dict[tuple[int, Ids], float]:
    """Return the log-probability of each sequence after the row it is paired with, teacher-forced.

    Pairs of like length go together, at most as many as there are prompts, so that the copied part of the cache is
    never larger than the cache itself.
    """
    ordered = sorted(set(pairs), key=lambda pair: (len(pair[1]), pair))
    return {
        pair: score for batch in _batches(model, prompts, ordered) for pair, score in _scored(model, prompts, batch)
    }


def _batches(model: Any, prompts: Rows, ordered: Sequence[tuple[int, Ids]]) -> Iterator[Sequence[tuple[int, Ids]]]:
    vocabulary = model.config.get_text_config().vocab_size
    start = 0
    while start < len(ordered):
        most = min(len(prompts.pending), len(ordered) - start)
        while most > 1 and most * len(ordered[start + most - 1][1]) * vocabulary > LOGITS:
            most -= 1
        yield ordered[start : start + most]
        start += most


def _scored(model: Any, prompts: Rows, batch: Sequence[tuple[int, Ids]]) -> Iterator[tuple[tuple[int, Ids], float]]:
    import torch

    longest = max(len(ids) for _, ids in batch)
    rows = picked(prompts, [row for row, _ in batch])
    targets = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in batch], device=rows.mask.device)
    there = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in batch], device=rows.mask.device)
    logits, _ = _continued(model, rows, torch.cat([rows.pending[:, None], targets[:, :-1]], dim=1), there)
    chosen = logits.gather(2, targets[:, :, None])[:, :, 0].float() - logits.float().logsumexp(dim=-1)
    return zip(batch, (chosen * there).sum(dim=1).tolist(), strict=True)
