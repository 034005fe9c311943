"""What stands between the demo's server and the network: which addresses exist, how much may be sent, what is let out.

Gradio serves far more than the page needs: its API for programs, files by their path, monitoring. Here only what the
page itself asks for passes. The folder in which uploads wait is known outside by a token, never by its path.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_GET = re.compile(
    r"/|/config/?|/(theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/.*"
    r"|/gradio_api/(startup-events|heartbeat/\w+|queue/data|upload_progress|theme\.css)"
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset)/?")
_OTHER_BYTES = 2**20  # of any request that is no upload
_HEADERS = {
    # Gradio compiles its own templates in the browser, hence unsafe-eval; nothing from elsewhere is loaded or reached
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_KEPT_BY_BROWSERS = re.compile(r"/(assets|static|svelte)/.*")
_HIDES_PATHS = ("application/json", "text/event-stream")


class Gate:
    """ASGI middleware: lets pass what the page needs, and hides the folder of uploads.

    Args:
        app: what it stands before.
        folder: in which Gradio keeps uploads.
        hosts: names under which a browser may ask for the page; empty for any. A page on this machine alone has
            them, so that no website can have its own name resolved to 127.0.0.1 and read the documents.
        upload_bytes: the most of one request that uploads files.
        arrived: is told where uploaded files lie, before who sent them is.
    """

    def __init__(
        self,
        app: App,
        *,
        folder: str,
        hosts: frozenset[str],
        upload_bytes: int,
        arrived: Callable[[list[str]], None],
    ) -> None:
        self._app, self._hosts, self._upload_bytes, self._arrived = app, hosts, upload_bytes, arrived
        self._token = f"uploads-{secrets.token_hex(8)}".encode()
        self._folder = folder.encode()
        self._forms = tuple(dict.fromkeys((self._folder, json.dumps(folder)[1:-1].encode())))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        if refused := self._refusal(scope):
            await _refuse(send, *refused)
            return
        if scope["path"].startswith("/gradio_api/queue/join"):
            receive = await self._restored(scope, receive)
        await self._app(scope, receive, self._hiding(scope, send))

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Return status and sentence for a request that does not pass."""
        path, headers = scope["path"], dict(scope["headers"])
        if self._hosts and _name(headers.get(b"host", b"")) not in self._hosts:
            return 421, "This page is served under the address that the terminal shows."
        if scope["method"] in ("GET", "HEAD"):
            return None if _GET.fullmatch(path) else (404, "There is nothing here.")
        if scope["method"] != "POST" or not _POST.fullmatch(path):
            return 404, "There is nothing here."
        length = headers.get(b"content-length", b"")
        most = self._upload_bytes if path.startswith("/gradio_api/upload") else _OTHER_BYTES
        if not length.isdigit():
            return 411, "Say how long the request is."
        return (413, f"That is more than {most // 2**20} MB at once.") if int(length) > most else None

    async def _restored(self, scope: Message, receive: Receive) -> Receive:
        """Return a request whose body names the folder of uploads by its path again."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return receive
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = body.replace(self._token, self._forms[-1])
        scope["headers"] = [*_without(scope["headers"], b"content-length"), (b"content-length", b"%d" % len(body))]
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_restored() -> Message:
            return waiting.pop() if waiting else await receive()

        return receive_restored

    def _hiding(self, scope: Message, send: Send) -> Send:
        """Return a `send` that adds our headers and writes the token for the folder, in JSON and in events."""
        start: Message = {}
        parts: list[bytes] = []

        async def send_hidden(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                kept = _KEPT_BY_BROWSERS.fullmatch(scope["path"])
                own = {name: value for name, value in _HEADERS.items() if not (kept and name == "cache-control")}
                message["headers"] = [*_without(message["headers"], *map(str.encode, own)), *_pairs(own)]
                start = message
                if not _kind(message).startswith("application/json"):
                    await send(message)
                return
            if not _kind(start).startswith(_HIDES_PATHS):
                await send(message)
            elif _kind(start).startswith("text/event-stream"):
                await send({**message, "body": self._hidden(message.get("body", b""))})
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    whole = b"".join(parts)
                    if scope["path"].startswith("/gradio_api/upload") and start["status"] == 200:
                        self._arrived([one for one in json.loads(whole) if isinstance(one, str)])
                    body = self._hidden(whole)
                    start["headers"] = [
                        *_without(start["headers"], b"content-length"),
                        *_pairs({"content-length": str(len(body))}),
                    ]
                    await send(start)
                    await send({"type": "http.response.body", "body": body})

        return send_hidden

    def _hidden(self, body: bytes) -> bytes:
        for form in self._forms:
            body = body.replace(form, self._token)
        return body


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [*_pairs({"content-type": "text/plain; charset=utf-8", **_HEADERS})]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def _name(host: bytes) -> str:
    """Return the name in a `Host` header, without its port."""
    return re.sub(r":\d+$", "", host.decode("latin-1")).lower()


def _kind(message: Message) -> str:
    return next((value.decode("latin-1") for name, value in message["headers"] if name == b"content-type"), "")


def _without(headers: Any, *names: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((name, value) for name, value in headers if name.lower() not in names)


def _pairs(headers: dict[str, str]) -> Iterator[tuple[bytes, bytes]]:
    return ((name.encode(), value.encode()) for name, value in headers.items())
