"""RAG-Sequence and RAG-Token equal what their formulas give, computed by hand from one forward pass per token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_config, tiny_tokenizer
from token_rows import TOWNS, encoder, passage

from data_builders.records import PoolPassage
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.generation.separate import SeparateEngine
from rag_ft.prompting.encode import Encoder
from rag_ft.strategies import MARGINAL, Answered, Ask, marginal, rows
from rag_ft.strategies.marginal import Generator, answer_marginal, log_weights, pose, sequence_marginals
from rag_ft.strategies.run import answer, texts

STOPS = frozenset(range(3, 560, 9))
"""One token in nine ends an answer, so that some end early and some do not end."""
LONGEST = 5
CODER = encoder(style="answer")

Ids = tuple[int, ...]


def pooled(number: int, score: float, rank: int = 1, retriever: str = "dense") -> PoolPassage:
    """A town's passage; some are longer than others."""
    one = passage(number)
    return PoolPassage(one.id, one.title, one.text * (1 + number % 3), False, False, retriever, rank, score)


def ask(key: str, *scores: float, town: int = 0) -> Ask:
    """A question over as many passages as scores; passage i is the i-th town's."""
    shown = tuple(pooled(number, score) for number, score in enumerate(scores))
    return Ask(key, f"When was {TOWNS[town]} founded?", shown)


def tiny(config: Any, seed: int = 0) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.fixture(scope="module")
def model() -> Any:
    """Narrower weights than elsewhere: every passage gives every output some probability."""
    return tiny(tiny_config(initializer_range=0.1))


def answers(strategy: str, groups: Sequence[Sequence[Ask]], model: Any, **changes: Any) -> dict[str, Answered]:
    """Return the answers by key, after checking that every ask is answered exactly once."""
    writing = {name: changes.pop(name) for name in ("stop_ids", "max_new_tokens", "beams") if name in changes}
    generator = Generator(**{"model": model, "stop_ids": STOPS, "max_new_tokens": LONGEST, **writing})
    chosen = {"batch_size": 8, **changes}
    found = [one for batch in answer_marginal(strategy, groups, CODER, generator, **chosen) for one in batch]
    assert sorted(one.key for one in found) == sorted(one.key for group in groups for one in group)
    return {one.key: one for one in found}


# by hand: float64, no cache, no batch, no padding


def prompts_of(one: Ask, coder: Encoder = CODER) -> list[Ids]:
    return [sum(coder.prompt(one.question, texts([shown])), ()) for shown in one.passages]


