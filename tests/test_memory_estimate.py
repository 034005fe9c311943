"""The memory estimate against hand counts, published sizes and real runs of autograd."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_shapes import PUBLISHED, shape_config

from data_builders.errors import RagFtError
from rag_ft.models.settings import ModelSettings
from rag_ft.training.activations import Pass, _traced, activation_bytes
from rag_ft.training.memory_estimate import Demand, Rows, changes_to_fit, check_memory, memory_estimate, verdict
from rag_ft.training.model_shape import ModelShape, model_shape
from rag_ft.training.places import Place, card, machine_memory, place_at_hand
from rag_ft.training.settings import TrainingSettings

GPU = Place("a GPU", "cuda", 24, "bfloat16")
LONG = Rows(longest=4096, labelled=256, all_tokens=10**6, several=False)
NF4 = {"quantisation": {"kind": "nf4"}}


def demand(name: str = "llama-3.1-8b", model: Any = None, training: Any = None, **changes: Any) -> Demand:
    settings = ModelSettings.model_validate({"dtype": "bfloat16", **(model or {})})
    fields = {"rows": LONG, "place": GPU, **changes}
    shape = shape_of(name, settings.model_dump_json())
    return Demand(settings, TrainingSettings.model_validate(training or {}), shape, **fields)


@cache
def shape_of(name: str, settings: str) -> ModelShape:
    return model_shape(ModelSettings.model_validate_json(settings), shape_config(name))


class TestCounts:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_parameters_are_those_published(self, name: str) -> None:
        assert round(model_shape(ModelSettings(), shape_config(name)).total / 1e9, 2) == PUBLISHED[name]

    def test_an_adapter_of_rank_16_on_llama_has_the_parameters_counted_by_hand(self) -> None:
        # q, o: 4096 + 4096; k, v: 4096 + 1024; gate, up, down: 4096 + 14336
        by_hand = 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432)
        assert model_shape(ModelSettings(), shape_config("llama-3.1-8b")).trained == by_hand == 41_943_040

    def test_full_tuning_trains_everything_and_adds_nothing(self) -> None:
        shape = model_shape(ModelSettings(tuning="full"), shape_config("gemma-2-9b"))
        assert (shape.trained, shape.added) == (shape.total, 0)

    @pytest.mark.parametrize(("name", "copies"), [("llama-3.1-8b", 2), ("gemma-2-9b", 1)])
    def test_trained_embeddings_are_added_once_where_they_are_tied(self, name: str, copies: int) -> None:
        config = shape_config(name)
        without = model_shape(ModelSettings(), config).trained
        settings = ModelSettings.model_validate({"lora": {"train_embeddings": True}})
        assert model_shape(settings, config).trained - without == copies * config.vocab_size * config.hidden_size


class TestParts:
    def test_four_bit_weights_take_what_the_qlora_paper_says(self) -> None:
        linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
        rest = 2 * 2 * 128256 * 4096 + 2 * 65 * 4096  # embeddings, output layer, norms in bfloat16
        once = memory_estimate(demand(model={"quantisation": {"kind": "nf4", "double": False}})).weights
        twice = memory_estimate(demand(model=NF4)).weights
        assert once * 1e9 == pytest.approx(linear * 4.5 / 8 + rest, rel=1e-3)
        assert twice * 1e9 == pytest.approx(linear * 4.127 / 8 + rest, rel=1e-3)

    def test_gradients_and_states_of_adapter_and_full_weights(self) -> None:
        adapter = memory_estimate(demand())
        assert adapter.gradients == pytest.approx(4 * 0.041943040)
        assert adapter.optimizer == pytest.approx(8 * 0.041943040)
        full = memory_estimate(demand(model={"tuning": "full"}))  # in float32: 16 bytes a parameter in all
        assert full.weights + full.gradients + full.optimizer == pytest.approx(16 * 8.030261248)

    @pytest.mark.parametrize(
        ("optimizer", "size"), [("adamw_8bit", 2), ("paged_adamw_8bit", 2), ("lion_8bit", 1), ("sgd", 0)]
    )
    def test_the_optimizer_says_how_large_its_states_are(self, optimizer: str, size: int) -> None:
        found = memory_estimate(demand(training={"trainer": {"optim": optimizer}}))
        assert found.optimizer == pytest.approx(size * 0.041943040)

    def test_a_square_mask_counts_where_questions_share_a_row_and_attention_makes_one(self) -> None:
        shared = replace(LONG, several=True)
        assert memory_estimate(demand(rows=shared)).mask == 0  # flex_attention, by default on a GPU
        dense = memory_estimate(demand(rows=shared, model={"attention": "sdpa"}))
        assert dense.mask == pytest.approx(4096**2 * 2 / 1e9)

    def test_sharding_divides_what_it_shares_out(self) -> None:
        alone = memory_estimate(demand(model={"tuning": "full"}))
        zero2 = memory_estimate(demand(model={"tuning": "full"}, place=replace(GPU, processes=8, sharding="optimizer")))
        fsdp = memory_estimate(demand(model={"tuning": "full"}, place=replace(GPU, processes=8, sharding="weights")))
        assert zero2.weights == alone.weights
        assert zero2.optimizer == pytest.approx(alone.optimizer / 8)
        assert fsdp.optimizer == pytest.approx(alone.optimizer / 8)
        # an eighth, and for a while two of 32 layers and the embeddings
        gathered = 4 * (2 * 218_112_128 + 2 * 128256 * 4096) / 1e9
        assert fsdp.weights == pytest.approx(alone.weights / 8 + gathered, rel=1e-3)


class TestActivations:
    def test_what_a_llama_layer_keeps_is_what_counting_by_hand_gives(self) -> None:
        """Frozen layers keep nothing; each adapter a copy of its input and of what is between its two matrices."""
        tokens, hidden, inner, rank, heads = 4096, 4096, 14336, 16, 32
        norms = 2 * (4 * hidden + 4)  # the input in float32, and one factor a token
        adapters = 2 * (6 * hidden + inner) + 7 * 2 * rank  # q k v o gate up, and down
        attention = 2 * 4 * hidden + 4 * heads  # q, k and v for every head, the output; a sum in float32
        gate = 2 * 3 * inner  # before and after silu, and up
        cast = 2 * rank * (2 * 8192 + 2 * 5120 + 3 * 18432)  # the adapter in bfloat16
        by_hand = tokens * (norms + adapters + attention + gate) + cast
        config = shape_config("llama-3.1-8b")
        forward = Pass(1, tokens, "bfloat16", "bfloat16", "sdpa", recompute=False, masked=True)
        few, many = (activation_bytes(ModelSettings(), config, forward, layers) for layers in (10, 20))
        assert (many - few) / 10 == pytest.approx(by_hand, rel=1e-3)

    def test_recomputing_keeps_the_input_of_a_layer_only(self) -> None:
        config = shape_config("llama-3.1-8b")
        forward = Pass(2, 1024, "bfloat16", "bfloat16", "sdpa", recompute=True, masked=False)
        few, many = (activation_bytes(ModelSettings(), config, forward, layers) for layers in (10, 20))
        assert (many - few) / 10 == pytest.approx(2 * 1024 * 4096 * 2, rel=0.01)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_trace_is_what_autograd_really_keeps(self, tiny_llama: Any, dtype: str) -> None:
        """The same pass on real tensors, counted by the hooks that autograd has for what it saves."""
        import torch

        from rag_ft.models.lora import trainable

        settings = ModelSettings(dtype=dtype)
        tiny_llama.set_attn_implementation("sdpa")
        model = trainable(tiny_llama.to(getattr(torch, dtype)), settings, None, Path()).train()
        weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            hidden = model.get_base_model().model(torch.zeros(1, 300, dtype=torch.long)).last_hidden_state
        real = sum(each.untyped_storage().nbytes() for key, each in kept.items() if key not in weights)
        forward = Pass(1, 300, dtype, dtype, "sdpa", recompute=False, masked=False)
        traced, _most = _traced(settings, model.config, forward)
        assert hidden.requires_grad
        assert real <= traced < real + 2 * 300 * 64 * 4  # besides, the trace has the result, and what it was made of


class TestVerdicts:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_qlora_fits_24_gb_and_lora_80_gb(self, name: str) -> None:
        small, large = demand(name, NF4, place=card(24, GPU)), demand(name, place=card(80, GPU))
        assert verdict(memory_estimate(small).total, 24) == "fits"
        assert verdict(memory_estimate(large).total, 80) == "fits"
        assert verdict(memory_estimate(demand(name)).total, 16) in ("over", "refused")

    def test_what_is_near_or_over_is_a_warning_and_far_over_an_error(self) -> None:
        one = demand()
        total = memory_estimate(one).total
        lines = [check_memory(replace(one, place=replace(GPU, memory=total * f))) for f in (1.2, 1.05, 0.8)]
        assert [("tight" in line, "too much" in line) for line in lines] == [
            (False, False),
            (True, False),
            (False, True),
        ]
        with pytest.raises(RagFtError, match=r"needs about .* but a GPU has .* set .*model\.quantisation\.kind=nf4"):
            check_memory(replace(one, place=replace(GPU, memory=total / 2)))

    def test_changes_are_listed_with_what_they_save_until_it_fits(self) -> None:
        costly = demand(training={"gradient_checkpointing": False, "batch_size": 4, "gradient_accumulation": 2})
        changes = changes_to_fit(costly, 24)
        assert [each.settings for each in changes] == [
            "training.gradient_checkpointing=true",
            "training.batch_size=1 with training.gradient_accumulation=8",
        ]
        before = memory_estimate(costly).total
        again = memory_estimate(costly.having(training=TrainingSettings(gradient_checkpointing=True, batch_size=4)))
        assert changes[0].saves == pytest.approx(before - again.total)
        assert changes[-1].total == pytest.approx(before - sum(each.saves for each in changes))
        assert changes[-1].total <= 24

    def test_an_architecture_that_cannot_be_traced_stops_no_training(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import LlamaModel

        from rag_ft.training.preflight import _memory

        def needs_values(self: Any, input_ids: Any, **kwargs: Any) -> None:
            raise NotImplementedError(int(input_ids.sum()))

        monkeypatch.setattr(LlamaModel, "forward", needs_values)
        assert _memory(demand()).startswith("memory: not estimated, since LlamaConfig cannot be traced")


class TestPlaces:
    def test_the_memory_of_a_cpu_is_no_more_than_the_machine_has(self) -> None:
        lines = Path("/proc/meminfo").read_text().splitlines()
        assert 0 < machine_memory() <= int(lines[0].split()[1]) * 1024

    @pytest.mark.parametrize(
        ("name", "sharding"),
        [("cpu", "none"), ("ddp", "none"), ("zero2", "optimizer"), ("zero3", "weights"), ("fsdp2", "weights")],
    )
    def test_a_configuration_of_accelerate_says_what_is_shared_out(self, name: str, sharding: str) -> None:
        assert place_at_hand(name).sharding == sharding

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_all_gpus_of_a_machine_are_taken_for_eight_where_there_is_none(self) -> None:
        assert [place_at_hand(name).processes for name in ("fsdp2", "multi_node", "single")] == [8, 16, 1]

    def test_processes_that_are_running_say_so_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        assert (place_at_hand().processes, place_at_hand().sharding) == (4, "weights")

    def test_the_stage_of_zero_is_known_from_a_file_of_deepspeed_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 3}}')
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        assert place_at_hand().sharding == "optimizer"
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))
        assert place_at_hand().sharding == "weights"
