"""How many calls a second reach a teacher: a server that answers each after 50 ms, 64 calls at once, so 1,280 at most.

`python -m benchmarks.teacher_client` compares a job as the label step makes it (every reply committed to disk), the
same client without the store, and the openai client with a semaphore, in turns. The server has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result
from data_builders.servers import Call
from data_builders.servers.client import server_asker, teacher_writing
from data_builders.servers.job import teacher_job
from data_builders.servers.settings import TeacherSettings

SECONDS, AT_ONCE = 0.05, 64
POSSIBLE = AT_ONCE / SECONDS
PASSAGES = "A passage about a town, its river and the year in which it was founded. " * 60
LABEL = "The second passage says when the town was founded, the others are about rivers. " * 8


def main() -> None:
    """Time all three in turns; write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ways = {"a job, replies kept": job, "our client alone": client, "openai client": openai_client}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    with serving() as url:
        for way in ways.values():
            way(url, 2 * AT_ONCE)  # imports, connections
        for _ in range(given.rounds):
            for name, way in ways.items():
                rate, processor = timed(lambda way=way: way(url, given.calls), given.calls)
                rates[name].append(rate)
                spent[name].append(processor)
    numbers: dict[str, Any] = {
        "calls in a round": given.calls,
        "rounds": given.rounds,
        "possible calls/s": POSSIBLE,
    }
    for name in ways:
        numbers[f"{name} (calls/s)"] = round(statistics.median(rates[name]), 1)
        numbers[f"{name} (share of the possible)"] = round(statistics.median(rates[name]) / POSSIBLE, 3)
        numbers[f"{name} (processor ms a call)"] = round(statistics.median(spent[name]), 3)
    write_result("teacher_client", numbers, "python -m benchmarks.teacher_client")


def timed(work: Callable[[], None], calls: int) -> tuple[float, float]:
    """Return calls a second and processor time of this process in milliseconds a call."""
    began, processor = time.perf_counter(), time.process_time()
    work()
    return calls / (time.perf_counter() - began), 1000 * (time.process_time() - processor) / calls


def conversations(count: int) -> Iterator[Call]:
    for number in range(count):
        yield Call(str(number), ({"role": "user", "content": f"{number} {PASSAGES}"},))


def teacher(url: str) -> TeacherSettings:
    return TeacherSettings(base_url=url, model="stub", concurrency=AT_ONCE)


def job(url: str, calls: int) -> None:
    """Ask as the label step does."""
    with tempfile.TemporaryDirectory() as folder:
        ask = teacher_job(teacher(url), Path(folder) / "replies.sqlite", lambda line: None, calls)
        found = sum(reply.text == LABEL for _, reply in ask(conversations(calls)))
    assert found == calls, f"{found} of {calls} answered"


def client(url: str, calls: int) -> None:
    """Ask without keeping anything."""
    asker = server_asker(teacher(url), teacher_writing(teacher(url)))
    found = sum(reply.text == LABEL for _, reply in asker(conversations(calls)))
    assert found == calls, f"{found} of {calls} answered"


def openai_client(url: str, calls: int) -> None:
    """Ask as a script would: one client, one semaphore, all calls gathered."""
    from openai import AsyncOpenAI

    async def work() -> int:
        gate = asyncio.Semaphore(AT_ONCE)
        async with AsyncOpenAI(base_url=url, api_key="none", timeout=60) as asked:

            async def one(call: Call) -> bool:
                async with gate:
                    messages: Any = list(call.messages)
                    answer = await asked.chat.completions.create(
                        model="stub", messages=messages, temperature=0, max_tokens=1024
                    )
                    return answer.choices[0].message.content == LABEL

            return sum(await asyncio.gather(*map(one, conversations(calls))))

    found = asyncio.run(work())
    assert found == calls, f"{found} of {calls} answered"


# the server


@contextmanager
def serving() -> Iterator[str]:
    """Start the server in a process of its own; give its address."""
    command = [sys.executable, "-m", "benchmarks.teacher_client_server", str(SECONDS), LABEL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
