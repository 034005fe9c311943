"""A small Hub on this machine: models by commit, a branch that moves, and a list of what was asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


@dataclass
class Hub:
    """`models` holds, for each id, the folder of each commit; `main` holds the commit each branch points at.

    What ends with one of `broken` is answered with an error of the Hub's own.
    """

    models: dict[str, dict[str, Path]]
    main: dict[str, str]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def commit(self, name: str, revision: str) -> str | None:
        commit = self.main[name] if revision == "main" else revision
        return commit if commit in self.models[name] else None


class Handler(BaseHTTPRequestHandler):
    """Answers as a Hub does, from the models of `served`."""

    served: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.served.asked.append(f"{self.command} {self.path}")
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path.endswith(tuple(self.served.broken)):
            return self.answer(507, b"")  # which the client asks once
        if parts[:2] == ["api", "models"] and parts[4:5] in ([], ["revision"]):
            return self.about("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        if parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            return self.listed("/".join(parts[2:4]), parts[5])
        if parts[2:3] == ["resolve"]:
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.answer(404, b"")

    def about(self, name: str, revision: str) -> None:
        commit = self.served.commit(name, revision) if name in self.served.models else None
        files = [{"rfilename": path.name} for path in self.served.models[name][commit].iterdir()] if commit else []
        told = {"id": name, "modelId": name, "sha": commit, "siblings": files}
        self.answer(200 if commit else 404, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def listed(self, name: str, revision: str) -> None:
        commit = self.served.commit(name, revision) if name in self.served.models else None
        paths = self.served.models[name][commit].iterdir() if commit else []
        files = [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": hashlib.sha1().hexdigest()}
            for path in paths
            if path.is_file()
        ]
        self.answer(200 if commit else 404, json.dumps(files).encode(), {"Content-Type": "application/json"})

    def file(self, name: str, revision: str, path: str) -> None:
        commit = self.served.commit(name, revision) if name in self.served.models else None
        if commit is None or not (self.served.models[name][commit] / path).is_file():
            code = "EntryNotFound" if commit else "RevisionNotFound"
            return self.answer(404, b"", {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})})
        content = (self.served.models[name][commit] / path).read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        return self.answer(200, content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a Hub until the block ends."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"served": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
