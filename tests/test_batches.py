"""Batches: which rows meet, in which order, and that no way of laying them out changes loss or gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import losses, trainer
from token_rows import encoder, row

from data_builders.errors import RagFtError
from rag_ft.training.assemble import refuse_a_second_curriculum
from rag_ft.training.batches import BatchPlan, best_fit_bins, consecutive_bins, epoch_batches
from rag_ft.training.rows import IGNORED, TokenRow, encode_row
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.trainer import _summed_loss, recomputes, require_liger

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


def test_a_curriculum_is_not_begun_again() -> None:
    plan = BatchPlan(batch_size=2, accumulation=2, ordered=True)
    refuse_a_second_curriculum(plan, rows=9, max_steps=3)
    refuse_a_second_curriculum(plan, rows=9, max_steps=-1)
    refuse_a_second_curriculum(replace(plan, ordered=False), rows=9, max_steps=4)
    with pytest.raises(RagFtError, match=r"again from its start after 3 steps.*training\.max_steps=3"):
        refuse_a_second_curriculum(plan, rows=9, max_steps=4)


def test_a_packed_curriculum_keeps_its_order() -> None:
    plan = BatchPlan(batch_size=1, capacity=10, ordered=True)
    assert epoch_batches([1, 5, 8, 3, 7, 2, 4], plan, 0) == [[0, 1], [2], [3, 4], [5, 6]]


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


def mixed_rows() -> list[TokenRow]:
    """Rows with few and with many tokens that carry loss."""
    one = encoder(), encoder(style="answer")
    return [encode_row(row(1 + n % 3, [0]), one[n % 2]) for n in range(5)]


def test_the_loss_of_the_validation_rows_is_a_mean_over_tokens(tiny_weights: Path, tmp_path: Path) -> None:
    import datasets
    from transformers import AutoModelForCausalLM

    rows = mixed_rows()
    model = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32).eval()
    total = count = 0.0
    for each in rows:
        loss = model(torch.tensor([each.input_ids]), labels=torch.tensor([each.labels])).loss  # by transformers
        tokens = sum(label != IGNORED for label in each.labels[1:])
        total, count = total + tokens * loss.item(), count + tokens
    watched = datasets.Dataset.from_list([each.columns() for each in rows])
    for batching, batch in [("padded", 1), ("padded", 2), ("padded", 5), ("padding_free", 2), ("padding_free", 3)]:
        fresh = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32)
        train = trainer(fresh, tmp_path / f"{batching}{batch}", rows, batching=batching, batch_size=batch)
        assert train.evaluate(watched)["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def test_tokens_count_the_same_in_models_that_know_no_count_of_tokens(tiny_weights: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    curves = []
    for batch in (1, 4):
        model = AutoModelForCausalLM.from_pretrained(tiny_weights, dtype=torch.float32)
        model.accepts_loss_kwargs = False  # as Gemma 3's says
        step = {"batch_size": batch, "gradient_accumulation": 4 // batch}
        curves.append(losses(model, tmp_path / str(batch), mixed_rows(), **step))
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


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
