"""One conversation with a server whose answer is read while it is written. For people who wait; jobs have client.py.

Over httpx, in the caller's own thread: to leave half way is to close the connection, which stops the server's writing.
The protocol's server-sent events: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from data_builders.errors import RagFtError
from data_builders.servers import Call, Reply
from data_builders.servers.client import key_of, proxy_of
from data_builders.servers.protocol import Outcome, Taken, Writing, body_of, learn, pause_asked, read, told
from data_builders.servers.settings import EndpointSettings

_TRIES = 3  # while nothing was written; whoever waits would rather know
_PAUSE, _LONGEST_PAUSE = 1.0, 10.0  # seconds
_MOST_BYTES = 16 * 2**20  # of an answer and all that is sent around it


class NoAnswerError(RagFtError):
    """The server has no answer to this call; its words say why."""


@dataclass
class _Read:
    """What has been read of an answer."""

    text: list[str] = field(default_factory=list)
    half: str = ""
    refusal: str = ""
    usage: Any = None
    finish: Any = None
    done: bool = False

    def take(self, event: Any) -> str:
        """Take an event; return what it adds to the text."""
        if isinstance(event.get("error"), dict | str):
            raise NoAnswerError(f"the server broke off: {told(json.dumps(event).encode())}")
        self.usage = event.get("usage") or self.usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta")
        content, refusal = (delta.get(name) for name in ("content", "refusal")) if isinstance(delta, dict) else ("", "")
        self.refusal += refusal if isinstance(refusal, str) else ""
        self.text.append(self._letters(content if isinstance(content, str) else ""))
        return self.text[-1]

    def _letters(self, piece: str) -> str:
        """Return a piece in whole letters: half of a surrogate pair at its end waits for the other half."""
        piece, self.half = self.half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self.half = piece[:-1], piece[-1]
        return piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def outcome(self) -> Outcome:
        """Return what the same answer would have been in one piece."""
        message = {"content": "".join(self.text), "refusal": self.refusal or None}
        whole = {"choices": [{"message": message, "finish_reason": self.finish}], "usage": self.usage}
        return read(200, {}, json.dumps(whole).encode())


def streamed(
    settings: EndpointSettings, writing: Writing, call: Call, taken: Taken | None = None
) -> Generator[str | Reply, None, None]:
    """Yield the pieces of an answer as they arrive, and at the end the reply; closing it ends the request.

    A server that cannot stream gives its answer in one piece.

    Args:
        settings: where it is and whom to ask for; `timeout` is for the whole answer.
        writing: how it is to write.
        call: what is asked.
        taken: what the server takes, as far as it has said; learnt from here on.

    Raises:
        NoAnswerError: it does not answer this.
        RagFtError: nothing listens there, or it takes neither the key nor the model.
    """
    import httpx

    began, taken, key = time.perf_counter(), taken or Taken("off"), key_of(settings)
    try:
        with _client(settings, key) as client:
            for found in _tries(client, settings, writing, call, taken):
                yield replace(found, seconds=time.perf_counter() - began) if isinstance(found, Reply) else found
    except RagFtError as error:  # with the server's words, in which it may repeat the key
        raise type(error)(str(error).replace(key, "***") if key else str(error)) from None
    except httpx.TimeoutException:
        raise NoAnswerError(f"{settings.base_url} was silent for {settings.timeout:g} seconds") from None
    except httpx.ConnectError as error:
        raise RagFtError(
            f"nothing answers at {settings.base_url} ({error}). Start the server, or correct its address."
        ) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise RagFtError(
            f"{settings.base_url} is no address of a server. Write it in full, for example http://127.0.0.1:8000/v1."
        ) from None
    except httpx.HTTPError as error:
        raise NoAnswerError(f"the connection to {settings.base_url} broke: {type(error).__name__}") from None


def _client(settings: EndpointSettings, key: str) -> Any:
    """Return a client that goes the way the other one goes: by the proxy that the environment names, if by any."""
    import httpx

    proxy = proxy_of(settings.base_url)
    try:
        transport = httpx.HTTPTransport(proxy=proxy)
    except (ImportError, ValueError, httpx.InvalidURL):  # whose words may hold the proxy's password
        raise RagFtError(
            f"the proxy that the environment names for {settings.base_url} cannot be used. Set http_proxy and "
            "https_proxy to an address that begins with http://, or no_proxy to the server's name."
        ) from None
    headers = {"Authorization": f"Bearer {key or 'none'}"}
    return httpx.Client(timeout=settings.timeout, headers=headers, transport=transport)


def _tries(
    client: Any, settings: EndpointSettings, writing: Writing, call: Call, taken: Taken
) -> Generator[str | Reply, None, None]:
    """Ask again what failed in passing, and without what the server refuses by name."""
    tries, deadline = 1, time.perf_counter() + settings.timeout
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    while True:
        body = body_of(call, settings.model, writing, taken) | more
        address = f"{settings.base_url.rstrip('/')}/chat/completions"
        with client.stream("POST", address, json=body) as response:
            if response.status_code == 200:
                yield from _answer(response, deadline)
                return
            status, headers, data = response.status_code, response.headers, _whole(response, deadline)
        if status in (400, 422) and more.pop("stream_options", None) and "stream_options" in told(data):
            continue
        if status in (400, 422) and learn(told(data), body, writing, taken):
            continue
        outcome = read(status, headers, data)
        if not outcome.again or tries == _TRIES:
            raise _refused(status, data, settings)
        time.sleep(min(pause_asked(headers) or _PAUSE * 2.0**tries, _LONGEST_PAUSE))
        tries += 1


def _answer(response: Any, deadline: float) -> Iterator[str | Reply]:
    if "text/event-stream" not in response.headers.get("content-type", ""):
        outcome = read(200, response.headers, _whole(response, deadline))
        if outcome.reply.text:
            yield outcome.reply.text
    else:
        found = _Read()
        for event in _events(response, deadline, found):
            if piece := found.take(event):
                yield piece
        if not found.done and found.finish is None:
            raise NoAnswerError("the connection broke in the middle of the answer")
        outcome = found.outcome()
    if outcome.reply.failure is not None:
        raise NoAnswerError(outcome.reply.failure)
    yield outcome.reply


def _events(response: Any, deadline: float, found: _Read) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream up to [DONE]; comments and what is no JSON are left out."""
    rest = b""
    for block in _blocks(response, deadline):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                found.done = True
                return
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def _blocks(response: Any, deadline: float) -> Iterator[bytes]:
    """Yield bytes as they come, no more of them and for no longer than anybody waits."""
    size = 0
    for block in response.iter_bytes():
        size += len(block)
        if size > _MOST_BYTES:
            raise NoAnswerError(f"the server's answer is longer than {_MOST_BYTES:,} bytes")
        if time.perf_counter() > deadline:
            raise NoAnswerError("the server takes too long over its answer")
        yield block


def _whole(response: Any, deadline: float) -> bytes:
    return b"".join(_blocks(response, deadline))


def _refused(status: int, data: bytes, settings: EndpointSettings) -> RagFtError:
    """Return what a status means."""
    if status in (401, 403):
        return RagFtError(
            f"{settings.base_url} refuses the key ({status}). Put one that it takes into the environment variable "
            f"{settings.api_key_env}, or name another variable."
        )
    words = told(data)
    if status in (404, 405):
        return RagFtError(
            f"{settings.base_url} does not know the model {settings.model}, or is not where a server's API begins "
            f"({status}: {words}). Correct the name or the address, which mostly ends in /v1."
        )
    return NoAnswerError(f"{settings.base_url} answered {status}: {words}")
