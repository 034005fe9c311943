"""Training in several processes: named configurations, one voice, one interrupt, whole weights in the end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_model import tiny_run, tiny_settings

from data_builders.errors import RagFtError
from rag_ft.recipe.load import load_recipe
from rag_ft.runs import run_folder
from rag_ft.training.accelerate_configs import LaunchConfig, find_config, shipped_configs
from rag_ft.training.checkpoints import last_checkpoint, read_metrics
from rag_ft.training.devices import prepare_devices
from rag_ft.training.launch import launch_arguments, start_training
from rag_ft.training.ranks import speaks

NAMES = ("cpu", "ddp", "fsdp2", "fsdp2_qlora", "multi_node", "single", "zero2", "zero3")
HERE = Path(__file__).parent
Refused = Callable[..., str]


# the configurations


def test_the_configurations_are_found_by_name() -> None:
    assert tuple(shipped_configs()) == NAMES


def launch_options(name: str) -> Any:
    """Read a configuration as `accelerate launch` does: unknown keys at its top are fatal there."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    place = ["--main_process_ip", "10.0.0.1", "--machine_rank", "1", "--num_machines", "2"]
    options = ["--config_file", str(shipped_configs()[name]), *(place if name == "multi_node" else [])]
    count = [] if find_config(name).processes else ["--num_processes", "4"]
    return _validate_launch_command(launch_command_parser().parse_args([*options, *count, "-m", "rag_ft.train", "R"]))


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_takes_every_configuration_and_every_key_in_it(name: str) -> None:
    from accelerate.commands.launch import launch_command_parser

    told, config, _ = launch_options(name)
    known = set(vars(launch_command_parser().parse_args(["script"])))
    assert {*config.fsdp_config, *config.deepspeed_config} <= known
    assert told.mixed_precision == "no"  # the recipe says it
    assert told.num_processes == {"cpu": 2, "single": 1}.get(name, 4)


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_qlora"])
def test_fsdp_shards_fully_and_writes_shares_of_checkpoints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    for key, value in prepare_multi_gpu_env(launch_options(name)[0]).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.activation_checkpointing) == (2, True, False)
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert plugin.auto_wrap_policy.__name__ == "transformer_auto_wrap_policy"
    assert plugin.cpu_ram_efficient_loading == (name == "fsdp2")


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_takes_batch_and_clipping_from_the_recipe(name: str, stage: int) -> None:
    deepspeed = launch_options(name)[1].deepspeed_config
    assert deepspeed["zero_stage"] == stage
    assert deepspeed["gradient_accumulation_steps"] == deepspeed["gradient_clipping"] == "auto"


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_says_when_to_use_it_and_how(name: str) -> None:
    text = shipped_configs()[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"rag-ft train RECIPE --accelerate {name}\n" in text


# the command line


def test_an_unknown_name_is_answered_with_the_nearest(tiny_weights: Path, tmp_path: Path, refused: Refused) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**tiny_settings(tiny_weights), "runs_dir": str(tmp_path / "runs")}))
    assert "did you mean fsdp2?" in refused("train", recipe, "--accelerate", "fspd2")
    assert "valid here: cpu, ddp" in refused("train", recipe, "--accelerate", "horovod")


def test_a_file_that_configures_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("num_processes: 2\n")
    with pytest.raises(RagFtError, match="no distributed_type in it"):
        find_config(str(path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpus_that_are_not_there_are_missed_before_anything_starts() -> None:
    with pytest.raises(RagFtError, match=r"trains on GPUs and this machine shows none\. Take --accelerate cpu"):
        launch_arguments(find_config("ddp"))


def test_several_machines_are_told_apart_by_the_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LaunchConfig(Path("two.yaml"), processes=16, machines=2, on_cpu=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(RagFtError, match="MASTER_ADDR is not set"):
        launch_arguments(config)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    place = ["--main_process_ip", "10.0.0.1", "--machine_rank", "1"]
    assert launch_arguments(config) == ["--config_file", "two.yaml", *place]


def test_a_launcher_is_not_started_by_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RagFtError, match="started by a launcher already"):
        launch_arguments(find_config("cpu"))


def test_several_processes_do_not_each_begin_a_run_anew(
    tiny_weights: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**tiny_settings(tiny_weights), "runs_dir": str(tmp_path / "runs")}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--restart: several processes cannot each begin the run anew" in refused("train", recipe, "--restart")


# what several devices change


@pytest.mark.parametrize(
    ("variables", "kind", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "nf4", "ZeRO-3 cannot share"),
        ({"ACCELERATE_USE_FSDP": "true"}, "int8", "FSDP cannot share 8-bit weights out"),
    ],
)
def test_weights_that_cannot_be_shared_out_are_refused(
    variables: dict[str, str], kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("quickstart", [f"model.quantisation.kind={kind}"])
    prepare_devices(recipe)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RagFtError, match=message):
        prepare_devices(recipe)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "no"), ("bfloat16", "bf16"), ("float16", "fp16")])
