"""Stages: which tokens and rows each trains on, what it takes over from the one before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_run, tiny_settings
from token_rows import asked, encoder, passage, row

from data_builders.errors import RagFtError
from data_builders.records import ContextRow
from data_builders.tables import read_context_rows, write_records
from rag_ft.facts import training_facts
from rag_ft.prompting.render import render_target
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.stage_rules import WRITTEN
from rag_ft.runs import RunFolder
from rag_ft.training.checkpoints import COMPLETE, read_metrics
from rag_ft.training.dataset import Draw, about_rows, stage_rows, token_rows, watched_rows
from rag_ft.training.optimizer_state import take_over
from rag_ft.training.rows import IGNORED, encode_row
from rag_ft.training.stages import Stage, planned_stages

Verb = Callable[..., tuple[int, str, str]]

GRADUAL: list[dict[str, Any]] = [
    {"name": "relevance", "spans": ["relevance"], "learning_rate": 5e-3},
    {"name": "evidence", "spans": ["relevance", "evidence"], "learning_rate": 3e-3},
    {"name": "everything", "learning_rate": 1e-3},
]

# The label of row(2, [0]), cut by hand with the tiny tokenizer: the pieces and their ids.
#   Relevance : \n [ 1 ] _yes : _It _is _about _Aldo .\n  [ 2 ] _no : _It _is _about _ B e x a .\n
RELEVANCE = [445, 40, 213, 73, 31, 75, 412, 40, 336, 334, 351, 349, 469]
RELEVANCE += [73, 32, 75, 300, 40, 336, 334, 351, 235, 48, 83, 102, 79, 469]
#   Ev idence : \n [ 1 ] _ " f ou nded _in _ 1 8 0 1 " : _It _ d at es _Aldo .\n
EVIDENCE = [357, 446, 40, 213, 73, 31, 75, 235, 16, 84, 293, 346, 332, 235, 31, 38, 30, 31]
EVIDENCE += [16, 40, 336, 235, 82, 363, 275, 349, 469]
#   Analysis : _The re f or e _ 1 8 0 1 .\n
ANALYSIS = [467, 40, 310, 386, 84, 326, 83, 235, 31, 38, 30, 31, 469]
#   Answer : _ 1 8 0 1   <|im_end|>
ANSWER, END = [354, 40, 235, 31, 38, 30, 31], [2]
TARGET = [*RELEVANCE, *EVIDENCE, *ANALYSIS, *ANSWER, *END]


def masked(count: int) -> list[int]:
    return [IGNORED] * count


def of_three(folder: Path) -> list[Stage]:
    """The stages of the shipped recipe."""
    return planned_stages(load_recipe("methods/self_reasoning").training, folder)


# which tokens


@pytest.mark.parametrize(
    ("stage", "labels"),
    [
        (0, [*RELEVANCE, *masked(27 + 13 + 7 + 1)]),
        (1, [*RELEVANCE, *EVIDENCE, *masked(13 + 7 + 1)]),
        (2, TARGET),
    ],
)
def test_a_stage_masks_what_it_does_not_train_token_by_token(tmp_path: Path, stage: int, labels: list[int]) -> None:
    tokens = encode_row(row(2, [0]), encoder(), of_three(tmp_path)[stage].spans)
    assert list(tokens.input_ids[-75:]) == TARGET  # read in every stage
    assert list(tokens.labels[-75:]) == labels
    assert set(tokens.labels[:-75]) == {IGNORED}


def test_the_end_of_the_turn_is_learned_in_the_last_stage_only(tmp_path: Path) -> None:
    one = encoder()
    trained = [encode_row(row(3, [1], []), one, stage.spans).labels.count(2) for stage in of_three(tmp_path)]
    assert trained == [0, 0, 2]  # once for each of two questions


def test_the_rules_know_the_spans_of_every_style() -> None:
    label = row(2, [0]).questions[0].label
    assert label is not None
    for style, written in WRITTEN.items():
        spans = render_target(label, PromptSettings(style=style))
        assert (*(span.name for span in spans), "end") == written


# which rows


def test_a_stage_shows_its_best_negatives_and_all_gold(tmp_path: Path) -> None:
    shown = tuple(passage(index) for index in range(5))
    one_gold = ContextRow("a", shown, (asked(0, [4], [3, None, 1, 2, 9]),))  # 1 was not retrieved at all
    three_gold = ContextRow("b", shown, (asked(0, [0, 1, 2], [1, 2, 3, 4, 5]),))
    write_records(tmp_path / "rows.parquet", ContextRow, [one_gold, three_gold])
    found = token_rows(tmp_path / "rows.parquet", encoder(), 4096, ("end",), Draw(passages=2))
    kept = [[p.id for p in one.passages] for one in found.rows if isinstance(one, ContextRow)]
    assert kept == [["p2", "p4"], ["p0", "p1", "p2"]]
    assert (found.counts["unshown_passages"], found.counts["rows_of_more_gold"]) == (3 + 2, 1)
    assert any("5 negatives were left out; 1 rows show more than asked for" in line for line in about_rows(found))
    for before, after in zip((one_gold, three_gold), found.rows, strict=True):
        assert isinstance(after, ContextRow)
        gold = [before.passages[index].id for index in before.questions[0].gold]
        assert [after.passages[index].id for index in after.questions[0].gold] == gold


def test_a_share_of_the_rows_depends_on_seed_and_id_and_holds_every_smaller_share() -> None:
    ids = [f"q{number}" for number in range(2000)]
    shares = {share: [one for one in ids if Draw(7, data_share=share).takes(one)] for share in (0.1, 0.3, 1.0)}
    assert len(shares[0.1]) == pytest.approx(200, abs=40)
    assert len(shares[0.3]) == pytest.approx(600, abs=62)
    assert shares[1.0] == ids
    assert set(shares[0.1]) < set(shares[0.3])
    assert shares[0.3] == [one for one in reversed(ids) if Draw(7, data_share=0.3).takes(one)][::-1]
    assert {one for one in ids if Draw(8, data_share=0.1).takes(one)} != set(shares[0.1])


def gradual_recipe(folder: Path, weights: Path, data: Path, style: str = "self_reasoning", **training: Any) -> Path:
    """The tiny recipe with stages, beside built data."""
    settings = tiny_settings(weights)
    model = {**settings["model"], "prompt": {"style": style}}
    return tiny_run(folder, weights, data, model=model, training={**settings["training"], **training})


def test_the_share_is_of_training_rows_and_validation_rows_are_all_watched(
    tiny_weights: Path, built_data: Path, tmp_path: Path
) -> None:
    stages = [{"name": "few", "data_share": 0.4, "passages": 1}, {"name": "all"}]
    recipe = load_recipe(gradual_recipe(tmp_path, tiny_weights, built_data, stages=stages))
    few, everything = planned_stages(recipe.training, tmp_path)
    file = built_data / "labels" / "train.parquet"
    one = encoder()
    drawn = stage_rows(recipe, few, file, one)
    assert 0 < len(drawn.tokens) < 12
    assert drawn.counts["rows"] + drawn.counts["undrawn_rows"] == 12
    assert len(watched_rows(recipe, few, file, one).tokens) == 12
    assert len(stage_rows(recipe, everything, file, one).tokens) == 12
    alone = [len(each.passages) for each in drawn.rows if isinstance(each, ContextRow)]
    assert len(alone) == len(drawn.rows)
    assert alone.count(1) + drawn.counts["rows_of_more_gold"] == len(alone)


def test_a_share_that_draws_nothing_says_so(tiny_weights: Path, built_data: Path, tmp_path: Path) -> None:
    stages = [{"name": "none", "data_share": 1e-6}, {"name": "all"}]
    recipe = load_recipe(gradual_recipe(tmp_path, tiny_weights, built_data, stages=stages))
    first = planned_stages(recipe.training, tmp_path)[0]
    with pytest.raises(RagFtError, match="stage none draws none of 12 rows with data_share=1e-06: raise data_share"):
        stage_rows(recipe, first, built_data / "labels" / "train.parquet", encoder())


# what a stage takes over


def gradual_run(folder: Path) -> Path:
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def uninterrupted(tiny_weights: Path, built_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("gradual")
    recipe = gradual_recipe(folder, tiny_weights, built_data, stages=GRADUAL, save_steps=4)
    assert main(["train", str(recipe)]) == 0
    return gradual_run(folder)


def curves(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    logs = {stage["name"]: read_metrics(run / "training" / stage["name"] / "metrics.jsonl") for stage in GRADUAL}
    return {
        name: [(log["step"], log["loss"], log["learning_rate"]) for log in rows if "loss" in log]
        for name, rows in logs.items()
    }


def test_each_stage_has_its_steps_learning_rate_and_checkpoints(uninterrupted: Path) -> None:
    for stage in GRADUAL:
        steps = curves(uninterrupted)[stage["name"]]
        assert [step for step, _, _ in steps] == list(range(1, 13))
        assert max(rate for _, _, rate in steps) == pytest.approx(stage["learning_rate"])
        assert (uninterrupted / "training" / stage["name"] / "checkpoints" / "checkpoint-12" / COMPLETE).is_file()
    summary = json.loads((uninterrupted / "training" / "summary.json").read_text())
    assert summary["steps"] == 36
    assert [stage["name"] for stage in summary["stages"]] == [stage["name"] for stage in GRADUAL]
    assert [stage["rows"] for stage in summary["stages"]] == [12, 12, 12]
    facts = training_facts(load_recipe(uninterrupted.parent.parent / "tiny.yaml"), RunFolder(uninterrupted))
    for stage in GRADUAL:
        found = facts[f"stage {stage['name']}"]
        assert found == {"learning rate": stage["learning_rate"], "contexts": 12, "questions": 12, "steps": 12}
    assert not {"learning rate", "contexts"} & facts.keys()
    assert (facts["steps"], facts["rows per step"]) == (36, 1)


def test_a_training_killed_in_its_second_stage_goes_on_there_and_ends_the_same(
    uninterrupted: Path, tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = gradual_recipe(tmp_path, tiny_weights, built_data, stages=GRADUAL, save_steps=4)
    run = gradual_run(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_ft", "train", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    )
    metrics = run / "training" / "evidence" / "metrics.jsonl"
    while process.poll() is None and len(read_metrics(metrics)) < 6:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    assert not (run / "training" / "evidence" / "summary.json").exists()
    code, out, err = run_verb("train", recipe)
    assert code == 0, err
    assert out.startswith("stage relevance: done\ntrain stage evidence\n")
    assert "going on from checkpoint-" in out
    assert curves(run) == curves(uninterrupted)
    one, two = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, uninterrupted))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def loss_of(model: Any, recipe: Path, stage: int) -> float:
    """The mean loss over the trained tokens of all rows of a stage, by transformers' own logits."""
    loaded = load_recipe(recipe)
    run = recipe.parent / "runs" / "tiny"
    planned = planned_stages(loaded.training, run / "training")[stage]
    total, count = 0.0, 0
    for each in read_context_rows(run / "data" / "labels" / "train.parquet"):
        tokens = encode_row(each, encoder(), planned.spans)
        labels = torch.tensor(tokens.labels[1:])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens.input_ids])).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        count += int((labels != IGNORED).sum())
    return total / count