def probabilities(model: Any, ids: Ids) -> np.ndarray[Any, Any]:
    """p(next token | ids) at every position, float64 [tokens, vocabulary]."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def shares(one: Ask) -> np.ndarray[Any, Any]:
    powers = np.exp([shown.score for shown in one.passages])
    return powers / powers.sum()


def greedy(next_token: Callable[[Ids], np.ndarray[Any, Any]]) -> tuple[Ids, float]:
    """Return the greedy sequence with its stop token, and its probability."""
    written: list[int] = []
    probability = 1.0
    while len(written) < LONGEST and not STOPS.intersection(written):
        found = next_token(tuple(written))
        written.append(int(found.argmax()))
        probability *= float(found.max())
    return tuple(written), probability


def token_by_hand(model: Any, one: Ask) -> tuple[Ids, float]:
    prompts, weights = prompts_of(one), shares(one)
    return greedy(
        lambda ids: sum(w * probabilities(model, prompt + ids)[-1] for w, prompt in zip(weights, prompts, strict=True))
    )


def probability_of(model: Any, prompt: Ids, ids: Ids) -> float:
    found = probabilities(model, prompt + ids)[len(prompt) - 1 :]
    return math.prod(float(found[index, token]) for index, token in enumerate(ids))


def sequences_by_hand(model: Any, one: Ask, *, thorough: bool) -> dict[Ids, float]:
    """Return sum_z p(z|x) p(y|x,z) of the greedy output y of every passage."""
    prompts, weights = prompts_of(one), shares(one)
    own = [greedy(lambda ids, prompt=prompt: probabilities(model, prompt + ids)[-1])[0] for prompt in prompts]
    return {
        ids: sum(
            w * probability_of(model, prompt, ids)
            for w, prompt, written in zip(weights, prompts, own, strict=True)
            if thorough or written == ids
        )
        for ids in own
    }


def output_of(ids: Ids) -> str:
    return CODER.tokenizer.decode([token for token in ids if token not in STOPS], skip_special_tokens=True)


def marginals(model: Any, one: Ask, *, thorough: bool, beams: int = 1) -> dict[Ids, float]:
    prompts: dict[Ids, int] = {}
    posed = pose(one, CODER, prompts)
    with torch.inference_mode():
        [(found, _)] = sequence_marginals(
            Generator(model, STOPS, LONGEST, beams), list(prompts), [posed], thorough=thorough
        )
    return found


SCORES = st.lists(st.floats(-2, 2).map(lambda value: round(value, 2)), min_size=1, max_size=4)


@given(scores=SCORES, town=st.integers(0, 5))
@settings(max_examples=12, deadline=None)
def test_rag_token_writes_the_greedy_sequence_of_the_mixture(model: Any, scores: list[float], town: int) -> None:
    one = ask("a", *scores, town=town)
    ids, probability = token_by_hand(model, one)
    found = answers("rag_token", [[one]], model)["a"]
    assert found.output == output_of(ids)
    assert found.confidence == pytest.approx(math.log(probability) / len(ids), abs=1e-4)
    assert (found.calls, found.output_tokens) == (len(scores), len(scores) * len(ids))
    assert found.prompt_tokens == sum(map(len, prompts_of(one)))


@given(scores=SCORES, town=st.integers(0, 5), thorough=st.booleans())
@settings(max_examples=16, deadline=None)
def test_rag_sequence_gives_every_candidate_its_marginal_probability(
    model: Any, scores: list[float], town: int, thorough: bool
) -> None:
    one = ask("a", *scores, town=town)
    expected = sequences_by_hand(model, one, thorough=thorough)
    found = marginals(model, one, thorough=thorough)
    assert found.keys() == expected.keys()
    for ids, probability in expected.items():
        assert found[ids] == pytest.approx(math.log(probability), abs=1e-4)
    best = max(expected, key=lambda ids: expected[ids])
    answered = answers("rag_sequence" if thorough else "rag_sequence_fast", [[one]], model)["a"]
    assert answered.output == output_of(best)
    assert answered.confidence == pytest.approx(math.log(expected[best]) / len(best), abs=1e-4)
    assert answered.calls == len(scores)
    assert answered.prompt_tokens == sum(map(len, prompts_of(one)))


def test_the_cases_above_tell_the_strategies_apart(model: Any) -> None:
    """Some candidate ends early, some does not end, and other passages add to a candidate's probability."""
    one = ask("a", 1.0, 0.5, 0.3, 0.0)
    thorough, fast = (marginals(model, one, thorough=thorough) for thorough in (True, False))
    assert len(thorough) > 1
    assert all(thorough[ids] > fast[ids] + 1e-3 for ids in thorough)
    every = [ids for town in range(6) for ids in marginals(model, ask("a", 1.0, 0.0, 0.0, town=town), thorough=False)]
    assert {ids[-1] in STOPS for ids in every} == {True, False}
    assert len(set(map(len, every))) > 1


def test_candidates_of_a_beam_search_are_scored_alike(model: Any) -> None:
    one = ask("a", 1.0, 0.5)
    found = marginals(model, one, thorough=True, beams=3)
    assert len(found) > 2
    for ids, score in found.items():
        by_hand = [probability_of(model, prompt, ids) for prompt in prompts_of(one)]
        assert score == pytest.approx(math.log(float(shares(one) @ by_hand)), abs=1e-4)


def mistral() -> Any:
    """A window much shorter than the prompts."""
    from transformers import MistralConfig

    return MistralConfig(**_sizes(), num_hidden_layers=2, sliding_window=24)


