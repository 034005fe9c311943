"""Answers that go round in circles end early, in every engine at the same token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_ft.generation import Request
from rag_ft.generation.loops import EVERY, LEAST, PERIOD, TIMES, until_loop
from rag_ft.generation.separate import SeparateEngine
from rag_ft.generation.single import written
from rag_ft.generation.tree import TreeEngine
from rag_ft.models.load import load_model
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import resolve_weights

NEVER = frozenset({-1})
LONG = 400


@given(st.lists(st.integers(0, 5), min_size=1, max_size=PERIOD), st.lists(st.integers(0, 5), max_size=200))
def test_a_stretch_over_and_over_ends_an_answer(stretch: list[int], before: list[int]) -> None:
    endless = iter(before + stretch * LONG)

    taken = list(until_loop(endless))

    room = max(LEAST, TIMES * len(stretch)) + EVERY
    assert len(taken) < len(before) + room
    assert taken == (before + stretch * LONG)[: len(taken)]


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([7] * (LEAST - EVERY), id="a short row of one token"),
        pytest.param([token for n in range(20) for token in (n, *range(100, 115))], id="a numbered list"),
        pytest.param(list(range(PERIOD + 1)) * TIMES, id="a stretch longer than looked for"),
        pytest.param((list(range(60)) * (TIMES - 1))[:160], id="a long stretch that stands there twice and a bit"),
        pytest.param([7] * (LEAST - 1) + [8] + [7] * EVERY, id="a loop that was left for one token"),
    ],
)
def test_what_only_repeats_itself_goes_on(ids: list[int]) -> None:
    assert list(until_loop(iter(ids))) == ids


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Any:
    chosen = ModelSettings(weights=str(tiny_weights), dtype="float32")
    return load_model(chosen, resolve_weights(str(tiny_weights)), "cpu").eval()


def plain(model: Any, request: Request, count: int) -> Iterator[int]:
    """Greedy decoding by transformers' generate."""
    prompt = torch.tensor([[token for segment in request.segments for token in segment]])
    output = model.generate(prompt, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)
    return iter(output[0, prompt.shape[1] :].tolist())


def test_every_engine_stops_at_the_same_token(model: Any) -> None:
    request = Request("q", ((5, 6, 7), (8, 9), (10, 11)))
    expected = tuple(until_loop(plain(model, request, LONG)))
    assert LEAST <= len(expected) < LONG  # a tiny model with random weights soon repeats itself

    for engine in (SeparateEngine, TreeEngine):
        [[answer]] = engine(model, NEVER, LONG, 4).generate([[request]])
        assert answer.ids == expected
    assert tuple(written(lambda: nullcontext(model), request, NEVER, LONG)) == expected