def test_a_stage_begins_with_the_weights_of_the_one_before(
    tiny_weights: Path, built_data: Path, tmp_path: Path, tiny_llama: Any, run_verb: Verb
) -> None:
    from peft import PeftModel

    # a step is all rows, so that the loss of the first step is that of the weights it begins with
    told = {"stages": [*GRADUAL[:1], {**GRADUAL[1], "spans": [*GRADUAL[1]["spans"], "analysis", "answer", "end"]}]}
    told |= {"gradient_accumulation": 12, "max_steps": 2}
    recipe = gradual_recipe(tmp_path, tiny_weights, built_data, **told)
    code, _, err = run_verb("train", recipe)
    assert code == 0, err
    run = gradual_run(tmp_path)
    untrained = loss_of(tiny_llama, recipe, 1)
    after_first = PeftModel.from_pretrained(tiny_llama, str(run / "training" / "relevance" / "adapter")).eval()
    expected = loss_of(after_first, recipe, 1)
    first = read_metrics(run / "training" / "evidence" / "metrics.jsonl")[0]["loss"]
    assert first == pytest.approx(expected, rel=1e-4)
    assert abs(untrained - expected) > 100 * abs(first - expected)


# the optimizer


def descent(optimizer: Any, weight: Any, steps: int, first: int) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        ((weight * (step + 1)) ** 2).sum().backward()
        optimizer.step()


