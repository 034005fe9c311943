"""Batches: which rows meet, in which order, and that no way of laying them out changes loss or gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import gradients, losses, relative_error, separate_rows, stir, trainer
from tiny_model import TEMPLATES
from token_rows import encoder, row

from data_builders.errors import RagFtError
from rag_ft.models.flex import BLOCK, block_mask
from rag_ft.models.load import attention_name
from rag_ft.models.segment_tree import ROOT, allows_joined_rows, allows_trees, tree_mask
from rag_ft.training.batches import BatchPlan, best_fit_bins, consecutive_bins, epoch_batches
from rag_ft.training.collate import Collator, dense_mask, model_inputs
from rag_ft.training.rows import IGNORED, TokenRow, encode_row
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.trainer import _summed_loss, loss_at_labels, recomputes, refuse_mixed_rows, require_liger

# which rows stand together

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)
PLANS = st.builds(
    BatchPlan,
    batch_size=st.integers(1, 4),
    processes=st.integers(1, 3),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 3),
    grouped=st.booleans(),
    ordered=st.booleans(),
    capacity=st.sampled_from([None, 50, 80]),
)


def steps(batches: Sequence[Sequence[int]], plan: BatchPlan) -> list[list[int]]:
    """The rows of each optimizer step."""
    size = plan.processes * plan.accumulation
    return [sorted(chain(*batches[at : at + size])) for at in range(0, len(batches), size)]


@given(lengths=LENGTHS, plan=PLANS, epoch=st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_every_row_is_trained_once_in_an_epoch(lengths: list[int], plan: BatchPlan, epoch: int) -> None:
    batches = epoch_batches(lengths, plan, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(batches)
    assert batches == epoch_batches(lengths, plan, epoch)
    assert len(batches) == len(epoch_batches(lengths, plan, epoch + 1))
    if plan.capacity is None:
        assert max(map(len, batches)) <= plan.batch_size
    else:
        assert all(sum(lengths[row] for row in batch) <= plan.batch_size * plan.capacity for batch in batches)


@given(lengths=LENGTHS, plan=PLANS, epoch=st.integers(0, 2))
@settings(max_examples=200, deadline=None)
def test_the_rows_of_a_step_do_not_depend_on_how_it_is_spread(lengths: list[int], plan: BatchPlan, epoch: int) -> None:
    from dataclasses import replace

    spread = steps(epoch_batches(lengths, plan, epoch), plan)
    alone = replace(plan, batch_size=1, processes=1, accumulation=plan.step)
    at_once = replace(plan, batch_size=plan.step, processes=1, accumulation=1)
    assert steps(epoch_batches(lengths, alone, epoch), alone) == spread
    assert steps(epoch_batches(lengths, at_once, epoch), at_once) == spread


@given(lengths=LENGTHS, plan=PLANS)
@settings(max_examples=100, deadline=None)
def test_the_first_batch_holds_the_longest_row_and_is_full(lengths: list[int], plan: BatchPlan) -> None:
    if plan.ordered or plan.capacity is not None:
        return
    first = epoch_batches(lengths, plan, 0)[0]
    assert lengths[first[0]] == max(lengths)
    if len(lengths) >= plan.step:
        assert len(first) == plan.batch_size


def test_rows_of_like_length_share_a_batch_and_those_of_other_processes_are_like_them() -> None:
    lengths = [10, 900, 11, 905, 12, 500, 13, 505, 14, 910, 501, 502]
    plan = BatchPlan(batch_size=2, processes=2)
    for epoch in range(4):
        batches = epoch_batches(lengths, plan, epoch)
        passes = [batches[at] + batches[at + 1] for at in range(0, len(batches), 2)]
        sets = sorted(sorted(lengths[row] for row in rows) for rows in passes)
        assert sets == [[10, 11, 12, 13], [14, 500, 501, 502], [505, 900, 905, 910]]
    mixed = epoch_batches(lengths, BatchPlan(batch_size=2, processes=2, grouped=False), 1)
    spread = [max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in mixed]
    assert max(spread) > 300


def test_padding_nearly_goes_away_and_other_rows_meet_in_every_epoch() -> None:
    lengths = [100 + 73 * n % 1100 for n in range(1000)]
    plan = BatchPlan(batch_size=4)

    def padded(plan: BatchPlan, epoch: int) -> float:
        batches = epoch_batches(lengths, plan, epoch)
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) / sum(lengths)

    assert padded(plan, 1) < 1.05
    assert padded(BatchPlan(batch_size=4, grouped=False), 1) > 1.3
    first, second = ({frozenset(batch) for batch in epoch_batches(lengths, plan, epoch)} for epoch in (0, 1))
    assert len(first & second) < 25


def test_the_order_changes_with_epoch_and_seed() -> None:
    lengths = list(range(20, 60))
    orders = [
        epoch_batches(lengths, BatchPlan(batch_size=2, seed=seed), epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_a_short_step_gives_every_process_its_part() -> None:
    plan = BatchPlan(batch_size=4, processes=2, ordered=True)
    assert epoch_batches([1] * 11, plan, 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8], [9, 10]]
    assert epoch_batches([1] * 9, plan, 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_best_fit_fills_the_fullest_bin_that_has_room() -> None:
    # By hand: 8 -> bin 0 (2 left), 7 -> bin 1 (3 left), 5 -> bin 2 (5 left), 4 -> bin 2 (1 left), 3 -> bin 1 (0 left),
    # 2 -> bin 0 (0 left), 1 -> bin 2 (0 left).
    lengths = [1, 5, 8, 3, 7, 2, 4]
    assert best_fit_bins(range(7), lengths, 10) == [(2, 5), (4, 3), (1, 6, 0)]
    assert consecutive_bins(range(7), lengths, 10) == [(0, 1), (2,), (3, 4), (5, 6)]


def test_a_packed_curriculum_keeps_its_order() -> None:
    plan = BatchPlan(batch_size=1, capacity=10, ordered=True)
    assert epoch_batches([1, 5, 8, 3, 7, 2, 4], plan, 0) == [[0, 1], [2], [3, 4], [5, 6]]


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


# through the trainer


def test_grouped_and_joined_rows_train_as_one_row_at_a_time_does(tiny_weights: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    one = encoder(style="answer")
    contexts = [row(1 + 5 * n % 6, [0]) for n in range(14)] + [row(3, [0], [1]), row(2, [1], [])]
    rows = [encode_row(each, one) for each in contexts]
    assert len({len(each.input_ids) for each in rows}) > 5
    curves = []
    for batching, batch in [("padded", 1), ("padded", 2), ("padded", 8), ("padding_free", 1), ("padding_free", 4)]:
        model = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32)
        step = {"batch_size": batch, "gradient_accumulation": 8 // batch, "batching": batching, "max_steps": 4}
        curves.append(losses(model, tmp_path / f"{batching}{batch}", rows, **step))
    assert len(curves[0]) == 4
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_packed_rows_train_whole_epochs_in_fewer_steps(tiny_weights: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    one = encoder(style="answer")
    rows = [encode_row(row(1 + n % 3, [0]), one) for n in range(9)]
    longest = max(len(each.input_ids) for each in rows)
    total = sum(len(each.input_ids) for each in rows)
    bins = len(best_fit_bins(range(9), [len(each.input_ids) for each in rows], 2 * longest))
    assert total / (2 * longest) <= bins < 9
    curves = []
    for size, accumulation in ((1, 2), (2, 1)):
        model = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32)
        changes = {"batch_size": size, "gradient_accumulation": accumulation, "max_steps": None, "epochs": 2}
        train = trainer(model, tmp_path / str(size), rows, batching="packed", max_length=2 * longest, **changes)
        train.train()
        curves.append([log["loss"] for log in train.state.log_history if "loss" in log])
        tokens = [log["num_tokens"] for log in train.state.log_history if "num_tokens" in log]
        assert tokens[-1] == 2 * total
    assert len(curves[0]) == 2 * -(-bins // 2)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_rows_are_joined_only_where_attention_keeps_them_apart() -> None:
    from transformers import LlamaConfig, MistralConfig, Qwen3NextConfig

    packed = TrainingSettings(batching="packed", max_length=512, batch_size=2)
    single, shared = [[100, 20]], [[100, 20, 20]]
    refuse_mixed_rows(LlamaConfig(attn_implementation="sdpa"), packed, shared)
    refuse_mixed_rows(LlamaConfig(attn_implementation="flex_attention"), packed, shared)
    refuse_mixed_rows(MistralConfig(sliding_window=2048), packed, single)
    refuse_mixed_rows(MistralConfig(sliding_window=512, attn_implementation="flash_attention_2"), packed, single)
    for config, lengths in [
        (MistralConfig(sliding_window=1024), single),
        (LlamaConfig(attn_implementation="flash_attention_2"), shared),
        (Qwen3NextConfig(), single),
    ]:
        with pytest.raises(RagFtError, match=r"batching=packed lays up to 1024 tokens.*Set training.batching=padded"):
            refuse_mixed_rows(config, packed, lengths)
    flex = LlamaConfig(attn_implementation="flex_attention")
    assert allows_trees(flex, 10**6)
    assert allows_joined_rows(flex, 10**6)


def test_liger_is_refused_without_a_gpu() -> None:
    assert not torch.cuda.is_available()
    with pytest.raises(RagFtError, match=r"training.liger=true needs a CUDA GPU.*set training.liger=false"):
        require_liger()
    assert not recomputes(TrainingSettings())
    assert recomputes(TrainingSettings(gradient_checkpointing=True))


# memory


def test_a_loss_in_chunks_is_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from rag_ft.training import trainer as module

    torch.manual_seed(0)
    logits, labels = torch.randn(11, 7, requires_grad=True), torch.tensor([1, 2, IGNORED, 6, 0, 0, 3, 3, 3, 1, 2])
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    (gradient,) = torch.autograd.grad(expected, logits)
    for chunk in (7, 21, 70, 1000):
        monkeypatch.setattr(module, "CHUNK", chunk)
        found = _summed_loss(logits, labels)
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        assert torch.allclose(torch.autograd.grad(found, logits)[0], gradient, atol=1e-7)


def test_the_joined_model_is_stirred_too(tiny_llama: Any, tmp_path: Path) -> None:
    """The gradient of an adapter, not only of all weights, is the same for joined rows."""
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
