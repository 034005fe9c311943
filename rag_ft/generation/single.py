"""Greedy generation of one prompt, token by token, for whoever reads along. Stops when nobody asks for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rag_ft.generation import Lend, Request
from rag_ft.generation.choose import shares
from rag_ft.generation.loops import until_loop
from rag_ft.generation.tree import steps
from rag_ft.prompting.encode import Ids


def written(lend: Lend, request: Request, stop_ids: frozenset[int], max_new_tokens: int) -> Iterator[int]:
    """Yield the tokens of an answer, without the stop token that ends it; one that goes round in circles ends too.

    They are computed as the engine of this model computes them, so that rounding is the same too. The model is held
    for one token at a time: several streams go on side by side, and one that is left half way holds up nobody.
    Limits: models whose memory of a text is a cache (`streams`).
    """
    with lend() as model:
        shared = shares(model, request.length + max_new_tokens)
    return until_loop((steps if shared else _steps)(lend, request, stop_ids, max_new_tokens))


def _steps(lend: Lend, request: Request, stop_ids: frozenset[int], max_new_tokens: int) -> Iterator[int]:
    import torch

    ids, cache = [token for segment in request.segments for token in segment], None
    for _ in range(max_new_tokens):
        with lend() as model, torch.inference_mode():
            step = torch.tensor([ids], device=model.device)
            output = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = int(output.logits[0, -1].argmax())
        if token in stop_ids:
            return
        yield token
        ids, cache = [token], output.past_key_values


def streams(model: Any) -> bool:
    """Tell whether a model goes on from a cache of keys and values."""
    return not getattr(model, "_is_stateful", False)


def pieces(tokens: Iterator[int], decode: Callable[[Ids], str], taken: list[int]) -> Iterator[str]:
    """Yield the text of tokens as it grows, in pieces that joined are the text of all of them.

    Args:
        tokens: of one answer.
        decode: turns the ids of an answer into text.
        taken: filled with the ids.
    """
    shown = ""
    for token in tokens:
        taken.append(token)
        text = decode(tuple(taken))
        # a letter of several bytes may come in several tokens; until it is whole, its text is that of a broken one
        if not text.endswith("\ufffd") and text.startswith(shown) and len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
    if rest := decode(tuple(taken)).removeprefix(shown):
        yield rest
