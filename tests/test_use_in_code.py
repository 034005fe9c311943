"""docs/use_in_code.md: its blocks run, in their order, against a trained run, a Hub and a server on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from event_server import Written, serving_events, whole
from hub_server import Hub, serving

from rag_ft.generator import Answer

PAGE = (Path(__file__).parent.parent / "docs/use_in_code.md").read_text()
COMMIT = "a" * 40


def test_the_blocks_of_the_page_run(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "runs" / "quickstart")
    hub = Hub({"organisation/name": {COMMIT: trained_run / "adapter"}}, {"organisation/name": COMMIT})
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    with serving(hub), serving_events(lambda body, before: Written(whole("18", "01"))) as server:
        script = "\n".join(blocks).replace("http://127.0.0.1:8000/v1", server.url)
        assert server.url in script
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=variables | own, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    printed = done.stdout.decode("utf-8", "replace")
    assert "1801" in printed.splitlines()
    assert "few " in printed
    assert "Write the answer in Korean." in printed
    assert len(server.bodies) == 1


def test_the_page_names_every_field_of_an_answer() -> None:
    table = PAGE.split("## What comes back")[1].split("##")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert told == {field.name for field in fields(Answer)} - {"route"}
    assert "found.route" in PAGE
