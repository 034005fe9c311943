"""A small server on this machine that speaks /v1/chat/completions: lists what was asked, fails on demand."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Messages = list[dict[str, str]]


@dataclass
class Reply:
    """What a server writes; `logprobs` of each token where it gives them."""

    text: str | None
    prompt_tokens: int = 7
    logprobs: list[float] | None = None
    refusal: str | None = None
    finish: str = "stop"
    usage: bool = True
    output_tokens: int | None = None


@dataclass
class Server:
    """`fault` is told the messages and how often they were asked before; it names what goes wrong, or nothing.

    Faults: a status (429, 500, 401...), `reset`, `cut` (the connection breaks in the middle of an answer), `hang`,
    `malformed`, `no_choices`, a status with what is said to it, the same with headers, or bytes sent as the answer.
    Refusals, answers cut off and empty ones are replies, not faults.
    """

    reply: Callable[[Messages, dict[str, Any]], Reply]
    fault: Callable[[Messages, int], Any] = lambda messages, tries: None
    needs: int = 1
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    together: threading.Condition = field(default_factory=threading.Condition)
    closing: threading.Event = field(default_factory=threading.Event)

    def count(self, change: int) -> None:
        with self.together:
            self.under_way += change
            self.most = max(self.most, self.under_way)
            self.together.notify_all()

    def wait_for_others(self) -> None:
        """Answer nobody before `needs` calls have been under way at once: a client that asks one by one gets stuck."""
        with self.together:
            self.together.wait_for(lambda: self.most >= self.needs, timeout=20)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """A connection that breaks is what some tests want."""


class Handler(BaseHTTPRequestHandler):
    """Answers one call after another as `served` says."""

    served: ClassVar[Server]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body["messages"])
        with self.served.lock:
            tries = self.served.tries[text]
            self.served.tries[text] += 1
            self.served.bodies.append(body)
            self.served.keys.append(self.headers["Authorization"])
        self.served.count(1)
        try:
            self.served.wait_for_others()
            self.respond(body, self.served.fault(body["messages"], tries))
        finally:
            self.served.count(-1)

    def respond(self, body: dict[str, Any], fault: Any) -> None:
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": {"message": f"no {self.path}"}})
        if isinstance(fault, int):
            return self.send(fault, {"error": {"message": f"fault {fault} {self.headers['Authorization']}"}})
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self.connection.close()
        if fault == "cut":
            whole = json.dumps(completion(body, self.served.reply(body["messages"], body))).encode()
            return self.send(200, whole[: len(whole) // 2], length=len(whole))
        if fault == "hang":
            self.served.closing.wait(20)
            return None
        if fault == "malformed":
            return self.send(200, b'{"choices": [{"mess')
        if fault == "no_choices":
            return self.send(200, {"id": "1", "object": "chat.completion", "choices": []})
        if isinstance(fault, bytes):
            return self.send(200, fault)
        if isinstance(fault, tuple):
            return self.send(fault[0], {"error": {"message": fault[1]}}, *fault[2:])
        return self.send(200, completion(body, self.served.reply(body["messages"], body)))

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(data)))
        for name, value in (headers or {"retry-after-ms": "1"}).items():  # so that no test waits
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the block ends."""

    listener = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"served": server}))
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        listener.shutdown()
        listener.server_close()


def completion(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Return a reply as the protocol has it."""
    message = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reply.finish, "logprobs": None}
    if body.get("logprobs") and reply.logprobs is not None:
        choice["logprobs"] = {
            "content": [{"token": "x", "logprob": each, "top_logprobs": []} for each in reply.logprobs]
        }
    found = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    written = len(reply.logprobs or ()) if reply.output_tokens is None else reply.output_tokens
    total = reply.prompt_tokens + written
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": written, "total_tokens": total}
    return found | ({"usage": usage} if reply.usage else {})
