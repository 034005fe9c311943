"""Positions stretched by the recipe: the frequencies by the papers' formulas, where they change logits, how far."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_config, tiny_run, tiny_settings, tiny_tokenizer

from data_builders.errors import RagFtError
from rag_ft.models.load import load_config, load_model
from rag_ft.models.positions import check_reach, reach, stretch
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import resolve_weights

KNOWN, THETA, SIZE = 128, 10000.0, 16  # positions of the model, base frequency, size of a head
PLAIN = [THETA ** (-2 * i / SIZE) for i in range(SIZE // 2)]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with 128 positions."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("weights") / "short"
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_config(max_position_embeddings=KNOWN)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def loaded(weights: Path, scaling: dict[str, Any] | None = None, longest: int | None = None) -> Any:
    settings = ModelSettings(weights=str(weights), dtype="float32", rope_scaling=scaling)
    return load_model(settings, resolve_weights(str(weights)), "cpu", longest=longest).eval()


def logits(model: Any, gap: int, count: int = 24) -> torch.Tensor:
    """Logits of a fixed text whose second half stands `gap` positions further back than it would."""
    ids = torch.arange(30, 30 + count)[None]
    positions = torch.arange(count)[None]
    positions[:, count // 2 :] += gap
    with torch.no_grad():
        return model(ids, position_ids=positions).logits[0]


def yarn(factor: float) -> list[float]:
    """Frequencies of YaRN by its paper (arXiv 2309.00071, section 3.2), beta 32 and 1."""

    def turns_at(turns: float) -> float:
        return SIZE * math.log(KNOWN / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = max(math.floor(turns_at(32)), 0), min(math.ceil(turns_at(1)), SIZE - 1)
    ramp = [min(max((i - low) / max(high - low, 0.001), 0), 1) for i in range(SIZE // 2)]
    return [plain * (1 - part) + plain / factor * part for plain, part in zip(PLAIN, ramp, strict=True)]


@pytest.mark.parametrize(
    ("scaling", "expected", "attention", "far"),
    [
        (None, PLAIN, 1.0, KNOWN),
        ({"rope_type": "linear", "factor": 4.0}, [f / 4 for f in PLAIN], 1.0, 4 * KNOWN),
        ({"rope_type": "yarn", "factor": 4.0}, yarn(4.0), 0.1 * math.log(4) + 1, 4 * KNOWN),
        ({"rope_type": "dynamic", "factor": 2.0}, PLAIN, 1.0, 2 * KNOWN),  # changes behind the known positions only
    ],
)
def test_frequencies_are_those_of_the_formula(
    short: Path, scaling: dict[str, Any] | None, expected: list[float], attention: float, far: int
) -> None:
    model = loaded(short, scaling)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, torch.tensor(expected), rtol=1e-5, atol=0)
    assert model.model.rotary_emb.attention_scaling == pytest.approx(attention)
    assert reach(model.config) == far


def test_dynamic_scaling_changes_logits_behind_the_known_positions_only(short: Path) -> None:
    plain, scaled = loaded(short), loaded(short, {"rope_type": "dynamic", "factor": 4.0})
    torch.testing.assert_close(logits(scaled, 60), logits(plain, 60))
    assert not torch.allclose(logits(scaled, 300), logits(plain, 300), atol=1e-2)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_stretching_changes_logits_at_long_distances(short: Path, kind: str) -> None:
    plain, scaled = loaded(short), loaded(short, {"rope_type": kind, "factor": 4.0})
    assert not torch.allclose(logits(scaled, 300), logits(plain, 300), atol=1e-2)


def test_weights_saved_with_stretched_positions_are_not_stretched_again(short: Path, tmp_path: Path) -> None:
    for scaling in ({"rope_type": "linear", "factor": 4.0}, {"rope_type": "yarn", "factor": 4.0}):
        model = loaded(short, scaling)
        model.save_pretrained(tmp_path)
        again = loaded(tmp_path, scaling)
        assert reach(again.config) == reach(model.config) == 4 * KNOWN
        torch.testing.assert_close(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_layers_with_a_window_keep_their_positions() -> None:
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(max_position_embeddings=512)
    before = dict(config.rope_parameters["sliding_attention"])
    stretch(config, {"rope_type": "yarn", "factor": 2.0})
    assert config.rope_parameters["sliding_attention"] == before
    changed = config.rope_parameters["full_attention"]
    assert (changed["rope_type"], changed["rope_theta"]) == ("yarn", 1_000_000.0)
    assert (changed["original_max_position_embeddings"], reach(config)) == (512, 1024)


def test_a_model_without_rotary_positions_is_refused() -> None:
    from transformers import GPT2Config

    with pytest.raises(RagFtError, match=r"type gpt2 has no rotary positions .*Set model\.rope_scaling=null"):
        stretch(GPT2Config(), {"rope_type": "linear", "factor": 2.0})
    with pytest.raises(RagFtError, match="more than the 1024 positions"):
        check_reach(GPT2Config(), 1025)


def test_rows_longer_than_the_positions_name_both_settings(short: Path) -> None:
    with pytest.raises(RagFtError, match=r"max_length=300 is more than the 128 .*max_length=128, .*yarn, factor: 3\.0"):
        loaded(short, longest=300)
    assert reach(loaded(short, {"rope_type": "yarn", "factor": 3.0}, longest=300).config) == 384
    with pytest.raises(RagFtError, match="more than the 256 positions"):
        loaded(short, {"rope_type": "yarn", "factor": 2.0}, longest=300)
    settings = ModelSettings(weights=str(short))
    assert reach(load_config(settings, resolve_weights(str(short)))) == KNOWN


def test_training_and_evaluation_stretch_alike(
    short: Path,
    built_data: Path,
    tmp_path: Path,
    run_verb: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import LlamaForCausalLM

    model = tiny_settings(short)["model"]
    recipe = tiny_run(tmp_path, short, built_data, model=model)
    code, _, err = run_verb("train", recipe, "training.max_steps=2")
    assert code == 2
    assert "training.max_length=2048 is more than the 128 positions the model knows" in err

    seen = []
    forward = LlamaForCausalLM.forward

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((self.training, self.model.rotary_emb.inv_freq.clone()))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    told = ["training.max_steps=2", "model.rope_scaling={rope_type: yarn, factor: 16.0}"]
    assert run_verb("train", recipe, *told)[0] == 0
    assert run_verb("evaluate", recipe, *told, "--limit", "1")[0] == 0
    assert {training for training, _ in seen} == {True, False}
    for _, frequencies in seen:
        torch.testing.assert_close(frequencies, torch.tensor(yarn(16.0)), rtol=1e-5, atol=0)


def test_longrope_wants_a_factor_for_each_frequency(short: Path) -> None:
    right = [1.0] * (SIZE // 2)
    loaded(short, {"rope_type": "longrope", "short_factor": right, "long_factor": right})
    with pytest.raises(RagFtError, match=rf"long_factor has 1 numbers, .* have {SIZE // 2} frequencies"):
        loaded(short, {"rope_type": "longrope", "short_factor": right, "long_factor": [1.0]})
