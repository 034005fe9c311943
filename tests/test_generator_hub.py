"""`load_generator` with ids of a Hub: adapters on the base they were trained on, whole weights, and contracts alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from event_server import Written, serving_events, whole
from hub_server import Hub, serving
from tiny_model import write_weights

OLD, NEW, MINE, WHOLE = "a" * 40, "b" * 40, "c" * 40, "d" * 40
TOWN = ["The town of Aldo was founded in 1801."]
ASKING = """
import json, sys
from rag_ft import load_generator
from data_builders.errors import RagFtError
for given in json.loads(sys.argv[1]):
    try:
        found = load_generator(**given).answer("When was Aldo founded?", ["The town of Aldo was founded in 1801."])
        print(json.dumps([found.output, None]))
    except RagFtError as error:
        print(json.dumps([None, str(error)]))
"""


def asking(hub: Hub, home: Path, *given: dict[str, Any], **more: str) -> list[Any]:
    """Return output and error of each call in one process that knows no other Hub."""
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", **more}
    command = [sys.executable, "-c", ASKING, json.dumps(given)]
    done = subprocess.run(command, env=variables | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def adapter_without_a_path(trained_run: Path, folder: Path, note: dict[str, Any], config: dict[str, Any]) -> Path:
    """Copy an adapter as it would be on another machine: its base is known by a note or by PEFT's configuration."""
    shutil.copytree(trained_run / "adapter", folder)
    for name, changes in (("prompt.json", {"model": {"dtype": "float32", **note}}), ("adapter_config.json", config)):
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_an_adapter_from_the_hub_stands_on_the_commit_it_was_trained_on(
    trained_run: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    gone = {"base_model_name_or_path": "/nobody/cache/weights-0123", "revision": None}
    noted = {"weights": "org/base", "revision": OLD, "identity": f"org/base@{OLD}"}
    by_peft = {"base_model_name_or_path": "org/base", "revision": OLD}
    adapters = {
        "org/noted": adapter_without_a_path(trained_run, tmp_path / "noted", noted, gone),
        "org/by-peft": adapter_without_a_path(trained_run, tmp_path / "by_peft", {}, by_peft),
        "org/lost": adapter_without_a_path(trained_run, tmp_path / "lost", {}, gone),
        "org/bare": adapter_without_a_path(trained_run, tmp_path / "bare", noted, gone),
        "org/other": adapter_without_a_path(trained_run, tmp_path / "other", {**noted, "identity": "org/x@1"}, gone),
    }
    for file in [*(tmp_path / "bare").glob("token*"), tmp_path / "bare" / "chat_template.jinja"]:
        file.unlink()
    models = {"org/base": {OLD: tiny_weights, NEW: write_weights(tmp_path / "new", seed=1)}}
    hub = Hub(
        {**models, **{name: {MINE: folder} for name, folder in adapters.items()}},
        {"org/base": NEW, **dict.fromkeys(adapters, MINE)},
    )
    here = {"reference": str(trained_run / "adapter"), "max_new_tokens": 8}
    given = [{"reference": name, "max_new_tokens": 8} for name in adapters]
    with serving(hub):
        moved = {**here, "reference": str(tmp_path / "noted")}
        based = {**given[2], "base": "org/base"}
        found = asking(hub, tmp_path / "home", here, *given, moved, based)
        asked = list(hub.asked)
        hub.asked.clear()
        again = asking(hub, tmp_path / "home", given[0], HF_HUB_OFFLINE="1")
    wanted = found[0][0]
    assert wanted
    assert [output for output, _ in found[1:3]] == [wanted, wanted]
    assert found[4][0] == wanted  # with the tokenizer of the base
    assert found[6][0] == wanted  # the folder alone, on another machine
    assert "/nobody/cache/weights-0123, which is not on this machine. Name the same weights with base=" in found[3][1]
    assert "was trained on org/x@1, but org/base is org/base@" in found[5][1]
    assert f"GET /org/noted/resolve/{MINE}/tokenizer.json" in asked
    assert f"GET /org/base/resolve/{OLD}/model.safetensors" in asked
    assert found[7][0] != wanted  # the branch has moved to other weights, and base= takes what is newest
    assert again == [[wanted, None]]
    assert hub.asked == []


def test_whole_weights_of_the_hub_bring_their_contract_and_a_server_needs_nothing_else(
    trained_run: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    merged = shutil.copytree(tiny_weights, tmp_path / "merged")
    shutil.copy(trained_run / "adapter" / "prompt.json", merged)
    hub = Hub(
        {"org/merged": {WHOLE: merged}, "org/plain": {WHOLE: tiny_weights}},
        dict.fromkeys(("org/merged", "org/plain"), WHOLE),
    )
    with serving(hub), serving_events(lambda body, before: Written(whole("1801"))) as server:
        found = asking(
            hub,
            tmp_path / "home",
            {"reference": "org/merged", "style": "reasoning"},
            {"reference": "org/merged", "max_new_tokens": 4},
            {"reference": "org/plain", "style": "reasoning", "max_new_tokens": 4},
            {"reference": "org/none"},
        )
        asked = list(hub.asked)
        hub.asked.clear()
        served = asking(
            hub,
            tmp_path / "another home",
            {"reference": "org/merged", "server": server.url, "model": "m"},
            {"reference": "org/plain", "server": server.url, "model": "m"},
        )
    assert "was trained in the style answer, not reasoning" in found[0][1]
    assert found[1][0]
    assert found[2][0]  # nobody trained it, so it may be asked in any way
    assert "reference=org/none" in found[3][1]
    assert f"GET /org/merged/resolve/{WHOLE}/prompt.json" in asked
    assert served[0] == ["1801", None]
    assert "org/plain has no prompt.json" in served[1][1]
    assert not [line for line in hub.asked if "safetensors" in line or "tokenizer" in line]


def test_weights_whose_contract_the_hub_does_not_give_are_not_asked_in_another_way(
    trained_run: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    merged = shutil.copytree(tiny_weights, tmp_path / "merged")
    shutil.copy(trained_run / "adapter" / "prompt.json", merged)
    hub = Hub({"org/merged": {WHOLE: merged}}, {"org/merged": WHOLE}, broken=["prompt.json"])
    given: dict[str, Any] = {"reference": "org/merged", "style": "reasoning", "max_new_tokens": 4}
    where = {"server": "http://127.0.0.1:9/v1", "model": "m"}
    with serving(hub):
        found = asking(hub, tmp_path / "home", given, {"reference": "org/merged", **where})
        hub.broken.clear()
        mended = asking(hub, tmp_path / "home", given)
        [unknown] = asking(hub, tmp_path / "other home", {"reference": "org/merged", **where}, HF_HUB_OFFLINE="1")
    for output, error in (*found, unknown):
        assert output is None
        assert "cannot be asked how it was trained to be asked" in error
    assert "was trained in the style answer, not reasoning" in mended[0][1]
