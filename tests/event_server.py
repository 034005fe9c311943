"""A small server on this machine that writes its answers piece by piece, as the tests say. Holds no test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def event(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Return one event of a stream."""
    delta = {} if content is None else {"content": content}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}).encode()


DONE = b"data: [DONE]"
USAGE = b"data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}).encode()


def whole(*pieces: str) -> list[bytes]:
    """Return the events of an answer in pieces."""
    return [event("", role="assistant"), *(event(piece) for piece in pieces), event(finish="stop"), USAGE, DONE]


@dataclass
class Written:
    """What is answered: blocks sent one by one; status and type of the content."""

    blocks: list[bytes]
    status: int = 200
    kind: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class EventServer:
    """`reply` is told the request's body and how many came before; `go_on` is awaited before every block but two."""

    reply: Callable[[dict[str, Any], int], Written]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a caller has closed its connection in the middle of an answer."""


@contextmanager
def serving_events(reply: Callable[[dict[str, Any], int], Written], *, held: bool = False) -> Iterator[EventServer]:
    """Serve until the block ends; `held` sends only two blocks until `go_on` is set."""
    server = EventServer(reply)
    if not held:
        server.go_on.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            answer = server.reply(body, len(server.bodies) - 1)
            self.send_response(answer.status)
            for name, value in {"Content-Type": answer.kind, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for number, block in enumerate(answer.blocks):
                    if number >= 2:
                        server.go_on.wait(20)
                    self.wfile.write(block + b"\n\n")
                    self.wfile.flush()
            except OSError:
                server.left.set()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        listener.shutdown()
        listener.server_close()
