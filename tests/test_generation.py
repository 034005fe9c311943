"""Prefix-shared generation writes the same tokens as generating every prompt on its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_config, tiny_tokenizer

from data_builders.records import Passage
from rag_ft.generation import Generation, Request
from rag_ft.generation.choose import choose_engine, stop_ids
from rag_ft.generation.separate import SeparateEngine
from rag_ft.generation.tree import TreeEngine
from rag_ft.models import attention
from rag_ft.models.load import load_model, load_tokenizer
from rag_ft.models.segment_tree import allows_trees
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.strategies import ORDERS

NEVER = frozenset({-1})


def answers(engine: Any, groups: Sequence[Sequence[Request]]) -> dict[str, Generation]:
    """Return the answers by key, after checking that every request is answered exactly once."""
    found = [answer for batch in engine.generate(groups) for answer in batch]
    assert sorted(answer.key for answer in found) == sorted(r.key for group in groups for r in group)
    return {answer.key: answer for answer in found}


def by_hand(model: Any, request: Request, count: int, stops: frozenset[int]) -> tuple[tuple[int, ...], float]:
    """Greedy decoding without cache, mask or batch; and the mean log-probability of what was chosen."""
    ids = [token for segment in request.segments for token in segment]
    written: list[int] = []
    logprobs: list[float] = []
    with torch.no_grad():
        while len(written) < count:
            scores = model(torch.tensor([ids + written])).logits[0, -1].double().log_softmax(-1)
            token = int(scores.argmax())
            logprobs.append(float(scores[token]))
            if token in stops:
                break
            written.append(token)
    return tuple(written), sum(logprobs) / len(logprobs)


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Any:
    chosen = ModelSettings(weights=str(tiny_weights), dtype="float32")
    return load_model(chosen, resolve_weights(str(tiny_weights)), "cpu").eval()


SEGMENTS = [tuple(range(20 + 7 * n, 20 + 7 * n + 1 + n % 5)) for n in range(8)]
SWEEPS = st.lists(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from(["concatenate", "reorder"]), st.integers(0, 1)),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


def sweep_groups(sweeps: Any) -> list[list[Request]]:
    """Build one group per sweep: head, ordered passages, one of two questions (of one token and of three)."""
    tails = [(201,), (210, 211, 212)]
    return [
        [
            Request(f"{g}/{i}", ((9, 10 + g), *ORDERS[order](SEGMENTS[g : g + count]), tails[tail]))
            for i, (count, order, tail) in enumerate(sweep)
        ]
        for g, sweep in enumerate(sweeps)
    ]


@given(sweeps=SWEEPS, batch=st.integers(1, 3), blocks=st.booleans())
@settings(max_examples=15, deadline=None)
def test_shared_prefixes_change_no_token(model: Any, sweeps: Any, batch: int, blocks: bool) -> None:
    groups = sweep_groups(sweeps)
    stops = frozenset(range(0, 470, 17))  # so that leaves end at different steps
    model.set_attn_implementation("sdpa")
    separate = answers(SeparateEngine(model, stops, 5, 4), groups)
    model.set_attn_implementation(attention.register() if blocks else "sdpa")
    shared = answers(TreeEngine(model, stops, 5, batch), groups)
    assert {key: answer.ids for key, answer in shared.items()} == {key: answer.ids for key, answer in separate.items()}
    assert {k: a.prompt_tokens for k, a in shared.items()} == {k: a.prompt_tokens for k, a in separate.items()}
    assert {k: a.confidence for k, a in shared.items()} == pytest.approx(
        {k: a.confidence for k, a in separate.items()}, rel=1e-3, abs=1e-4
    )


@pytest.mark.parametrize("engine", [SeparateEngine, TreeEngine])
def test_an_engine_writes_what_plain_greedy_decoding_writes(model: Any, engine: Any) -> None:
    model.set_attn_implementation("sdpa")
    groups = sweep_groups([[(1, "concatenate", 0), (5, "reorder", 1)], [(3, "concatenate", 1)], []])
    free = answers(engine(model, NEVER if engine is TreeEngine else frozenset({469}), 6, 2), groups)
    stops = frozenset({next(iter(free.values())).ids[2]})  # a token that some answer writes
    stopped = answers(engine(model, stops, 6, 2), groups)
    for request in (request for group in groups for request in group):
        ids, confidence = by_hand(model, request, 6, stops)
        assert stopped[request.key].ids == ids
        assert stopped[request.key].confidence == pytest.approx(confidence, rel=1e-3)
        assert stopped[request.key].failure is None
        assert stopped[request.key].prompt_tokens == request.length
        assert stopped[request.key].seconds > 0
    assert min(len(answer.ids) for answer in stopped.values()) < 6


@pytest.mark.parametrize("engine", [SeparateEngine, TreeEngine])
def test_attention_sinks_take_their_weight(engine: Any) -> None:
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 480}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    config = GptOssConfig(**sizes, **heads, sliding_window=512, initializer_range=0.5, max_position_embeddings=512)
    sinking = GptOssForCausalLM(config).eval()
    for layer in sinking.model.layers:
        layer.self_attn.sinks.data.fill_(4.0)  # without them the answers are others
    groups = sweep_groups([[(1, "concatenate", 0), (5, "reorder", 1)], [(3, "concatenate", 1)]])
    assert allows_trees(config, 200)
    found = answers(engine(sinking, frozenset({469}), 8, 2), groups)
    for request in (request for group in groups for request in group):
        assert found[request.key].ids == by_hand(sinking, request, 8, frozenset({469}))[0]


def test_equal_prompts_are_computed_once_and_answered_each(model: Any) -> None:
    model.set_attn_implementation("sdpa")
    same = sweep_groups([[(2, "concatenate", 0)] * 3])
    found = answers(TreeEngine(model, NEVER, 3, 8), same)
    assert len(found) == 3
    assert len({answer.ids for answer in found.values()}) == 1


def test_the_tree_encodes_a_shared_prefix_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_attn_implementation("sdpa")
    encoded: list[int] = []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        encoded.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    group = sweep_groups([[(1, "concatenate", 1), (2, "concatenate", 1), (5, "concatenate", 1)]])
    list(TreeEngine(model, NEVER, 2, 8).generate(group))
    trunk = 2 + sum(map(len, SEGMENTS[:5]))
    assert encoded == [trunk + 3 * 2, 3, 3]  # each question but its last token, then a token for each leaf


def test_the_real_model_writes_the_same_answers_both_ways(packaged_weights: Any) -> None:
    chosen = ModelSettings(dtype="float32", attention="sdpa")
    real = load_model(chosen, packaged_weights, "cpu").eval()
    encoder = Encoder(load_tokenizer(chosen, packaged_weights), PromptSettings(), {})
    facts = [("Aldo", "1801"), ("Bexa", "1802"), ("Cyra", "1803"), ("Dunn", "1804"), ("Evra", "1805")]
    shown = [Passage(town, town, f"The town of {town} was founded in {year}.") for town, year in facts]
    groups = [
        [Request(f"{town}/{n}", encoder.prompt(f"When was {town} founded?", shown[:n])) for n in (1, 2, 5)]
        for town in ("Aldo", "Bexa")
    ]
    stops = stop_ids(real, encoder)
    separate = answers(SeparateEngine(real, stops, 6, 3), groups)
    shared = answers(TreeEngine(real, stops, 6, 2), groups)
    assert {key: answer.ids for key, answer in shared.items()} == {key: answer.ids for key, answer in separate.items()}


# which engine


def mistral(window: int | None) -> Any:
    from transformers import MistralConfig

    return MistralConfig(sliding_window=window)


def gemma3() -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(sliding_window=512)


def recurrent() -> Any:
    from transformers import Qwen3NextConfig

    return Qwen3NextConfig()


@pytest.mark.parametrize(
    ("config", "longest", "expected"),
    [
        (tiny_config, 10**6, True),
        (lambda: mistral(None), 10**6, True),
        (lambda: mistral(4096), 4095, True),
        (lambda: mistral(4096), 4096, False),
        (gemma3, 511, True),
        (gemma3, 512, False),
        (recurrent, 10, False),
    ],
)
def test_trees_need_attention_without_a_window_shorter_than_the_prompts(
    config: Any, longest: int, expected: bool
) -> None:
    assert allows_trees(config(), longest) is expected


def test_the_engine_follows_recipe_model_and_length(tiny_llama: Any) -> None:
    encoder = Encoder(tiny_tokenizer(), PromptSettings(), {})
    groups = [[Request("a", ((1, 2), (3,)))]]

    def chosen(share: bool = True, new: int = 4) -> type:
        return type(choose_engine(tiny_llama, encoder, groups, max_new_tokens=new, batch_size=1, share=share))

    assert chosen() is TreeEngine
    assert chosen(share=False) is SeparateEngine
    tiny_llama.config.sliding_window = 8
    assert chosen() is TreeEngine
    assert chosen(new=5) is SeparateEngine


def test_every_end_token_of_template_and_model_stops_an_answer(tiny_llama: Any) -> None:
    encoder = Encoder(tiny_tokenizer("llama3"), PromptSettings(), {})
    tiny_llama.generation_config.eos_token_id = [2, 0]
    assert stop_ids(tiny_llama, encoder) == {6, 2, 0}
    tiny_llama.generation_config.eos_token_id = None
    assert stop_ids(tiny_llama, encoder) == {6}


# long outputs


@pytest.mark.parametrize("engine", [SeparateEngine, TreeEngine])
def test_finished_answers_leave_the_batch(model: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr("rag_ft.generation.separate.STEPS", 2)
    groups = sweep_groups([[(1, "concatenate", 0), (2, "concatenate", 1), (5, "reorder", 1)], [(3, "concatenate", 1)]])
    free = answers(SeparateEngine(model, frozenset({469}), 12, 4), groups)
    stops = frozenset({free["0/0"].ids[1], free["0/2"].ids[3]})
    fed: list[int] = []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        fed.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    found = answers(engine(model, stops, 12, 4), groups)
    monkeypatch.undo()
    assert fed[-1] < 4
    for request in (request for group in groups for request in group):
        ids, confidence = by_hand(model, request, 12, stops)
        assert found[request.key].ids == ids
        assert found[request.key].confidence == pytest.approx(confidence, rel=1e-3)


def test_long_answers_take_room_for_what_they_wrote_and_little_more(model: Any) -> None:
    from rag_ft.generation.forks import ROOM, ForkLayer

    layer = ForkLayer(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4))
    for step in range(300):
        keys, values = layer.update(torch.full((1, 2, 3, 4), float(step)), torch.full((1, 2, 3, 4), -float(step)))
    assert keys.written[0, 1, 2, :, 0].tolist() == [float(step) for step in range(300)]
    assert values.written[0, 1, 2, :, 0].tolist() == [-float(step) for step in range(300)]
    assert layer.written[0].shape[3] <= 300 * 1.25 + ROOM
    layer.keep(torch.tensor([0]), torch.tensor([[2]]))
    assert layer.written[0].shape[:3] == (1, 2, 1)


# what cannot be computed


@pytest.mark.parametrize("engine", [SeparateEngine, TreeEngine])
def test_too_little_memory_halves_the_batch_and_goes_on(
    model: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.set_attn_implementation("sdpa")
    groups = sweep_groups(
        [[(1, "concatenate", 0), (2, "concatenate", 1)], [(3, "concatenate", 1)], [(5, "reorder", 1)]]
    )
    expected = answers(engine(model, NEVER if engine is TreeEngine else frozenset({469}), 4, 4), groups)
    forward = model.forward
    longest = max(request.length for group in groups for request in group)

    def small(*args: Any, **kwargs: Any) -> Any:
        ids = kwargs["input_ids"]
        if len(ids) > 1 or ids.shape[1] >= longest - 1:  # the tree holds back each prompt's last token
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    found = answers(engine(model, NEVER if engine is TreeEngine else frozenset({469}), 4, 4), groups)
    failed = {key for key, answer in found.items() if answer.failure}
    assert failed == {"2/0"}  # the longest prompt does not fit alone either
    assert "can't allocate memory" in (found["2/0"].failure or "")
    assert {k: a.ids for k, a in found.items() if k not in failed} == {
        k: a.ids for k, a in expected.items() if k not in failed
    }


def test_a_model_with_an_adapter_is_decoded_as_any_other(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model.set_attn_implementation("sdpa")
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), config).eval()
    groups = sweep_groups([[(1, "concatenate", 0), (5, "reorder", 1)]])
    stops = frozenset(range(0, 470, 17))
    encoder = Encoder(tiny_tokenizer(), PromptSettings(), {})
    chosen = choose_engine(adapted, encoder, groups, max_new_tokens=5, batch_size=2, share=True)
    assert isinstance(chosen, TreeEngine)
    shared = answers(TreeEngine(adapted, stops, 5, 2), groups)
    for request in groups[0]:
        assert shared[request.key].ids == by_hand(adapted, request, 5, stops)[0]
    assert adapted.config._attn_implementation == "sdpa"


def test_an_error_is_a_failure_only_after_something_was_answered(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_attn_implementation("sdpa")
    groups = sweep_groups([[(1, "concatenate", 0)], [(5, "concatenate", 0)]])
    forward = model.forward

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] > 8:
            raise IndexError("index out of range in self")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", poisoned)
    found = answers(TreeEngine(model, NEVER, 2, 1), groups)
    assert found["0/0"].failure is None
    assert found["1/0"].failure == "IndexError: index out of range in self"
    with pytest.raises(IndexError):
        list(TreeEngine(model, NEVER, 2, 1).generate(groups[1:]))
