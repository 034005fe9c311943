"""Stands before a server and fails a share of calls in every way a line and a server can; writes down what it did.

Faults before the server is asked: 429 with Retry-After, 500, 503, no answer, a reset, a refusal by a moderator. After
it has answered: a reset, a connection that breaks in the middle, an answer that is no JSON, no bytes, no words, or ends
at the most tokens. Without a server it answers by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

REFUSED = "refused"
TRUNCATED = "ends at the most tokens"
BEFORE = ["429", "500", "503", "silence", "reset", REFUSED]
AFTER = ["reset after", "cut", "not JSON", "nothing", "no words", TRUNCATED]


class Proxy:
    """One server's calls."""

    def __init__(self, log: Path, share: float, server: str) -> None:
        self.log, self.share, self.server, self.rng = log.open("a", encoding="utf-8"), share, server, random.Random(7)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, or fail it."""
        body = await request.json()
        fault = self.rng.choice(BEFORE + AFTER) if self.rng.random() < self.share else ""
        prompt = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
        noted = {"prompt": prompt, "fault": fault, "answered": False}
        try:
            if fault in BEFORE:
                return await self.fail(request, fault)
            status, data = await self.ask(body)
            noted["answered"] = status == 200
            return await self.deliver(request, fault, status, data)
        except (asyncio.CancelledError, ConnectionError):  # whoever asked has gone, or was killed
            noted["fault"] = fault or "nobody there any more"
            raise
        finally:
            self.log.write(json.dumps(noted) + "\n")
            self.log.flush()

    async def ask(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return the server's answer."""
        if self.server:
            async with self.session.post(f"{self.server}/chat/completions", json=body) as response:
                return response.status, await response.read()
        await asyncio.sleep(self.rng.uniform(0.02, 0.08))
        message = {"role": "assistant", "content": f"You asked: {body['messages'][-1]['content'][:60]}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 250, "completion_tokens": 20, "total_tokens": 270}
        return 200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    async def fail(self, request: web.Request, fault: str) -> web.StreamResponse:
        """Fail a call before the server has heard of it."""
        if fault == "reset":
            return self.reset(request)
        if fault == "silence":
            await asyncio.sleep(3600)
        if fault == REFUSED:
            return web.json_response({"error": {"message": "flagged by our content policy"}}, status=400)
        headers = {"Retry-After": "0.2"} if fault == "429" else {"retry-after-ms": "50"}
        return web.json_response({"error": {"message": "try again"}}, status=int(fault), headers=headers)

    async def deliver(self, request: web.Request, fault: str, status: int, data: bytes) -> web.StreamResponse:
        """Send an answer on its way, on which it may be lost."""
        if fault == "reset after":
            return self.reset(request)
        half = data[: len(data) // 2]
        sent = {"not JSON": half, "nothing": b"", "cut": half}.get(fault, data)
        if fault in ("no words", TRUNCATED) and status == 200:
            sent = said_otherwise(data, fault)
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        response.content_length = len(data) if fault == "cut" else len(sent)
        await response.prepare(request)
        await response.write(sent)
        if fault == "cut":
            return self.reset(request, response)
        await response.write_eof()
        return response

    def reset(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        """Drop the connection without a word."""
        if request.transport is not None:
            request.transport.abort()
        return response or web.Response()

    async def serve(self) -> None:
        """Serve until killed."""
        application = web.Application(client_max_size=1 << 26)
        application.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with ClientSession(timeout=ClientTimeout(total=600)) as self.session:
            print(runner.addresses[0][1], flush=True)
            await asyncio.Event().wait()


def said_otherwise(data: bytes, fault: str) -> bytes:
    """Return a server's answer without words, or as one that ends at the most tokens."""
    answer = json.loads(data)
    choice = answer["choices"][0]
    if fault == TRUNCATED:
        choice["finish_reason"] = "length"
    else:
        choice["message"]["content"] = ""
    return json.dumps(answer).encode()


if __name__ == "__main__":
    asyncio.run(Proxy(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3].rstrip("/")).serve())
