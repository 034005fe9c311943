"""What a token sees, and that no way of laying rows out changes loss or gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import gradients, relative_error, separate_rows, stir, trainer
from tiny_model import TEMPLATES
from token_rows import encoder, row

from data_builders.errors import RagFtError
from rag_ft.models.flex import BLOCK, block_mask
from rag_ft.models.load import attention_name
from rag_ft.models.segment_tree import ROOT, allows_trees, tree_mask
from rag_ft.training.collate import Collator, dense_mask, model_inputs
from rag_ft.training.rows import IGNORED, TokenRow, encode_row
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.trainer import loss_at_labels, refuse_mixed_rows

# what a token sees


def forest(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, list[int]]:
    """The segments and parents of several rows in one tree with several roots, for the general mask."""
    segments: list[int] = []
    parents: list[int] = []
    for lengths in rows:
        root = len(parents)
        for number, length in enumerate(lengths):
            segments += [len(parents)] * length
            parents.append(root if number else ROOT)
    return torch.tensor(segments), parents


def made(rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    return [{"input_ids": [7] * sum(each), "labels": [7] * sum(each), "lengths": list(each)} for each in rows]


ROWS = st.lists(st.lists(st.integers(1, 90), min_size=2, max_size=5), min_size=1, max_size=5)


@given(rows=ROWS)
@settings(max_examples=30, deadline=None)
def test_joined_rows_see_what_a_forest_of_segments_sees(rows: list[list[int]]) -> None:
    batch = Collator(flat=True)(made(rows))
    if "rows" not in batch:
        assert len(rows) == 1
        assert len(rows[0]) == 2
        return
    expected = tree_mask(*forest(rows))
    assert torch.equal(dense_mask(batch["rows"], batch["questions"], torch.float32)[0, 0] == 0, expected)


@given(rows=ROWS)
@settings(max_examples=20, deadline=None)
def test_a_block_mask_says_the_same_token_by_token_and_block_by_block(rows: list[list[int]]) -> None:
    for batch in (Collator(flat=True)(made(rows)), Collator()(made([*rows, [3, 4, 5]]))):
        if "rows" not in batch:
            continue
        mask = block_mask(batch["rows"], batch["questions"])
        dense = dense_mask(batch["rows"], batch["questions"], torch.float32)[:, 0] == 0
        sequences, tokens = batch["rows"].shape
        index = torch.arange(tokens)
        for sequence in range(sequences):
            said = mask.mask_mod(torch.tensor(sequence), torch.tensor(0), index[:, None], index[None])
            assert torch.equal(said, dense[sequence])
        assert mask.shape == (sequences, 1, tokens, tokens)
        blocks = -(-tokens // BLOCK)
        seen, full = torch.zeros(2, sequences, blocks, blocks, dtype=torch.bool)
        for sequence in range(sequences):
            for block in range(blocks):
                part = mask.kv_indices[sequence, 0, block, : int(mask.kv_num_blocks[sequence, 0, block])]
                whole = mask.full_kv_indices[sequence, 0, block, : int(mask.full_kv_num_blocks[sequence, 0, block])]
                assert not set(part.tolist()) & set(whole.tolist())
                seen[sequence, block, part] = True
                full[sequence, block, whole] = True
        padded = torch.nn.functional.pad(dense, (0, -tokens % BLOCK, 0, -tokens % BLOCK))
        tiles = padded.unflatten(2, (blocks, BLOCK)).unflatten(1, (blocks, BLOCK))
        assert not (tiles.any(dim=4).any(dim=2) & ~(seen | full)).any()  # nothing visible is skipped
        assert not (full & ~tiles.all(dim=4).all(dim=2)).any()  # nothing hidden counts as seen in full


def test_a_block_mask_skips_what_no_token_sees() -> None:
    two_rows = Collator(flat=True)(made([[4 * BLOCK, 1 * BLOCK, 1 * BLOCK], [2 * BLOCK, BLOCK]]))
    mask = block_mask(two_rows["rows"], two_rows["questions"])
    # Blocks of queries by hand: the prompt's four see 0..3 earlier ones; each question all four; the second row none
    # of the first. One more is their own, in part.
    assert mask.full_kv_num_blocks[0, 0].tolist() == [0, 1, 2, 3, 4, 4, 0, 1, 2]
    assert mask.kv_num_blocks[0, 0].tolist() == [1] * 9


def test_positions_begin_anew_in_each_row_and_behind_the_shared_prompt() -> None:
    batch = Collator(flat=True)(made([[3, 2, 2], [2, 1]]))
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3, 4, 0, 1, 2]]
    assert batch["rows"].tolist() == [[0] * 7 + [1] * 3]
    assert batch["questions"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 0, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED] + [7] * 6 + [IGNORED, 7, 7]]  # nobody learns how another row begins
    assert batch["logits_to_keep"].tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    padded = Collator()(made([[3, 2, 2], [2, 1]]))
    assert padded["rows"].tolist() == [[0] * 7, [0] * 3 + [-1] * 4]


def test_flash_attention_is_told_where_rows_begin() -> None:
    batch = Collator(flat=True)(made([[3, 2], [2, 1], [4, 4]]))
    inputs = model_inputs(batch, "flash_attention_2", torch.bfloat16)
    assert inputs["cu_seq_lens_q"].tolist() == inputs["cu_seq_lens_k"].tolist() == [0, 5, 8, 16]
    assert (inputs["max_length_q"], inputs["max_length_k"]) == (8, 8)
    assert "attention_mask" not in inputs
    padded = model_inputs(Collator()(made([[3, 2], [2, 1]])), "flash_attention_2", torch.bfloat16)
    assert padded["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


# equivalence

SINGLE = [row(1, [0]), row(3, [2]), row(2, []), row(4, [1])]
SHARED = [row(4, [0], [1], [3], []), row(2, [1], [0])]
MIXES = {"single": SINGLE, "shared": SHARED, "mixed": [SINGLE[1], SHARED[0], SINGLE[0], SHARED[1]]}


def loss_and_gradient(model: Any, batches: Sequence[dict[str, Any]], count: int, attention: str) -> Any:
    total = 0.0
    for batch in batches:
        loss, _, _ = loss_at_labels(model, model_inputs(batch, attention, torch.float32), count)
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def reference(model: Any, rows: Sequence[TokenRow], count: int) -> Any:
    """transformers' own loss, row by row."""
    total = 0.0
    for each in rows:
        told = {"input_ids": torch.tensor([each.input_ids]), "labels": torch.tensor([each.labels])}
        loss = model(**told, num_items_in_batch=count).loss
        loss.backward()
        total += loss.item()
    return total, gradients(model)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "causal_blocks"])
