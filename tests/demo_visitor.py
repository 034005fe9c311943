"""A visitor of the demo without a browser: speaks what the page speaks, upload, queue and events."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

OPENED, IN_LANGUAGE, UPLOADED, ASKED, STOPPED, FORGOT = (
    "opened",
    "in_language",
    "uploaded",
    "asked",
    "stopped",
    "forgot",
)


class Visitor:
    """One session. What the page shows is kept by the id of the element, as the browser would have it."""

    def __init__(self, url: str, language: str = "en") -> None:
        self.http = httpx.Client(base_url=url, timeout=60, headers={"accept-language": language})
        self.session = secrets.token_hex(6)
        config = self.http.get("/config").json()
        self.elements = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        self.events = {one["api_name"].removesuffix("_1"): one for one in config["dependencies"]}
        self.shown: dict[str, Any] = {}
        self.raw = ""
        self.call(OPENED)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def upload(self, *files: tuple[str, bytes]) -> httpx.Response:
        """Upload files and have them read."""
        sent = self.http.post("/gradio_api/upload", files=[("files", one) for one in files])
        if sent.status_code == 200:
            data = [
                {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
                for path, (name, _) in zip(sent.json(), files, strict=True)
            ]
            self.raw += sent.text
            self.call(UPLOADED, data)
        return sent

    def ask(self, question: Any, *, compare: bool = False, route: bool = False, language: str = "as_asked") -> None:
        """Ask and wait for the whole answer."""
        self.call(ASKED, question, compare, route, language)

    def call(self, name: str, *data: Any) -> None:
        """Trigger an event of the page and take in all that it changes."""
        for message in self.messages(name, *data):
            if message["msg"] in ("process_generating", "process_completed") and message["output"].get("data"):
                self._take(self.events[name]["outputs"], message["output"]["data"], message["msg"])
            if message["msg"] == "process_completed":
                assert message["success"], message
                return

    def messages(self, name: str, *data: Any) -> Iterator[dict[str, Any]]:
        event = self.events[name]
        body = {"data": list(data), "fn_index": event["id"], "session_hash": self.session}
        joined = self.http.post("/gradio_api/queue/join", json=body)
        assert joined.status_code == 200, joined.text
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    self.raw += line
                    yield json.loads(line.removeprefix("data:"))

    def _take(self, outputs: list[int], data: list[Any], kind: str) -> None:
        for output, value in zip(outputs, data, strict=True):
            name = self.elements[output]
            if kind == "process_generating" and isinstance(value, list):  # changes of what was shown before
                for action, path, new in value:
                    if path == [] and isinstance(new, str):
                        self.shown[name] = self.shown.get(name, "") + new if action == "append" else new
            elif isinstance(value, str):
                self.shown[name] = value


def text_file(name: str, text: str) -> tuple[str, bytes]:
    """Return a file to upload."""
    return name, text.encode()


def read(path: Path) -> tuple[str, bytes]:
    """Return a file on disk to upload."""
    return path.name, path.read_bytes()
