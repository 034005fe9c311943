"""Weights and templates from a Hub: one commit for all files, recorded, and loaded again though the branch moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from hub_server import Hub, serving
from tiny_model import tiny_run, tiny_settings, tiny_tokenizer, write_weights

OLD, NEW, CHAT_OLD, CHAT_NEW = "a" * 40, "b" * 40, "c" * 40, "d" * 40
STEPS = "training.max_steps=2"


def verb(hub: Hub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Call rag-ft in a process of its own that knows no other Hub."""
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    variables = {name: value for name, value in variables.items() if name.lower() not in ("http_proxy", "https_proxy")}
    command = [sys.executable, "-m", "rag_ft", *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def chat_model(folder: Path, template: str) -> Path:
    tiny_tokenizer(template).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def test_a_branch_that_moves_after_training_does_not_change_what_is_evaluated(built_data: Path, tmp_path: Path) -> None:
    weights = {OLD: write_weights(tmp_path / "old"), NEW: write_weights(tmp_path / "new", seed=1)}
    chats = {CHAT_OLD: chat_model(tmp_path / "c1", "llama3"), CHAT_NEW: chat_model(tmp_path / "c2", "mistral")}
    hub = Hub({"org/base": weights, "org/chat": chats}, {"org/base": OLD, "org/chat": CHAT_OLD})
    changed = {**tiny_settings(Path("x"))["model"], "weights": "org/base", "chat_template": "org/chat"}
    recipe = tiny_run(tmp_path / "run", Path("org/base"), built_data, model=changed)
    run = tmp_path / "run/runs/tiny"
    with serving(hub):
        done = verb(hub, tmp_path / "home", "train", recipe, STEPS)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((run / "training/summary.json").read_text())
        assert (summary["revision"], summary["chat_template_revision"]) == (OLD, CHAT_OLD)
        assert summary["weights_identity"] == f"org/base@{OLD}"
        note = json.loads((run / "adapter/prompt.json").read_text())["model"]
        assert (note["weights"], note["revision"], note["identity"]) == ("org/base", OLD, f"org/base@{OLD}")
        assert json.loads((run / "adapter/adapter_config.json").read_text())["revision"] == OLD
        files = [line for line in hub.asked if "/resolve/" in line]
        assert files
        # PEFT asks whether there is a config.json, of no commit, and reads nothing
        files = [line for line in files if line != "HEAD /org/base/resolve/main/config.json"]
        assert [line for line in files if f"/resolve/{OLD}/" not in line and f"/resolve/{CHAT_OLD}/" not in line] == []

        hub.main.update({"org/base": NEW, "org/chat": CHAT_NEW})
        hub.asked.clear()
        done = verb(hub, tmp_path / "another home", "evaluate", recipe, STEPS, "--limit", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        asked = " ".join(hub.asked)
        assert f"/org/base/resolve/{OLD}/model.safetensors" in asked
        assert f"/resolve/{NEW}/" not in asked
        assert f"/resolve/{CHAT_NEW}/" not in asked


def test_an_adapter_that_is_gone_on_from_stays_at_its_commit(built_data: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights")
    first = tiny_run(tmp_path / "first", weights, built_data)
    assert subprocess.run([sys.executable, "-m", "rag_ft", "train", first, STEPS], check=False).returncode == 0
    adapter = tmp_path / "first/runs/tiny/adapter"
    hub = Hub({"org/adapter": {OLD: adapter, NEW: adapter}}, {"org/adapter": OLD})
    changed = {**tiny_settings(weights)["model"], "adapter": "org/adapter"}
    recipe = tiny_run(tmp_path / "second", weights, built_data, model=changed)
    run = tmp_path / "second/runs/tiny"
    with serving(hub):
        for home in ("home", "another home"):
            done = verb(hub, tmp_path / home, "train", recipe, STEPS)
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads((run / "training/summary.json").read_text())["adapter_revision"] == OLD
            asked = " ".join(hub.asked)
            assert f"/org/adapter/resolve/{OLD}/adapter_model.safetensors" in asked
            assert f"/resolve/{NEW}/" not in asked
            shutil.rmtree(run / "adapter")
            hub.main["org/adapter"] = NEW
            hub.asked.clear()


def test_without_a_network_weights_of_the_hub_are_a_sentence(built_data: Path, tmp_path: Path) -> None:
    model = {**tiny_settings(Path("x"))["model"], "weights": "org/base"}
    recipe = tiny_run(tmp_path / "run", Path("org/base"), built_data, model=model)
    nobody = Hub({}, {})
    with serving(nobody):
        pass  # nobody listens at its address any more
    for arguments in (["train", recipe], ["evaluate", recipe]):
        done = verb(nobody, tmp_path / "home", *arguments)
        assert done.returncode == 2, done.stderr
        assert "org/base: the Hub does not give it" in done.stderr
        assert "your network" in done.stderr
        assert "Traceback" not in done.stderr
