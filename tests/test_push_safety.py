"""What never leaves the machine: files that are not on the list, secrets, local paths, weights that are pickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_push_server import TOKEN, Hub, used_by_client
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import copied_run

from rag_ft.export.push_files import PushFile, with_hub_base
from rag_ft.export.push_scan import Places, known_secrets

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
KEYS = {  # made up, in the shape of real ones
    "hub": "hf_" + "aB3" * 11,
    "openai": "sk-" + "proj-a1B2" * 5,
    "aws": "AKIA" + "Z2Y3" * 4,
    "aws secret": "aws_secret_access_key = " + "aB/1" * 10,
    "github": "ghp_" + "aB3" * 12,
    "private": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "slack": "xoxb-" + "123456789012",
    "google": "AIza" + "aB3-_" * 7,
    "address": "https://someone:passw0rd@host.example/v1",
}


@pytest.fixture
def recipe(tiny_weights: Path, trained_run: Path, tmp_path: Path) -> Path:
    return copied_run(tmp_path, tiny_weights, trained_run, export={"licence": "mit"})


@pytest.fixture
def adapter(recipe: Path) -> Path:
    return recipe.parent / "runs/tiny/adapter"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used_by_client(Hub(), monkeypatch) as served:
        yield served


def test_only_files_on_the_list_are_sent(hub: Hub, recipe: Path, adapter: Path, run_verb: Verb) -> None:
    for name in ("optimizer.pt", "training_args.bin", "pytorch_model.bin", ".env", "id_rsa", "notes.txt", "rng.pth"):
        (adapter / name).write_bytes(b"x")
    (adapter / "checkpoint-2").mkdir()
    (adapter / "checkpoint-2/optimizer.pt").write_bytes(b"x")
    (adapter / ".cache").mkdir()
    code, out, err = run_verb("push", recipe, "--repo", "me/tiny")
    assert code == 0, out + err
    sent = {name for name in hub.files("me/tiny") if not name.startswith("manifests/")}
    assert sent - {".gitattributes"} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "prompt.json",
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "stays here: .cache/, .env, checkpoint-2/, id_rsa, notes.txt, optimizer.pt" in out


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_a_text_with_a_key_is_refused_by_file_and_line_and_the_key_is_not_repeated(
    hub: Hub, recipe: Path, adapter: Path, refused: Refused, key: str
) -> None:
    (adapter / "chat_template.jinja").write_text("{# one #}\n{# two #}\n{# " + key + " #}\n")
    told = refused("push", recipe, "--repo", "me/tiny")
    assert "chat_template.jinja, line 3: " in told
    assert key not in told
    assert hub.asked == []


def test_every_file_with_a_key_is_named_and_a_dry_run_finds_them_too(
    recipe: Path, adapter: Path, run_verb: Verb
) -> None:
    (adapter / "chat_template.jinja").write_text(KEYS["hub"])
    (adapter / "Modelfile").write_text(f"\n{KEYS['aws']}")
    code, out, err = run_verb("push", recipe, "--repo", "me/tiny", "--dry-run")
    assert code == 2
    assert "Modelfile, line 2" in err
    assert "refused too: chat_template.jinja, line 1" in out


def test_the_value_of_a_variable_that_the_recipe_names_is_found_wherever_it_stands(
    tiny_weights: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setenv("OUR_SERVER_KEY", "correct horse battery")
    served = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key_env": "OUR_SERVER_KEY"}
    systems = [{"name": "correct horse battery", "endpoint": served}]
    recipe = copied_run(tmp_path, tiny_weights, trained_run, evaluation={"passages": [1], "systems": systems})
    told = refused("push", recipe, "--repo", "me/tiny", "--dry-run")
    assert "the value of OUR_SERVER_KEY" in told
    assert "recipe.yaml, line " in told
    assert "correct horse" not in told


def test_a_stand_in_for_a_key_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert list(known_secrets([]).found("EMPTY")) == []


def test_a_key_in_the_header_of_the_weights_is_found(hub: Hub, recipe: Path, adapter: Path, refused: Refused) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, adapter / "adapter_model.safetensors", metadata={"note": KEYS["hub"]})
    assert "adapter_model.safetensors, line 1" in refused("push", recipe, "--repo", "me/tiny")
    assert hub.asked == []


def test_what_models_are_made_of_is_no_secret(tiny_weights: Path) -> None:
    for path in tiny_weights.glob("*.json"):
        assert list(known_secrets([]).found(path.read_text())) == [], path


@given(st.text())
def test_no_secret_survives_being_hidden(around: str) -> None:
    secrets = known_secrets([], TOKEN)
    assert TOKEN not in secrets.hidden(f"{around} {TOKEN} {around}")


def test_a_pickle_under_the_name_of_weights_is_refused(hub: Hub, recipe: Path, adapter: Path, refused: Refused) -> None:
    import torch

    torch.save({"a": torch.ones(2)}, adapter / "adapter_model.safetensors")
    assert "is no whole safetensors file" in refused("push", recipe, "--repo", "me/tiny")
    assert hub.asked == []


def test_weights_cut_short_are_refused(recipe: Path, adapter: Path, refused: Refused) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "is no whole safetensors file" in refused("push", recipe, "--repo", "me/tiny", "--dry-run")


def test_a_folder_without_safetensors_is_refused(recipe: Path, adapter: Path, refused: Refused) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "no weights as .safetensors or .gguf" in refused("push", recipe, "--repo", "me/tiny", "--dry-run")


def test_a_link_is_not_followed(recipe: Path, adapter: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("private")
    (adapter / "vocab.json").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused("push", recipe, "--repo", "me/tiny", "--dry-run")


def test_a_file_larger_than_the_hub_takes_is_refused(recipe: Path, adapter: Path, refused: Refused) -> None:
    with (adapter / "model.safetensors").open("wb") as stream:
        os.truncate(stream.fileno(), 50_000_000_001)  # takes no room on the disk
    assert "up to 50.0 GB" in refused("push", recipe, "--repo", "me/tiny", "--dry-run")


def test_a_text_that_names_a_folder_of_this_machine_is_refused(
    recipe: Path, adapter: Path, refused: Refused, tmp_path: Path
) -> None:
    (adapter / "Modelfile").write_text(f"FROM x\nADAPTER {tmp_path}/adapter\n")
    told = refused("push", recipe, "--repo", "me/tiny", "--dry-run")
    assert "Modelfile, line 2: the name of a folder of this machine" in told


def test_a_text_is_sent_as_it_was_when_it_was_searched(adapter: Path) -> None:
    from rag_ft.export.push_files import folder_files

    gathered = folder_files(adapter, "rag-ft train RECIPE")
    before = (adapter / "chat_template.jinja").read_bytes()
    (adapter / "chat_template.jinja").write_text(KEYS["hub"])
    [template] = [file for file in gathered.files if file.path == "chat_template.jinja"]
    assert template.content == before


def test_another_recipe_than_the_run_s_is_refused(recipe: Path, refused: Refused) -> None:
    told = refused("push", recipe, "training.epochs=7", "--repo", "me/tiny", "--dry-run")
    assert "training.epochs was 1.0, now 7.0" in told


def test_a_run_that_is_not_there_is_told_how_to_make_one(recipe: Path, adapter: Path, refused: Refused) -> None:
    assert "rag-ft run RECIPE" in refused("push", recipe, "name=other", "--repo", "me/tiny")
    adapter.rename(adapter.with_name("gone"))
    assert "`rag-ft train RECIPE`" in refused("push", recipe, "--repo", "me/tiny")
    assert "`rag-ft export RECIPE gguf`" in refused("push", recipe, "--repo", "me/tiny", "--what", "gguf")
    assert "Write one of these" in refused("push", recipe, "--repo", "me/tiny", "--what", "all")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/data/mine/rows.jsonl", "./rows.jsonl"),
        ("~/rows.jsonl", "./rows.jsonl"),
        ("C:\\Users\\me\\rows.jsonl", "./rows.jsonl"),
        ("file:///data/mine/rows.jsonl", "./rows.jsonl"),
        ("rag-ft run /data/mine/r.yaml --limit 3", "rag-ft run ./r.yaml --limit 3"),
        ("see /home/someone/x and /Users/else/y", "see ./x and ./y"),
        ("org/model", "org/model"),
        ("/no_think", "/no_think"),
        ("https://host.example/data/mine/x", "https://host.example/data/mine/x"),
        ("either/or", "either/or"),
        (7, 7),
        (None, None),
    ],
)
def test_local_paths_are_cut_down_to_their_last_part(given: object, expected: object) -> None:
    places = Places(("/data/mine",))
    assert places.without(given) == expected
    assert places.without({"a": [given]}) == {"a": [expected]}


def test_the_base_is_named_as_others_can_find_it() -> None:
    told = {"base_model_name_or_path": "/data/mine/cache/converted", "revision": None, "r": 4}
    file = PushFile("adapter_config.json", json.dumps(told).encode())
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    [known] = with_hub_base([file], name, "abc", Places(()))
    assert json.loads(known.read()) == {"base_model_name_or_path": name, "revision": "abc", "r": 4}
    [unknown] = with_hub_base([file], None, None, Places(("/data/mine",)))
    assert json.loads(unknown.read())["base_model_name_or_path"] == "./converted"


def test_two_paths_of_one_name_stay_two() -> None:
    found = Places(("/data",)).without({"/data/a/rows": 1, "/data/b/rows": 2})
    assert found == {"./rows": 1, "./rows (2)": 2}
    assert json.loads(json.dumps(found)) == found