@pytest.mark.parametrize("kind", MIXES)
def test_padded_joined_and_separate_rows_have_one_loss_and_one_gradient(
    tiny_weights: Path, kind: str, attention: str
) -> None:
    from transformers import AutoModelForCausalLM

    from rag_ft.models.attention import register

    register()
    one = encoder()
    apart = [each for context in MIXES[kind] for each in separate_rows(context, one)]
    rows = [encode_row(each, one).columns() for each in MIXES[kind]]
    count = sum(label != IGNORED for each in apart for label in each.labels)
    loaded = [
        AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32, attn_implementation=name)
        for name in ("sdpa", attention)
    ]
    loss, gradient = reference(loaded[0], apart, count)
    for batches in (
        [Collator()(rows)],
        [Collator(flat=True)(rows)],
        [Collator(True)(rows[:1]), Collator(True)(rows[1:])],
    ):
        found, theirs = loss_and_gradient(loaded[1], batches, count, attention)
        assert found == pytest.approx(loss, rel=1e-5)
        assert relative_error(theirs, gradient) < 1e-5


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_has_one_loss_however_its_rows_are_laid_out(tiny_llama: Any, template: str) -> None:
    one = encoder(template)
    rows = [encode_row(each, one) for each in MIXES["mixed"]]
    count = sum(label != IGNORED for each in rows for label in each.labels)
    columns = [each.columns() for each in rows]
    apart = [[Collator()([each])] for each in columns]
    expected = sum(loss_and_gradient(tiny_llama, batch, count, "sdpa")[0] for batch in apart)
    for collator in (Collator(), Collator(flat=True)):
        batch = collator(columns)
        found, _ = loss_and_gradient(tiny_llama, [batch], count, "sdpa")
        assert found == pytest.approx(expected, rel=1e-5)
        # What is learned: the target and the end of the turn of every question, and no token of a prompt.
        learned = batch["labels"][batch["labels"] != IGNORED].tolist()
        assert learned == [label for each in rows for label in each.labels if label != IGNORED]
        end = one.end[-1]
        assert learned.count(end) == sum(len(each.lengths) - 1 for each in rows)


def uncompiled(*told: Any, training: bool = False, **named: Any) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(*told, **named)