def stage_before(folder: Path) -> Stage:
    return Stage("before", folder, ("answer", "end"), 1e-2, 1.0, None)


def test_the_moments_carry_over_and_the_learning_rate_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    begin = torch.randn(3, 2)
    weight = torch.nn.Parameter(begin.clone())
    whole = torch.optim.AdamW([weight], lr=1e-2)
    descent(whole, weight, 3, 0)
    checkpoint = stage_before(tmp_path).checkpoints / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    torch.save(whole.state_dict(), checkpoint / "optimizer.pt")
    (checkpoint / COMPLETE).touch()
    fresh = torch.nn.Parameter(weight.detach().clone())
    new = torch.optim.AdamW([fresh], lr=1e-4, weight_decay=0.3)
    take_over(new, stage_before(tmp_path))
    assert new.param_groups[0]["lr"] == 1e-4
    whole.param_groups[0]["lr"], whole.param_groups[0]["weight_decay"] = 1e-4, 0.3  # by hand, in the old one
    descent(whole, weight, 2, 3)
    descent(new, fresh, 2, 3)
    assert torch.equal(weight, fresh)
    shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-5"))
    torch.save(whole.state_dict(), checkpoint.with_name("checkpoint-5") / "optimizer.pt")
    for kept in (3, 5):  # the best checkpoint is what the stage has left, not the last
        stage_before(tmp_path).summary.write_text(json.dumps({"kept_step": kept}))
        take_over(new, stage_before(tmp_path))
        assert {int(state["step"]) for state in new.state_dict()["state"].values()} == {kept}
    other = torch.nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(RagFtError, match=r"is of other trainable parameters .* Set keep_optimizer: false"):
        take_over(torch.optim.AdamW([other]), stage_before(tmp_path))
    with pytest.raises(RagFtError, match=r"optimizer\.pt does not exist"):
        take_over(new, stage_before(tmp_path / "elsewhere"))


