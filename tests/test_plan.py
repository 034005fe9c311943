"""`rag-ft train R --dry-run`: what it says is what the training does, and it leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_shapes import PUBLISHED, write_shape
from tiny_model import contents, tiny_recipe, tiny_run, tiny_settings

from rag_ft.models.settings import ModelSettings
from rag_ft.recipe.shipped import shipped_recipes
from rag_ft.training.memory_estimate import Demand, Rows
from rag_ft.training.model_shape import model_shape
from rag_ft.training.places import place_at_hand
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.time_estimate import TimeEstimate, row_operations

Verb = Callable[..., tuple[int, str, str]]
SHIPPED = [name for name in shipped_recipes() if not name.startswith("base/")]
STAGES = [
    {"name": "one", "spans": ["answer"], "data_share": 0.5, "epochs": 1.5},
    {"name": "two", "max_steps": 3},
]


def planned(out: str, what: str) -> list[str]:
    """Return the first number of every line that begins with `what`."""
    return re.findall(rf"^ *{what}: (?:about )?([\d.]+)", out, flags=re.MULTILINE)


class TestPlanAndTraining:
    @pytest.mark.parametrize(
        "training",
        [
            {"batch_size": 5, "gradient_accumulation": 2, "epochs": 1.5},
            {"batch_size": 2, "gradient_accumulation": 1, "batching": "packed", "max_length": 700, "epochs": 2},
            {"batch_size": 2, "gradient_accumulation": 3, "stages": STAGES},
        ],
        ids=["short last step", "packed", "stages"],
    )
    def test_steps_are_those_that_are_trained(
        self, training: dict[str, Any], tmp_path: Path, tiny_weights: Path, built_data: Path, run_verb: Verb
    ) -> None:
        settings = {**tiny_settings(tiny_weights)["training"], **training}
        recipe = tiny_run(tmp_path, tiny_weights, built_data, training=settings)
        code, out, err = run_verb("train", recipe, "--dry-run")
        assert code == 0, err
        assert run_verb("train", recipe)[0] == 0
        summary = json.loads((tmp_path / "runs/tiny/training/summary.json").read_text())
        stages = summary.get("stages", [summary])
        assert [int(steps) for steps in planned(out, "steps")] == [stage["steps"] for stage in stages]
        assert [stage["trainable_parameters"] for stage in stages] == [trained_by_hand()] * len(stages)
        assert f"{trained_by_hand() / 1e6:.1f} M parameters" in out

    def test_it_writes_nothing_and_needs_no_weights(
        self, tmp_path: Path, tiny_weights: Path, built_data: Path, run_verb: Verb
    ) -> None:
        weights = tmp_path / "weights"
        shutil.copytree(tiny_weights, weights, ignore=shutil.ignore_patterns("*.safetensors"))
        recipe = tiny_run(tmp_path, weights, built_data)
        before = contents(tmp_path)
        code, out, err = run_verb("train", recipe, "--dry-run")
        assert code == 0, err
        assert contents(tmp_path) == before
        for what in ("weights", "trained", "backend", "  rows", "  tokens", "  steps", "disk", "time"):
            assert re.search(rf"^{what}: ", out, flags=re.MULTILINE), what

    def test_tokens_are_those_of_the_rows(
        self, tmp_path: Path, tiny_weights: Path, built_data: Path, trained_run: Path, run_verb: Verb
    ) -> None:
        _, out, _ = run_verb("train", tiny_run(tmp_path, tiny_weights, built_data), "--dry-run")
        lines = (trained_run / "training/metrics.jsonl").read_text().splitlines()
        seen = max(json.loads(line).get("num_tokens", 0) for line in lines)
        assert int(planned(out, "tokens")[0]) == seen  # one epoch


def trained_by_hand() -> int:
    """Rank 4 on two layers: q and o 64 + 64; k and v 64 + 32; gate, up and down 64 + 128."""
    return 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)


class TestBeforeTheBuild:
    def test_it_says_so_with_the_command_and_plans_with_full_rows(
        self, tmp_path: Path, tiny_weights: Path, run_verb: Verb
    ) -> None:
        code, out, _ = run_verb("train", tiny_recipe(tmp_path, tiny_weights), "--dry-run")
        assert code == 0
        assert "rag-ft build RECIPE" in out
        assert "rows of up to 2048 tokens" in out
        assert "time: known when rows are built" in out
        assert not (tmp_path / "runs").exists()

    def test_weights_that_cannot_be_reached_are_one_sentence(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        recipe = tiny_recipe(tmp_path, Path("nobody/nothing"))
        assert "model.weights=nobody/nothing: not in the local Hub cache" in refused("train", recipe, "--dry-run")

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ("training.trainer={weight_decay: abc}", "training.trainer.weight_decay='abc': trl.SFTConfig wants float"),
            ("training.trainer={optim: adamw_9bit}", "training.trainer.optim='adamw_9bit': trl.SFTConfig does not"),
            ("training.resume=nope/checkpoint-3", "training.resume=nope/checkpoint-3 is not a complete checkpoint"),
        ],
    )
    def test_what_training_would_refuse_at_its_start_is_refused(
        self, told: str, message: str, tmp_path: Path, tiny_weights: Path, refused: Callable[..., str]
    ) -> None:
        assert message in refused("train", tiny_recipe(tmp_path, tiny_weights), "--dry-run", told)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_every_shipped_recipe_has_a_plan(
        self, name: str, tmp_path: Path, tiny_weights: Path, run_verb: Verb
    ) -> None:
        told = [
            f"model.weights={tiny_weights}",
            f"runs_dir={tmp_path}",
            "training.max_length=4096",
            "model.chat_template=null",
        ]
        if name == "instruction_tuning":
            pairs = tmp_path / "pairs.jsonl"
            pairs.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"{n}."}) + "\n" for n in range(30)))
            told.append(f"training.chat.path={pairs}")
        code, out, err = run_verb("train", name, "--dry-run", *told)
        assert code == 0, err
        assert "fits a 24 GB card: yes" in out


class TestLargeModels:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_a_laptop_says_which_card_would_do(self, name: str, tmp_path: Path, run_verb: Verb) -> None:
        weights = write_shape(tmp_path / "weights", name)
        recipe = tiny_recipe(tmp_path, weights)
        told = ["training.max_length=4096", "model.dtype=bfloat16", "model.lora.rank=16"]
        small = run_verb("train", recipe, "--dry-run", "model.quantisation.kind=nf4", *told)[1]
        large = run_verb("train", recipe, "--dry-run", *told)[1]
        assert f"{PUBLISHED[name]:.2f} B parameters" in small
        assert "fits a 24 GB card: yes" in small
        assert "fits a 80 GB card: yes" in large
        assert "fits a 16 GB card: no" in large
        assert "model.quantisation.kind=nf4 (saves" in large

    def test_shards_of_eight_cards_fit_where_one_does_not(self, tmp_path: Path, run_verb: Verb) -> None:
        weights = write_shape(tmp_path / "weights", "llama-3.1-8b")
        recipe = tiny_recipe(tmp_path, weights, model={"weights": str(weights), "tuning": "full"})
        config = tmp_path / "eight.yaml"
        config.write_text("distributed_type: FSDP\nnum_machines: 1\nnum_processes: 8\n")
        one = run_verb("train", recipe, "--dry-run")[1]
        eight = run_verb("train", recipe, "--dry-run", "--accelerate", config)[1]
        assert "fits a 80 GB card: no" in one
        assert "fits a 80 GB card: yes" in eight
        assert "8 processes, weights shared out" in eight


class TestTime:
    @pytest.mark.parametrize(("tuning", "recompute"), [("lora", False), ("lora", True), ("full", False)])
    def test_operations_are_those_that_torch_counts(self, tuning: str, recompute: bool, tiny_llama: Any) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from rag_ft.models.lora import trainable

        settings = ModelSettings.model_validate({"dtype": "float32", "tuning": tuning, "lora": {"rank": 4}})
        training = TrainingSettings(gradient_checkpointing=recompute)
        tiny_llama.set_attn_implementation("eager")  # whose products are all counted
        shape = model_shape(settings, tiny_llama.config)
        model = trainable(tiny_llama, settings, None, Path()).train()
        if recompute:
            model.gradient_checkpointing_enable()
        if tuning == "lora":
            model.enable_input_require_grads()
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.zeros(1, 200, dtype=torch.long), logits_to_keep=20).logits
            logits.sum().backward()
        demand = Demand(settings, training, shape, Rows(200, 20, 200, False), place_at_hand())
        half = 2 * 200**2 * shape.attention * shape.layers * (3 + recompute)  # eager attention computes the future too
        assert row_operations(demand, 200, 20) + half == pytest.approx(counter.get_total_flops(), rel=0.03)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (20, "about 20.0 s (13.0 to 30.0)"),
            (600, "about 10.0 min (6.5 to 15.0)"),
            (7200, "about 2.0 h (1.3 to 3.0)"),
        ],
    )
    def test_time_is_a_rough_range(self, seconds: float, text: str) -> None:
        assert TimeEstimate(seconds).text() == text