@pytest.mark.parametrize("kind", MIXES)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_has_the_loss_and_the_gradient_of_the_dense_mask(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.integrations import flex_attention

    # torch compiles it for training on a GPU only, and checks for one; not compiled, the same function evaluates the
    # mask token by token, forward and backward, on any device.
    monkeypatch.setattr(flex_attention, "compile_friendly_flex_attention", uncompiled)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    one = encoder()
    rows = [encode_row(each, one).columns() for each in MIXES[kind]]
    results = []
    for attention in ("sdpa", "flex_attention"):
        model = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32, attn_implementation=attention)
        results.append(loss_and_gradient(model, [Collator(flat=True)(rows)], 50, attention))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    assert relative_error(results[1][1], results[0][1]) < 1e-5


def test_attention_follows_the_device_and_what_rows_need() -> None:
    assert attention_name("auto", "cuda:0", "bfloat16", masked=True) == "flex_attention"
    assert attention_name("auto", "cuda:0", "bfloat16") == "sdpa"
    assert attention_name("auto", "cpu", "float32", masked=True) == "sdpa"
    assert attention_name("eager", "cuda:0", "bfloat16", masked=True) == "eager"
    with pytest.raises(RagFtError, match=r"model.attention=flex_attention needs a GPU.*set it to auto"):
        attention_name("flex_attention", "cpu", "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_caps_on_the_scores_of_attention_are_not_left_out(tmp_path: Path, dtype: str) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from rag_ft.models.load import load_model
    from rag_ft.models.settings import ModelSettings
    from rag_ft.models.weights import resolve_weights

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 300, "head_dim": 8}
    config = Gemma2Config(**sizes, attn_logit_softcapping=0.1, num_attention_heads=4, initializer_range=0.5)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    weights, ids = resolve_weights(str(tmp_path)), torch.arange(5, 25)[None]
    told = [ModelSettings(weights=str(tmp_path), dtype=dtype, attention=name) for name in ("auto", "eager")]
    chosen, eager = (load_model(each, weights, "cpu")(ids).logits for each in told)
    assert torch.equal(chosen, eager)
    with pytest.raises(RagFtError, match=r"model.attention=sdpa leaves out the cap.*set it to auto"):
        load_model(told[0].model_copy(update={"attention": "sdpa"}), weights, "cpu")


def test_rows_are_joined_only_where_attention_keeps_them_apart(tiny_llama: Any) -> None:
    from transformers import LlamaConfig, MistralConfig, Qwen3NextConfig

    packed = TrainingSettings(batching="packed", max_length=512, batch_size=2)
    single, shared = [[100, 20]], [[100, 20, 20]]
    refuse_mixed_rows(tiny_llama, packed, shared)
    assert allows_trees(LlamaConfig(attn_implementation="flex_attention"), 10**6)
    assert allows_trees(MistralConfig(sliding_window=2048), 1024)
    tiny_llama.config = MistralConfig(sliding_window=512, attn_implementation="flash_attention_2")
    refuse_mixed_rows(tiny_llama, packed, single)
    for config, lengths in [
        (MistralConfig(sliding_window=1024), single),
        (LlamaConfig(attn_implementation="flash_attention_2"), shared),
        (Qwen3NextConfig(), single),
        (Qwen3NextConfig(attn_implementation="flash_attention_2"), single),
    ]:
        tiny_llama.config = config
        with pytest.raises(RagFtError, match=r"batching=packed lays up to 1024 tokens.*Set training.batching=padded"):
            refuse_mixed_rows(tiny_llama, packed, lengths)


def test_rows_are_not_joined_where_layers_ignore_a_mask(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = TrainingSettings(batching="packed", max_length=512)
    refuse_mixed_rows(tiny_llama, packed, [[100, 20]])
    unmasked = tiny_llama.model.forward
    monkeypatch.setattr(tiny_llama.model, "forward", lambda *a, attention_mask=None, **told: unmasked(*a, **told))
    with pytest.raises(RagFtError, match=r"a backend that ignores masks"):
        refuse_mixed_rows(tiny_llama, packed, [[100, 20]])


def test_an_adapter_has_one_gradient_however_its_rows_are_laid_out(tiny_llama: Any, tmp_path: Path) -> None:
    one = encoder()
    rows = [encode_row(each, one) for each in MIXES["mixed"]]
    train = trainer(tiny_llama, tmp_path, rows, batching="padding_free", batch_size=4)
    stir(train.model)
    columns = [each.columns() for each in rows]
    found = []
    for batch in (Collator(flat=True)(columns), Collator()(columns)):
        loss = train.compute_loss(train.model, dict(batch), num_items_in_batch=60)
        loss.backward()
        found.append((loss.item(), gradients(train.model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert relative_error(found[0][1], found[1][1]) < 1e-5