def gemma2() -> Any:
    """Full layers and layers with a window by turns, capped scores."""
    from transformers import Gemma2Config

    return Gemma2Config(**_sizes(), num_hidden_layers=2, head_dim=16, sliding_window=24)


def qwen3_next() -> Any:
    """Recurrent layers beside full attention."""
    from transformers import Qwen3NextConfig

    return Qwen3NextConfig(
        **_sizes(),
        num_hidden_layers=4,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )


def _sizes() -> dict[str, Any]:
    return {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


@pytest.mark.parametrize("config", [mistral, gemma2, qwen3_next])
def test_windows_and_recurrent_layers_change_nothing(config: Any) -> None:
    other, one = tiny(config()), ask("a", 0.4, 0.0, 0.9)
    ids, probability = token_by_hand(other, one)
    token = answers("rag_token", [[one]], other)["a"]
    assert token.output == output_of(ids)
    assert token.confidence == pytest.approx(math.log(probability) / len(ids), abs=1e-4)
    expected = sequences_by_hand(other, one, thorough=True)
    found = marginals(other, one, thorough=True)
    assert found.keys() == expected.keys()
    assert [found[ids] for ids in expected] == pytest.approx(list(map(math.log, expected.values())), abs=1e-4)


# batches, sweeps, orders


def same(one: Answered, other: Answered) -> bool:
    close = one.confidence == pytest.approx(other.confidence, abs=1e-5)
    return close and replace(one, seconds=0, confidence=0, key="") == replace(other, seconds=0, confidence=0, key="")


GROUPS = [
    [ask("a1", 0.7), ask("a2", 0.7, 0.2), ask("a4", 0.7, 0.2, 0.1, 0.0), ask("a0")],
    [ask("b3", 0.0, 1.0, 0.5, town=2)],
    [ask("c2", 0.0, 0.1, town=3), ask("c1", 0.0, town=3)],
]


@pytest.mark.parametrize("strategy", MARGINAL)
def test_asks_together_are_answered_as_each_alone(model: Any, strategy: str) -> None:
    together = answers(strategy, GROUPS, model, batch_size=2)
    for group in GROUPS:
        for one in group:
            assert same(together[one.key], answers(strategy, [[one]], model)[one.key])


@pytest.mark.parametrize("strategy", MARGINAL)
def test_parts_that_fit_the_memory_change_nothing(model: Any, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers(strategy, GROUPS, model)
    monkeypatch.setattr(marginal, "TOKENS", 1)
    monkeypatch.setattr(rows, "LOGITS", 1)
    batches = answer_marginal(strategy, GROUPS, CODER, Generator(model, STOPS, LONGEST), batch_size=8)
    parts = list(batches)
    assert len(parts) == len(GROUPS)
    assert all(same(one, whole[one.key]) for part in parts for one in part)


@pytest.mark.parametrize("strategy", MARGINAL)
def test_too_little_memory_halves_the_batch_and_goes_on(
    model: Any, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, forward = answers(strategy, GROUPS, model), model.forward

    def small(*arguments: Any, **named: Any) -> Any:
        if len(named["input_ids"]) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
        return forward(*arguments, **named)

    monkeypatch.setattr(model, "forward", small)
    found = answers(strategy, GROUPS, model)
    assert [key for key, one in found.items() if one.failure] == ["a4"]  # its four passages go through together
    assert "out of memory" in str(found["a4"].failure)
    assert all(same(found[key], whole[key]) for key in found if key != "a4")


@pytest.mark.parametrize("strategy", MARGINAL)
def test_the_order_of_passages_changes_nothing(model: Any, strategy: str) -> None:
    one = ask("a", 0.7, 0.2, 0.1)
    turned = replace(one, key="b", passages=one.passages[::-1])
    found = answers(strategy, [[one, turned]], model)
    assert replace(found["a"], key="b") == found["b"]


@pytest.mark.parametrize("strategy", MARGINAL)
@pytest.mark.parametrize("scores", [(0.3,), ()])
def test_one_prompt_is_answered_as_by_concatenation(model: Any, strategy: str, scores: Any) -> None:
    """Also the closed-book prompt, which has no passage to weigh."""
    one = ask("a", *scores)
    engine, system = SeparateEngine(model, STOPS, LONGEST, 8), SystemSettings(name="one")
    [[plain]] = answer("concatenate", [[one]], CODER, engine, system=system, batch_size=8)
    found = answers(strategy, [[one]], model)["a"]
    assert (found.output, found.prompt_tokens, found.calls) == (plain.output, plain.prompt_tokens, 1)


@pytest.fixture
def forwards(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of what goes through the model."""
    seen: list[tuple[int, ...]] = []
    forward = model.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        seen.append(tuple((named["input_ids"] if named else arguments[0]).shape))
        return forward(*arguments, **named)

    monkeypatch.setattr(model, "forward", counted)
    return seen


def test_a_sweep_encodes_every_passage_once(model: Any, forwards: list[tuple[int, ...]]) -> None:
    """Four passages at three counts: four rows are encoded, and decoding goes on from them."""
    sweep = [ask("a1", 0.7), ask("a2", 0.7, 0.2), ask("a4", 0.7, 0.2, 0.1, 0.0)]
    for strategy in MARGINAL:
        forwards.clear()
        answers(strategy, [sweep], model)
        prefilled = [rows for rows, tokens in forwards if tokens > LONGEST]
        assert prefilled == [4]


def test_a_mixture_that_has_ended_leaves_the_batch(model: Any, forwards: list[tuple[int, ...]]) -> None:
    """The first token of b3 is made a stop token: its rows go, the others write on as they would without it."""
    asks = [one for group in GROUPS for one in group if one.passages]
    first = {one.key: token_by_hand(model, one)[0][0] for one in asks}
    stops = frozenset({first["b3"]})
    staying = [len(one.passages) for one in asks if first[one.key] not in stops]
    forwards.clear()
    found = answers("rag_token", [asks], model, stop_ids=stops)
    decoded = [rows for rows, tokens in forwards if tokens == 1]
    assert decoded[:2] == [1 + 2 + 4 + 3 + 2 + 1, sum(staying)]
    assert len(staying) > 2
    assert (found["b3"].output, found["b3"].output_tokens) == ("", 3)
    for one in asks:
        assert same(found[one.key], answers("rag_token", [[one]], model, stop_ids=stops)[one.key])


def test_passages_that_questions_are_asked_over_apart_are_encoded_once(
    model: Any, forwards: list[tuple[int, ...]]
) -> None:
    apart = [[ask("a1", 0.7)], [ask("a4", 0.7, 0.2, 0.1, 0.0)], [ask("b1", 0.7, town=2)]]
    answers("rag_token", apart, model, batch_size=1)
    assert sorted(rows for rows, tokens in forwards if tokens > LONGEST) == [1, 4]


# p(z|x)


def test_passages_weigh_as_the_softmax_of_their_scores() -> None:
    """e^ln(3) to e^0 is three to one."""
    found = log_weights([pooled(0, math.log(3) + 500), pooled(1, 500.0)])
    assert found == pytest.approx([math.log(0.75), math.log(0.25)])


def test_gold_that_nobody_found_weighs_as_the_last_found() -> None:
    """Its score is written as 0, which is the best where scores are negative."""
    found = log_weights([pooled(0, math.log(2) - 9), pooled(1, -9.0), pooled(2, 0.0, rank=0, retriever="gold")])
    assert found == pytest.approx([math.log(0.5), math.log(0.25), math.log(0.25)])


@pytest.mark.parametrize(
    "shown",
    [
        [pooled(0, 21.0, retriever="bm25"), pooled(1, 0.8)],
        [pooled(0, math.nan), pooled(1, 1.0)],
        [pooled(0, math.inf), pooled(1, 1.0)],
        [pooled(0, 0.0, rank=0), pooled(1, 0.0, rank=0)],
    ],
    ids=["two retrievers", "no number", "infinite", "only gold that nobody found"],
)
def test_scores_that_cannot_be_compared_weigh_nothing(shown: list[PoolPassage]) -> None:
    assert log_weights(shown) == pytest.approx([math.log(0.5)] * 2)