def test_the_recipe_decides_the_precision_whatever_the_configuration_says(
    dtype: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if precision != "bf16" else "no")
    prepare_devices(load_recipe("quickstart", [f"model.dtype={dtype}"]))
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == precision


def test_the_first_process_that_ends_speaks_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    answers = []
    for rank in ("1", "0", "1"):
        (tmp_path / rank).mkdir(exist_ok=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / rank / "error.json"))
        answers.append(speaks())
    assert answers == [True, False, False]


def test_a_share_of_the_adapter_is_not_taken_for_all_of_it(tiny_llama: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from rag_ft.models.adapters import save_checked

    model = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    whole = {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}
    halves = {name: tensor[: len(tensor) // 2].clone() for name, tensor in whole.items()}
    with pytest.raises(RagFtError, match="is incomplete: 28 of 28 tensors"):
        save_checked(model, tmp_path / "adapter", lambda folder: None, halves)
    assert list(tmp_path.iterdir()) == []
    save_checked(model, tmp_path / "adapter", lambda folder: None, whole)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


# real processes


@pytest.fixture(scope="module")
def make_run(tiny_weights: Path, built_data: Path) -> Callable[..., Path]:
    """Return a function that writes the tiny recipe beside its built data."""

    def make(folder: Path, **training: Any) -> Path:
        told = {**tiny_settings(tiny_weights)["training"], **training}
        return tiny_run(folder, tiny_weights, built_data, training=told)

    return make


@pytest.fixture(scope="module")
def alone(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process with twice the accumulation."""
    from rag_ft.cli import main

    recipe = make_run(tmp_path_factory.mktemp("alone"), epochs=3, gradient_accumulation=2)
    assert main(["train", str(recipe)]) == 0
    return recipe.parent / "runs" / "tiny"


def start(*command: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def ended(*command: object) -> tuple[int, str]:
    process = start(*command)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def curve(run: Path) -> list[tuple[float, ...]]:
    rows = [row for row in read_metrics(run / "training" / "metrics.jsonl") if "loss" in row]
    return [(row["step"], row["loss"], row["learning_rate"], row["num_tokens"]) for row in rows]


def same_as_alone(run: Path, alone: Path) -> None:
    assert len(curve(run)) == len(curve(alone)) == 18
    for here, there in zip(curve(run), curve(alone), strict=True):
        assert here[:3] == pytest.approx(there[:3], rel=1e-4)
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, alone))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=1e-3, atol=1e-4 * float(other[name].abs().max())), name


def logits(weights: Path, run: Path) -> torch.Tensor:
    """Return what the base weights with a run's adapter say to a few tokens."""
    from transformers import AutoModelForCausalLM

    from rag_ft.models.load import load_adapter

    model = load_adapter(AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32), run / "adapter")
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def spread(kind: str, folder: Path) -> Sequence[object]:
    """Return the command that trains a recipe in two processes in one of the ways."""
    if kind == "cpu":
        return ("-m", "rag_ft", "train", "{recipe}", "--accelerate", "cpu")
    config = yaml.safe_load(shipped_configs()[kind].read_text(encoding="utf-8"))
    config |= {"use_cpu": True, "num_processes": 2}
    if kind == "zero3":
        # As the shipped one, but tensors of any size are shared out: those of the tiny model are all small.
        zero = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
        sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        told = {**dict.fromkeys((*sizes, "gradient_clipping"), "auto"), "zero_optimization": zero}
        (folder / "zero3.json").write_text(json.dumps(told))
        file = {"deepspeed_config_file": str(folder / "zero3.json"), "zero3_init_flag": False}
        config["deepspeed_config"] = file
    (folder / "launch.yaml").write_text(yaml.safe_dump(config))
    if kind == "zero3":
        return ("-m", "rag_ft", "train", "{recipe}", "--accelerate", folder / "launch.yaml")
    options = ("--config_file", folder / "launch.yaml", "--main_process_port", "0")
    return ("-m", "accelerate.commands.launch", *options, HERE / "fsdp_on_cpu.py", "{recipe}")


def skip_without(kind: str) -> None:
    if kind == "zero3" and not (
        importlib.util.find_spec("deepspeed") and shutil.which("g++") and shutil.which("ninja")
    ):
        pytest.skip("needs deepspeed and a compiler with ninja for its operations on CPUs")


@pytest.mark.parametrize("kind", ["cpu", "fsdp2", "zero3"])
def test_two_processes_interrupted_and_resumed_train_what_one_does(
    make_run: Callable[..., Path], alone: Path, tiny_weights: Path, tmp_path: Path, kind: str
) -> None:
    skip_without(kind)
    recipe, run = make_run(tmp_path, epochs=3, save_steps=50), tmp_path / "runs" / "tiny"
    command = [recipe if part == "{recipe}" else part for part in spread(kind, tmp_path)]
    process = start(*command)
    metrics = run / "training" / "metrics.jsonl"
    while process.poll() is None and len(read_metrics(metrics)) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == (130 if kind != "fsdp2" else 1), output  # plain accelerate has codes of its own
    assert output.count("interrupted: the same command goes on where this one stopped.") == 1
    saved = last_checkpoint(run / "training" / "checkpoints")
    assert saved is not None, output
    assert saved.name == f"checkpoint-{curve(run)[-1][0]}"
    code, output = ended(*command)
    assert code == 0, output
    assert output.count(f"going on from {saved.name}") == 1
    assert output.count("read back from disk") == 1
    same_as_alone(run, alone)
    assert torch.allclose(logits(tiny_weights, run), logits(tiny_weights, alone), atol=1e-3)


@pytest.mark.parametrize("kind", ["fsdp2", "zero3"])
def test_joined_rows_are_trained_in_stages_where_weights_are_shared_out(
    tiny_weights: Path, built_data: Path, tmp_path: Path, kind: str
) -> None:
    skip_without(kind)
    stages = [{"name": "one", "spans": ["answer"]}, {"name": "two", "spans": ["answer", "end"]}]
    told = {"batching": "padding_free", "batch_size": 2, "max_steps": 2, "stages": stages}
    training = {**tiny_settings(tiny_weights)["training"], **told}
    model = {"weights": str(tiny_weights), "dtype": "bfloat16", "tuning": "full"}
    recipe = tiny_run(tmp_path, tiny_weights, built_data, training=training, model=model)
    code, output = ended(*(recipe if part == "{recipe}" else part for part in spread(kind, tmp_path)))
    assert code == 0, output
    assert output.count("read back from disk") == 2


@pytest.mark.parametrize("name", ["cpu", "single"])
def test_a_mistake_that_all_processes_see_is_said_once(
    make_run: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    recipe = make_run(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "tiny" / "data")
    code, output = ended("-m", "rag_ft", "train", recipe, "--accelerate", name)
    assert code == 2, output
    assert output.count("error: ") == 1
    assert "rag-ft build" in output
    assert "Traceback" not in output


def test_a_mistake_in_one_process_ends_all_and_is_said_once(make_run: Callable[..., Path], tmp_path: Path) -> None:
    recipe = make_run(tmp_path)
    launcher = ("-m", "rag_ft.training.elastic", "--config_file", shipped_configs()["cpu"], "--main_process_port", "0")
    code, output = ended(*launcher, HERE / "one_bad_process.py", recipe)
    assert code == 2, output
    assert output.count("error: ") == 1
    assert "cannot be read. Mount the disk." in output
    assert "Traceback" not in output


def test_batches_that_do_not_come_out_even_hang_nothing(
    make_run: Callable[..., Path], tmp_path: Path, run_verb: Callable[..., tuple[int, str, str]]
) -> None:
    # 12 rows: a step of 10, and one of 2 for two processes.
    whole = make_run(tmp_path / "one", batch_size=10)
    assert run_verb("train", whole)[0] == 0
    halves = make_run(tmp_path / "two", batch_size=5)
    code, output = ended("-m", "rag_ft", "train", halves, "--accelerate", "cpu")
    assert code == 0, output
    one, two = (curve(tmp_path / name / "runs" / "tiny") for name in ("one", "two"))
    assert len(one) == 2
    assert [row[1] for row in two] == pytest.approx([row[1] for row in one], rel=1e-4)


def test_unsloth_trains_in_a_process_of_its_own_where_this_one_goes_on(
    trained_run: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tiny_model import copied_run

    training = {**tiny_settings(tiny_weights)["training"], "backend": "unsloth"}
    recipe = copied_run(tmp_path, tiny_weights, trained_run, training=training)
    loaded, lines = load_recipe(str(recipe)), list[str]()
    folder = run_folder(loaded)
    (folder.root / "recipe.resolved.yaml").write_text(yaml.safe_dump(loaded.model_dump(mode="json")))
    assert start_training([str(recipe)], loaded, folder, lines.append, goes_on=True) == 0
    assert lines == []  # nothing was done here
    assert "train: unchanged" in capfd.readouterr().out
