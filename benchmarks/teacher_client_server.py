"""A server that gives every call the same answer after the same time, with as little work as can be."""

from __future__ import annotations

import asyncio
import json
import re
import sys

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def answer(text: str) -> bytes:
    """Return the whole response."""
    message = {"role": "assistant", "content": text, "refusal": None}
    body = json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 1200, "completion_tokens": 160, "total_tokens": 1360},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Answering(asyncio.Protocol):
    """One connection, one request at a time on it."""

    def __init__(self, seconds: float, response: bytes) -> None:
        self.seconds, self.response, self.got = seconds, response, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        head, found, body = self.got.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and length and len(body) >= int(length[1]):
            self.got = b""
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, self.response)


async def main() -> None:
    seconds, response = float(sys.argv[1]), answer(sys.argv[2])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(seconds, response), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