@pytest.mark.parametrize("keep", [True, False])
def test_a_stage_keeps_the_optimizer_where_asked(
    tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb, keep: bool
) -> None:
    stages = [GRADUAL[0], {"name": "everything", "learning_rate": 1e-4, "keep_optimizer": keep}]
    told = {"stages": stages, "gradient_accumulation": 4}
    recipe = gradual_recipe(tmp_path, tiny_weights, built_data, **told)
    code, _, err = run_verb("train", recipe)
    assert code == 0, err
    training = gradual_run(tmp_path) / "training"
    saved = torch.load(training / "everything" / "checkpoints" / "checkpoint-3" / "optimizer.pt", weights_only=True)
    steps = {int(state["step"]) for state in saved["state"].values()}
    assert steps == {6 if keep else 3}  # three optimizer steps in each stage
    rates = [log["learning_rate"] for log in read_metrics(training / "everything" / "metrics.jsonl") if "loss" in log]
    assert max(rates) == pytest.approx(1e-4)


# inspect


def test_inspect_shows_what_a_stage_trains(
    tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = gradual_recipe(tmp_path, tiny_weights, built_data, stages=GRADUAL)
    counts = []
    for name in ("relevance", "evidence", "everything"):
        code, out, err = run_verb("inspect", recipe, "--stage", name)
        assert code == 0, err
        assert out.startswith(f"Stage {name}: relevance")
        counts.append(int(out.split(" carry loss, ")[0].rsplit(" ", 1)[1]))
    assert counts == sorted(set(counts))
    assert run_verb("inspect", recipe)[1] == out  # the last one
    code, _, err = run_verb("inspect", recipe, "--stage", "evidenc")
    assert (code, err) == (2, "error: --stage evidenc: the recipe has no such stage; did you mean evidence?\n")
    code, _, err = run_verb("inspect", recipe, "training.stages=[]", "--stage", "evidence")
    assert (code, "the recipe has no stages" in err) == (2, True)


def test_a_span_out_of_the_loss_has_no_background() -> None:
    from rag_ft.training.view import View, row_view

    text = row_view(row(2, [0]), View(encoder(), 4096, ("relevance",)))
    coloured = [text.plain[span.start : span.end] for span in text.spans if " on " in str(span.style)]
    assert coloured == ["Relevance:\n[1] yes: It is about Aldo.\n[2] no: It is about Bexa.\n"]
