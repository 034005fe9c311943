"""vLLM is asked in its own terms, and what it cannot do is said before it is loaded.

vLLM needs a GPU, so a package of the same surface (read off vLLM 0.33) stands in for it here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_questions import built, prompts_asked, stored, told
from tiny_model import tiny_tokenizer

from data_builders.errors import RagFtError
from rag_ft.generation import Request
from rag_ft.generation.vllm import adapter_rank, load_vllm, vllm_engine
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings

Verb = Callable[..., tuple[int, str, str]]
PACKAGE = {
    "__init__.py": """
from dataclasses import dataclass

made = []

@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    stop_token_ids: list | None = None
    logprobs: int | None = None
    detokenize: bool = True

@dataclass
class Written:
    token_ids: list
    cumulative_logprob: float

@dataclass
class Output:
    prompt_token_ids: list
    outputs: list

class LLM:
    def __init__(self, model, *, revision=None, skip_tokenizer_init=False, trust_remote_code=False, dtype="auto",
                 **engine_arguments):
        if "refuse" in engine_arguments.get("hf_overrides", {}).get("rope_parameters", {}):
            raise ValueError("no such rope\\nand more")
        self.told = {"model": model, "skip_tokenizer_init": skip_tokenizer_init, "dtype": dtype, **engine_arguments}
        self.asked = []
        made.append(self)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        self.asked.append((prompts, sampling_params, lora_request))
        stop = sampling_params.stop_token_ids[0]
        return [Output(p["prompt_token_ids"], [Written([*p["prompt_token_ids"][:2], stop], -1.5)]) for p in prompts]
""",
    "lora/__init__.py": "",
    "lora/request.py": """
from dataclasses import dataclass

@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""
""",
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package named vllm and a GPU, as far as anybody asks."""
    for name, text in PACKAGE.items():
        path = tmp_path / "packages" / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("vllm", "vllm.lora", "vllm.lora.request"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    import vllm

    yield vllm
    for name in ("vllm", "vllm.lora", "vllm.lora.request"):
        sys.modules.pop(name, None)


def adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 16, "bias": "none", **changes}))
    return folder


def engine(weights: Path, groups: Any, adapter: Path | None = None, **changes: Any) -> Any:
    settings = ModelSettings(weights=str(weights), dtype="float32", **changes)
    encoder = Encoder(tiny_tokenizer(), PromptSettings(), {})
    resolved = resolve_weights(str(weights))
    longest = max(request.length + 4 for group in groups for request in group)
    loaded = load_vllm(settings, resolved, adapter, longest)
    return vllm_engine(loaded, encoder, max_new_tokens=4, batch_size=1)


GROUPS = [[Request("a", ((10, 11), (12,))), Request("b", ((10, 11), (12, 13, 14)))], [], [Request("c", ((20, 21),))]]


def test_vllm_gets_token_ids_and_its_answers_end_before_the_stop_token(
    stand_in: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    chosen = engine(tiny_weights, GROUPS, adapter(tmp_path / "adapter", r=9))
    batches = list(chosen.generate(GROUPS))
    assert [[answer.key for answer in batch] for batch in batches] == [["a", "b"], ["c"]]
    assert batches[0][1].ids == (10, 11)
    assert batches[0][1].prompt_tokens == 5
    assert batches[0][1].confidence == -0.5  # of two tokens and the stop token
    told = stand_in.made[0].told
    assert told["enable_prefix_caching"] is True
    assert (told["enable_lora"], told["max_lora_rank"], told["max_model_len"]) == (True, 16, 9)
    prompts, sampling, lora = stand_in.made[0].asked[0]
    assert prompts == [{"prompt_token_ids": [10, 11, 12]}, {"prompt_token_ids": [10, 11, 12, 13, 14]}]
    assert (sampling.temperature, sampling.max_tokens, sampling.logprobs) == (0.0, 4, 0)
    end = tiny_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert end in sampling.stop_token_ids
    assert (lora.lora_int_id, lora.lora_path) == (1, str(tmp_path / "adapter"))


def test_without_an_adapter_vllm_loads_none(stand_in: Any, tiny_weights: Path) -> None:
    list(engine(tiny_weights, GROUPS).generate(GROUPS[:1]))
    assert "enable_lora" not in stand_in.made[0].told
    assert stand_in.made[0].asked[0][2] is None


def test_a_prompt_longer_than_the_model_is_a_failure_of_its_own(stand_in: Any, tiny_weights: Path) -> None:
    groups = [[Request("long", (tuple(range(4096)),)), Request("short", ((1, 2),))]]
    found = {answer.key: answer for batch in engine(tiny_weights, groups).generate(groups) for answer in batch}
    assert stand_in.made[0].told["max_model_len"] == 4096
    assert "exceed the 4096 positions" in (found["long"].failure or "")
    assert found["short"].failure is None


def test_weights_that_vllm_does_not_load_are_one_sentence(stand_in: Any, tiny_weights: Path) -> None:
    with pytest.raises(RagFtError, match=r"no such rope\. Set evaluation\.engine=transformers"):
        engine(tiny_weights, GROUPS, rope_scaling={"refuse": True, "rope_type": "linear", "factor": 2.0})


def test_quantised_weights_are_not_evaluated_in_another_precision(stand_in: Any, tiny_weights: Path) -> None:
    with pytest.raises(RagFtError, match=r"model\.quantisation\.kind=none"):
        engine(tiny_weights, GROUPS, quantisation={"kind": "nf4"})


def test_a_machine_without_a_gpu_is_told_so(stand_in: Any, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RagFtError, match="needs a GPU"):
        engine(tiny_weights, GROUPS)


def test_a_missing_vllm_is_said_in_one_sentence(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RagFtError, match=r"rag-ft\[vllm\]"):
        engine(tiny_weights, GROUPS)


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (4, 8), (16, 16), (200, 256), (512, 512)])
def test_the_least_rank_that_vllm_has_room_for(tmp_path: Path, rank: int, expected: int) -> None:
    assert adapter_rank(adapter(tmp_path / "a", r=rank)) == expected
    assert adapter_rank(adapter(tmp_path / "a", r=1, rank_pattern={"q_proj": rank})) == expected


@pytest.mark.parametrize("changes", [{"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"bias": "all"}, {"r": 600}])
def test_adapters_that_vllm_does_not_take_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RagFtError, match=r"evaluation\.engine=transformers"):
        adapter_rank(adapter(tmp_path / "a", **changes))


def test_weights_are_loaded_once_for_all_that_is_asked_of_them(
    stand_in: Any, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = built(tmp_path / "own", tiny_weights)
    systems = [
        {"name": "base"},
        {"name": "reasoned", "style": "reasoning"},
        {"name": "routed", "strategy": "self_route", "self_route": {"passages": 1}},
    ]
    asked = told(systems=systems, engine="vllm", gold=["kept"], references=["closed_book"])
    code, out, err = run_verb("evaluate", recipe, *asked, "--limit", 2)
    assert code == 0, err
    [loaded] = stand_in.made
    rows = stored(recipe)
    assert prompts_asked(out) == len(rows) == 16  # closed-book once for each style
    assert {row["failure"] for row in rows} == {None}
    assert loaded.told["max_model_len"] == max(row["prompt_tokens"] for row in rows if row["calls"] == 1) + 3
    assert prompts_asked(run_verb("evaluate", recipe, *asked, "--limit", 2)[1]) == 0
    assert len(stand_in.made) == 1
