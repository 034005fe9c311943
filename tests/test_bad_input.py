"""Wrong input and damaged surroundings: one clear message, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_model import contents, copied_run, leftovers, tiny_recipe, tiny_run, tiny_settings

from data_builders.errors import RagFtError
from data_builders.paths import data_paths
from data_builders.tables import read_context_rows

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
VERBS_WITH_RECIPE = ("check", "build", "inspect", "train", "evaluate", "report", "run")


# recipes


BAD_RECIPES = {
    "empty": ("", ["name: "]),
    "only a comment": ("# nothing here\n", ["name: "]),
    "not YAML": ("name: [x\nseed: }", ["bad.yaml:2"]),
    "a list": ("- name: x\n", ["bad.yaml:1"]),
    "a sentence": ("please train a model", ["bad.yaml:1"]),
    "binary": ("\x00\x01", ["bad.yaml"]),
    "unknown keys": ("name: x\ntrainig: {epochs: 2}\nmodel: {wieghts: y}\n", ["trainig", "training", "wieghts"]),
    "wrong types": (
        "name: x\nseed: many\ntraining: {epochs: [1], batch_size: 1.5}\n",
        ["seed", "epochs", "batch_size"],
    ),
    "wrong values": ("name: x\ntraining: {epochs: -1}\nmodel: {dtype: float8}\n", ["training.epochs", "model.dtype"]),
    "a name that is a path": ("name: ../x\n", ["name: "]),
    "contradictory settings": (
        "name: x\nmodel: {prompt: {question_position: before}}\ndata: {contexts: {questions_per_context: 4}}\n",
        ["question_position", "data.contexts.questions_per_context"],
    ),
    "a trainer field of the recipe": (
        "name: x\ntraining: {trainer: {learning_rate: 0.1, packing: true, warmup_step: 3}}\n",
        ["training.learning_rate", "packing", "warmup_steps"],
    ),
    "more passages than are kept": ("name: x\ndata: {depth: 5}\nevaluation: {passages: [1, 10]}\n", ["data.depth"]),
    "a circle": ("extends: bad.yaml\nname: x\n", ["extends"]),
    "a base that is not there": ("extends: nowhere.yaml\nname: x\n", ["nowhere.yaml"]),
    "a program": ("name: !!python/object/apply:os.system ['touch owned']\n", ["bad.yaml:1"]),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_bad_recipe_is_refused_by_line_and_key(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text, words = BAD_RECIPES[case]
    Path("bad.yaml").write_text(text)
    for verb in ("check", "run"):
        message = refused(verb, "bad.yaml")
        assert all(word in message for word in words), message
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("verb", VERBS_WITH_RECIPE)
def test_every_verb_refuses_a_missing_recipe_and_unknown_overrides(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("name: x\n")
    assert 'there is no recipe "god.yaml". Did you mean good.yaml?' in refused(verb, "god.yaml")
    assert "is a folder" in refused(verb, str(tmp_path))
    assert "did you mean training.epochs" in refused(verb, "good.yaml", "training.epoch=2")
    assert "training.epochs" in refused(verb, "good.yaml", "training.epochs=two")
    assert "write key.path=value" in refused(verb, "good.yaml", "training.epochs")
    assert [path.name for path in tmp_path.iterdir()] == ["good.yaml"]


# models


@pytest.mark.parametrize("verb", ["train", "evaluate", "inspect", "run"])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("some-organisation/some-model", "HF_HUB_OFFLINE is set"),
        ("package:no_such_package", "no package no_such_package is installed"),
        ("./no/such/folder", "no such folder"),
        ("no_such.gguf", "no such file"),
    ],
)
def test_weights_that_do_not_exist_are_named(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path, verb: str, weights: str, message: str
) -> None:
    recipe = tiny_run(tmp_path, tiny_weights, built_data)
    before = contents(tmp_path / "runs" / "tiny" / "data")
    error = refused(verb, recipe, f"model.weights={weights}")
    assert f"model.weights={weights}: " in error
    assert message in error
    run = tmp_path / "runs" / "tiny"
    assert contents(run / "data") == before
    assert not any((run / part).exists() for part in ("training", "adapter", "evaluation", "report"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_weights_that_are_cut_short_are_named(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path, file: str
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    path = weights / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    recipe = tiny_run(tmp_path / "work", weights, built_data)
    assert f"model.weights={weights}: " in refused("train", recipe)
    assert not (tmp_path / "work" / "runs" / "tiny" / "adapter").exists()


def test_a_model_without_chat_template_is_refused(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    (weights / "chat_template.jinja").unlink()
    assert "has no chat template" in refused("train", tiny_run(tmp_path / "work", weights, built_data))


# data that is gone or damaged


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    """Overwrite the middle: the footer still reads, the rows do not."""
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 3] = bytes(b ^ 0xFF for b in whole[4 : len(whole) // 3])
    path.write_bytes(bytes(whole))


DAMAGE = {
    "deleted": Path.unlink,
    "cut short": cut,
    "scrambled": scramble,
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("verb", "file"),
    [
        ("train", "labels/train.parquet"),
        ("inspect", "labels/train.parquet"),
        ("evaluate", "pools/test.parquet"),
        ("evaluate", "clean/questions-test.arrow"),
    ],
)
def test_damaged_data_name_the_file_and_the_command_that_builds_it(
    refused: Refused, tiny_weights: Path, trained_run: Path, tmp_path: Path, verb: str, file: str, damage: str
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    run = tmp_path / "runs" / "tiny"
    if verb == "train":
        shutil.rmtree(run / "adapter")
    path = run / "data" / file
    DAMAGE[damage](path)
    message = refused(verb, recipe)
    assert f"{path.parent.name} ({path.name} " in message
    assert str(run / "data") in message
    assert "rag-ft build" in message
    assert not (run / "evaluation" / "scores.json").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_reader_of_damaged_rows_names_the_file(built_data: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.parquet"
    shutil.copyfile(data_paths(built_data).labels["train"], path)
    assert len(list(read_context_rows(path))) == 12
    DAMAGE[damage](path)
    with pytest.raises(RagFtError, match="cannot read") as caught:
        list(read_context_rows(path))
    assert str(path) in str(caught.value)
    assert "rag-ft build" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", ["train", "evaluate", "inspect"])
def test_data_of_other_settings_are_refused(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path, verb: str
) -> None:
    recipe = tiny_run(tmp_path, tiny_weights, built_data)
    untrained = "evaluation.systems=[{name: base, weights: base}]"
    assert "retrieval/bm25 (settings changed: depth)" in refused(verb, recipe, "data.depth=7", untrained)
    assert not any((tmp_path / "runs" / "tiny" / part).exists() for part in ("training", "evaluation"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "file",
    ["source/passages.parquet", "clean/passages-train.arrow", "pools/train.arrow", "labels/train.parquet"],
)
def test_build_mends_damaged_data_to_the_same_bytes(
    run_verb: Verb, tiny_weights: Path, built_data: Path, tmp_path: Path, file: str, damage: str
) -> None:
    recipe = tiny_run(tmp_path, tiny_weights, built_data)
    data = tmp_path / "runs" / "tiny" / "data"
    before = {name: digest for name, digest in contents(data).items() if name.endswith((".parquet", ".arrow"))}
    DAMAGE[damage](data / file)
    code, out, err = run_verb("build", recipe)
    assert (code, err) == (0, "")
    assert f"{file.partition('/')[0]}: building ({Path(file).name} " in out
    assert {name: digest for name, digest in contents(data).items() if name.endswith((".parquet", ".arrow"))} == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("verb", ["inspect", "train"])
def test_data_of_another_recipe_are_not_taken_for_this_one(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path, verb: str
) -> None:
    recipe = tiny_run(tmp_path, tiny_weights, built_data)
    message = refused(verb, recipe, "data.contexts.order=retrieved")
    assert "contexts (settings changed: contexts)" in message
    assert "rag-ft build" in message


@pytest.mark.parametrize("verb", ["inspect", "train", "evaluate", "report"])
def test_a_verb_before_its_time_names_the_one_that_comes_first(
    refused: Refused, tiny_weights: Path, tmp_path: Path, verb: str
) -> None:
    message = refused(verb, tiny_recipe(tmp_path, tiny_weights))
    first = {"report": "rag-ft evaluate", "evaluate": "rag-ft train"}.get(verb, "rag-ft build")
    assert first in message


def test_a_tuned_system_without_adapter_names_the_command_that_trains_it(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path
) -> None:
    recipe = tiny_run(
        tmp_path,
        tiny_weights,
        built_data,
        evaluation={**tiny_settings(tiny_weights)["evaluation"], "systems": [{"name": "tuned", "weights": "tuned"}]},
    )
    message = refused("evaluate", recipe)
    assert "rag-ft train" in message
    assert "allow_prompt_mismatch" not in message  # there is no prompt to mismatch


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter/adapter_model.safetensors", "rag-ft train"),
        ("adapter/adapter_config.json", "train again"),
        ("adapter/prompt.json", "is missing or damaged"),
    ],
)
def test_a_damaged_adapter_is_named(
    refused: Refused, tiny_weights: Path, trained_run: Path, tmp_path: Path, file: str, message: str
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    cut(tmp_path / "runs" / "tiny" / file)
    found = refused("evaluate", recipe)
    assert str(tmp_path / "runs" / "tiny" / "adapter") in found
    assert message in found.replace("Train", "train")


def test_damaged_predictions_and_scores_name_file_and_command(
    refused: Refused, run_verb: Verb, tiny_weights: Path, trained_run: Path, tmp_path: Path
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    evaluation = tmp_path / "runs" / "tiny" / "evaluation"
    assert run_verb("evaluate", recipe)[0] == 0
    (path,) = evaluation.glob("predictions/base-*.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]) + "\n")
    message = refused("evaluate", recipe)
    assert f"line 3 of {path}" in message
    assert "rag-ft evaluate RECIPE --restart" in message
    assert run_verb("evaluate", recipe, "--restart")[0] == 0
    (evaluation / "scores.json").write_text("{")
    message = refused("report", recipe)
    assert "scores.json is damaged" in message
    assert "rag-ft evaluate" in message


# run folders of another recipe


@pytest.mark.parametrize("verb", ["build", "train", "evaluate", "report", "run"])
def test_a_run_folder_of_another_recipe_is_left_alone(
    refused: Refused, tiny_weights: Path, trained_run: Path, tmp_path: Path, verb: str
) -> None:
    recipe = copied_run(tmp_path, tiny_weights, trained_run)
    before = contents(tmp_path)
    message = refused(verb, recipe, "seed=4", "model.prompt.style=reasoning")
    assert "model.prompt.style was 'answer', now 'reasoning'" in message
    assert "seed was 3, now 4" in message
    assert "name=NAME" in message
    assert contents(tmp_path) == before


def test_a_file_that_is_no_gguf_is_refused(
    refused: Refused, tiny_weights: Path, built_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not a model at all")
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))
    recipe = tiny_run(tmp_path / "work", tiny_weights, built_data)
    assert f"model.weights={tmp_path}/model.gguf: " in refused("train", recipe, f"model.weights={tmp_path}/model.gguf")


# through the shell


def test_the_command_itself_prints_one_message_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "x", "sed": 1}))
    for command in (["rag_ft", "run"], ["rag_ft.train"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, "bad.yaml"], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert "bad.yaml:2: sed: " in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_an_interrupted_build_leaves_no_temporary_file_and_is_done_by_the_same_command(
    tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    settings = tiny_settings(tiny_weights)
    settings["data"]["sources"]["world"]["questions"]["train"] = 20_000  # long enough to be caught in the act
    recipe = tiny_recipe(tmp_path, tiny_weights, data=settings["data"])
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_ft", "build", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background of a shell script ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("source: building")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "interrupted: the same command goes on where this one stopped.\n"
    assert leftovers(tmp_path) == []
    code, out, _ = run_verb("build", recipe, "data.sources.world.questions.train=24")
    assert code == 0
    assert "source: building" in out
    manifest = json.loads((tmp_path / "runs" / "tiny" / "data" / "clean" / "manifest.json").read_text())
    assert manifest["outputs"]["questions-train.arrow"]["rows"] == 24
