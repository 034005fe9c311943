"""Calls in a thread of their own: handed over, answered at once, fetched again. Knows neither server nor protocol."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from data_builders.servers import Call, Reply
from data_builders.servers.budget import BudgetSpentError

Arrived: TypeAlias = Callable[[Sequence[tuple[Call, Reply]]], None]
"""Told of replies the moment they are there, in the thread that asks and before anybody awaits them."""


@dataclass(frozen=True)
class Answered:
    """A call that came to its end.

    Attributes:
        in_passing: it failed for a reason that may pass, though it was tried several times.
        pause: seconds that the server asked for before another try.
    """

    call: Call
    reply: Reply
    in_passing: bool = False
    pause: float | None = None


class Exchange(Protocol):
    """Answers one call after another over a session."""

    def session(self) -> Any:
        """Return the session, to be entered in the loop."""
        ...

    async def answer(self, session: Any, call: Call) -> Answered:
        """Return what came of a call."""
        ...


class Line:
    """Workers in a thread of their own, so that answers arrive in time while the caller is busy with others."""

    def __init__(self, exchange: Exchange, workers: int, arrived: Arrived | None) -> None:
        self._exchange, self._workers, self._arrived = exchange, workers, arrived
        self._loop, self._closing = asyncio.new_event_loop(), asyncio.Event()
        self._todo: asyncio.Queue[Call] = asyncio.Queue()
        self._fresh: list[Answered] = []
        self._done: SimpleQueue[Sequence[Answered | BaseException]] = SimpleQueue()
        self.ready: deque[Answered | BaseException] = deque()
        """What is there and was not taken yet."""
        self._thread = Thread(target=self._run, name="calls to a server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def put(self, calls: Sequence[Call]) -> None:
        """Have calls asked."""
        with suppress(RuntimeError):  # the loop has ended: why, `get` will tell
            self._loop.call_soon_threadsafe(lambda: deque(map(self._todo.put_nowait, calls), maxlen=0))

    def get(self) -> Answered | BaseException:
        """Await what comes next: a call's reply, or the error that was its end."""
        while not self.ready:
            self.ready.extend(self._done.get())
        return self.ready.popleft()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._done.put([error])

    async def _serve(self) -> None:
        async with self._exchange.session() as session:
            workers = [asyncio.create_task(self._work(session)) for _ in range(self._workers)]
            await self._closing.wait()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._hand_over()

    async def _work(self, session: Any) -> None:
        while True:
            call = await self._todo.get()
            try:
                answered = await self._exchange.answer(session, call)
            except Exception as error:
                self._done.put([error])
                if isinstance(error, BudgetSpentError):
                    continue
                self._closing.set()  # no other call has a chance
                return
            if not self._fresh:  # what arrives in the same turn of the loop is handed over, and committed, at once
                self._loop.call_soon(self._hand_over)
            self._fresh.append(answered)

    def _hand_over(self) -> None:
        fresh, self._fresh = self._fresh, []
        try:
            if fresh and self._arrived is not None:
                self._arrived([(one.call, one.reply) for one in fresh])
        except Exception as error:
            self._done.put([error])
        else:
            self._done.put(fresh)
