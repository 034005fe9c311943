"""What is checked before the first training step: each mistake has its message."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from model_shapes import write_shape
from tiny_model import TEMPLATES, tiny_tokenizer
from token_rows import encoder, only_stage, row

from data_builders.errors import RagFtError
from rag_ft.models.weights import resolve_weights
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.settings import Recipe
from rag_ft.training import places
from rag_ft.training.preflight import check_resources, preflight
from rag_ft.training.rows import encode_row
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stage_plan import checkpoints_kept


@pytest.mark.parametrize("template", TEMPLATES)
def test_sound_rows_pass_and_every_check_says_so(template: str, tmp_path: Path) -> None:
    one = encoder(template)
    rows = [row(3, [1]), row(4, [0], [1], [3], [])]
    lines = preflight(rows, [encode_row(each, one) for each in rows], one, only_stage(tmp_path))
    starts = ["labels: ", "end of turn: ", "beginning of sequence: ", "prompt: ", "length: median "]
    assert [next((s for s in starts if line.startswith(s)), line) for line in lines] == starts


def test_no_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RagFtError, match="there is no training row"):
        preflight([], [], encoder(), only_stage(tmp_path))


def test_empty_labels_are_an_error(tmp_path: Path) -> None:
    one = encoder()
    tokens = encode_row(row(1, [0]), one, ())
    with pytest.raises(RagFtError, match="row row has no token that carries loss"):
        preflight([row(1, [0])], [tokens], one, only_stage(tmp_path))


def test_an_end_of_turn_that_is_not_trained_is_an_error(tmp_path: Path) -> None:
    one = encoder()
    tokens = encode_row(row(4, [0], [1], [3], []), one, ("answer",))
    with pytest.raises(RagFtError, match=r"'<\|im_end\|>' carries no loss"):
        preflight([row(4, [0], [1], [3], [])], [tokens], one, only_stage(tmp_path))


def test_two_beginnings_of_sequence_are_an_error(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("llama3")
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    one = Encoder(tokenizer, PromptSettings(), {})
    with pytest.raises(RagFtError, match=r"begins with more than one '<\|begin_of_text\|>'"):
        preflight([row(1, [0])], [encode_row(row(1, [0]), one)], one, only_stage(tmp_path))


def test_a_tokenizer_that_reads_joined_text_differently_is_an_error(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n[", "\n\n[")
    one = Encoder(tokenizer, PromptSettings(), {})
    with pytest.raises(RagFtError, match="tokenised segment by segment differs from the whole text at token"):
        preflight([row(2, [0])], [encode_row(row(2, [0]), one)], one, only_stage(tmp_path))


def small(folder: Path, weights: Path, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "small", "runs_dir": str(folder), "model": {"weights": str(weights), **model}}
    )


def test_disk_and_memory_are_enough_for_a_small_model(tmp_path: Path, tiny_weights: Path) -> None:
    tokens = [encode_row(row(2, [0]), encoder())]
    recipe = small(tmp_path, tiny_weights)
    disk, memory = check_resources(recipe, only_stage(tmp_path), tokens, resolve_weights(str(tiny_weights)))
    assert disk.startswith("disk: 3 checkpoints of 0.00 GB at most, ")
    assert memory.startswith("memory: about ")


@pytest.mark.parametrize(("told", "each"), [({}, 12), ({"optim": "adamw_8bit"}, 6), ({"optim": "sgd"}, 4)])
def test_a_full_disk_is_an_error(
    told: dict[str, str], each: int, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three checkpoints: what is trained in float32, and what the optimizer keeps for it."""
    trained = 2 * 16 * (2 * 128 + 2 * 96 + 3 * 192)  # rank 16 on the two layers of the tiny Llama
    need = 3 * trained * each
    stage, tokens = only_stage(tmp_path), [encode_row(row(1, [0]), encoder())]
    recipe = small(tmp_path, tiny_weights)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"trainer": told})})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=need + 1))
    assert check_resources(recipe, stage, tokens, resolve_weights(str(tiny_weights)))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=need - 1))
    with pytest.raises(RagFtError, match=r"GB are free .* Set runs_dir to another disk, or .*save_total_limit=1"):
        check_resources(recipe, stage, tokens, resolve_weights(str(tiny_weights)))


def test_a_model_far_too_large_is_an_error_before_its_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**12))
    monkeypatch.setattr(places, "machine_memory", lambda: 16 * 10**9)
    weights = write_shape(tmp_path / "weights", "mistral-nemo-12b")
    recipe = small(tmp_path, weights, tuning="full")
    with pytest.raises(RagFtError, match=r"the training needs about \d+\.\d GB = weights 48\.99 .*: set "):
        check_memory_of(recipe, weights)


def check_memory_of(recipe: Recipe, weights: Path) -> None:
    tokens = [encode_row(row(1, [0]), encoder())]
    check_resources(recipe, only_stage(weights), tokens, resolve_weights(str(weights)))


def test_what_cannot_be_estimated_is_left_to_who_loads_the_model(tmp_path: Path, tiny_weights: Path) -> None:
    recipe = small(tmp_path, tiny_weights, lora={"target_modules": "qkv"})
    tokens = [encode_row(row(1, [0]), encoder())]
    (line,) = check_resources(recipe, only_stage(tmp_path), tokens, resolve_weights(str(tiny_weights)))
    assert line.startswith("memory and disk: not estimated, since model.lora.target_modules")


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, 3),
        ({"trainer": {"save_total_limit": 1}}, 2),
        ({"trainer": {"save_total_limit": None}}, 3),
        ({"trainer": {"save_total_limit": 1}, "validation": {"keep_best": "loss"}}, 3),
    ],
)
def test_the_best_checkpoint_needs_room_too(told: dict[str, Any], kept: int) -> None:
    assert checkpoints_kept(TrainingSettings.model_validate(told)) == kept


def test_memory_that_runs_out_is_one_sentence() -> None:
    import torch

    from rag_ft.training.assemble import naming_full_memory

    match = r"memory ran out \(CUDA out of memory\. Tried\).*training\.batch_size"
    with pytest.raises(RagFtError, match=match), naming_full_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore lines")
