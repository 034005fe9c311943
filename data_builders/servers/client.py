"""Asks one server that speaks the OpenAI protocol: many calls at once, each tried again while that may help.

Over aiohttp and not over the openai client, whose millisecond of processor time a call keeps one process below 1,000
calls a second (benchmarks/teacher_client.py); what it tries again and after which pauses is kept. The key goes from
its environment variable into the request's header, nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from data_builders.errors import RagFtError
from data_builders.servers import Call, Reply
from data_builders.servers.budget import BudgetSpentError, Spending, Tokens, longest_answer, most_tokens
from data_builders.servers.line import Answered, Arrived, Line
from data_builders.servers.protocol import (
    RETRIES,
    Outcome,
    Taken,
    Writing,
    body_of,
    encoded,
    is_moderated,
    learn,
    read,
    told,
    too_long,
)
from data_builders.servers.settings import EndpointSettings, TeacherSettings, secret_in_address

_LOOK_AGAIN = 0.02  # seconds, while calls under way may still leave room in the budget for this one
_MOST_BYTES = 16 * 2**20  # of an answer; the longest there are, with log-probabilities, have a few
_BEFORE_AGAIN = 15.0  # seconds before the round of calls that failed in passing, unless the server says how many
_MOST_LATER = 1024  # calls that wait for it; where more fail, that will not pass so soon
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds, as the openai client has them


def teacher_writing(settings: TeacherSettings) -> Writing:
    """Return how a teacher is to write."""
    return Writing(
        settings.max_tokens,
        settings.temperature,
        structured=settings.structured,
        extra_body=settings.extra_body,
    )


def server_asker(settings: EndpointSettings, writing: Writing, spending: Spending | None = None) -> ServerAsker:
    """Return what asks a server; it remembers over all its jobs what the server takes and what was spent.

    Args:
        settings: where it is, whom to ask for, how many calls at once.
        writing: how it is to write.
        spending: what it may use up; None sets no limit.

    Raises:
        RagFtError: the package aiohttp is missing, or the key or the address cannot be one.
    """
    _http()
    key_of(settings)
    _check_address(settings)
    structured = "json_schema" if writing.structured == "auto" else writing.structured
    return ServerAsker(settings, writing, spending or Spending(), Taken(structured))


@dataclass(frozen=True)
class ServerAsker:
    """Asks one server; an `Asker`. Made by `server_asker`."""

    settings: EndpointSettings
    writing: Writing
    spending: Spending
    taken: Taken

    def __call__(
        self, calls: Iterable[Call], arrived: Arrived | None = None
    ) -> Generator[tuple[Call, Reply], None, None]:
        """Yield each call with its reply. Leaving half way, by Ctrl-C too, cancels what is under way.

        Calls that failed in passing, all their tries, get one more round when there are no others left; but for many of
        them without any answer, since that server is down.

        Raises:
            BudgetSpentError: the budget leaves no room for a call; the calls under way were yielded before.
            RagFtError: nothing listens there, or it takes neither the key nor the model: then no call has a chance.
        """
        later: list[Answered] = []
        answered = False
        # Twice as many workers as calls may be under way: the next request is ready when an answer comes.
        with Line(_Exchange(self), 2 * self.settings.concurrency, arrived) as line:
            for call, reply in self._round(line, calls, later, _MOST_LATER):
                answered = answered or reply.text is not None
                yield call, reply
            if not answered and len(later) > self.settings.concurrency:
                yield from ((one.call, one.reply) for one in later)
            elif later:
                time.sleep(max(_BEFORE_AGAIN if one.pause is None else one.pause for one in later))
                yield from self._round(line, [one.call for one in later], [], 0)

    def _round(
        self, line: Line, calls: Iterable[Call], later: list[Answered], most: int
    ) -> Generator[tuple[Call, Reply], None, None]:
        """Yield what calls bring but, up to `most`, those that failed in passing: they are put into `later`."""
        waiting, under_way, spent = iter(calls), 0, None
        while True:
            # Taken ahead, as many again as are under way, so that the server need not wait for the caller.
            if not spent and not line.ready:
                more = list(islice(waiting, 2 * self.settings.concurrency - under_way))
                line.put(more)
                under_way += len(more)
            if not under_way:
                break
            found, under_way = line.get(), under_way - 1
            if isinstance(found, BudgetSpentError):
                spent = found
            elif isinstance(found, BaseException):
                raise found
            elif found.in_passing and len(later) < most:
                later.append(found)
            else:
                yield found.call, found.reply
        if spent:
            yield from ((one.call, one.reply) for one in later)
            raise spent


@dataclass
class _Exchange:
    """One call after another over one session."""

    asker: ServerAsker
    address: str = field(init=False)
    proxy: str | None = field(init=False)
    turns: asyncio.Semaphore = field(init=False)
    has_answered: bool = False

    def __post_init__(self) -> None:
        self.address = f"{self.asker.settings.base_url.rstrip('/')}/chat/completions"
        self.proxy = proxy_of(self.address)
        self.turns = asyncio.Semaphore(self.asker.settings.concurrency)

    def session(self) -> Any:
        """Return a session that carries the key; it is given one in any case, as servers without keys expect."""
        http, settings = _http(), self.asker.settings
        return http.ClientSession(
            connector=http.TCPConnector(limit=settings.concurrency),
            timeout=http.ClientTimeout(total=settings.timeout),
            headers={"Authorization": f"Bearer {key_of(settings) or 'none'}", "Content-Type": "application/json"},
            cookie_jar=http.DummyCookieJar(),
        )

    async def answer(self, session: Any, call: Call) -> Answered:
        """Return what came of a call after as many tries as may help.

        Raises:
            RagFtError: what no other call can escape either.
        """
        began, tries = time.perf_counter(), 0
        while True:
            outcome = await self._within_budget(call, lambda: self._ask(session, call))
            if tries >= outcome.again:
                break
            await asyncio.sleep(outcome.pause or _pause(tries))
            tries += 1
        if outcome.hopeless is not None:
            raise RagFtError(outcome.hopeless)
        self.has_answered = self.has_answered or outcome.reply.text is not None
        self.asker.spending.answered()
        reply = replace(outcome.reply, seconds=time.perf_counter() - began)
        return Answered(call, reply, in_passing=reply.may_pass and tries > 0, pause=outcome.pause)

    async def _within_budget(self, call: Call, ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Set aside what a request may take; note what it took. One without an answer may have cost all of it."""
        spending, writing = self.asker.spending, self.asker.writing
        held = most_tokens(call, longest_answer(writing.max_tokens, writing.extra_body))
        while not spending.hold(held):
            await asyncio.sleep(_LOOK_AGAIN)
        used = Tokens(0, 0)
        try:
            outcome = await ask()
            reply = outcome.reply
            if reply.text is not None or reply.prompt_tokens is not None:
                used = spending.used_by(reply, held)
            elif outcome.unknown_cost:
                used, spending.guessed = held, True
        finally:
            spending.release(held, used)
        return outcome

    async def _ask(self, session: Any, call: Call) -> Outcome:
        """Send one request; where the server refuses a part of it by name, send it without, now and from then on."""
        asker, settings = self.asker, self.asker.settings
        async with self.turns:
            while True:
                body = body_of(call, settings.model, asker.writing, asker.taken)
                answer = await self._post(session, encoded(call, body, asker.writing))
                if isinstance(answer, Outcome):
                    return answer
                status, headers, data = answer
                if status not in (400, 422) or not learn(told(data), body, asker.writing, asker.taken):
                    break
        # Those that wait for their turn send first, all of them: meanwhile the server works, and this is read.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # A key that served others is right: a firewall on the way forbids this prompt. One more try lets others end.
        forbidden = status == 403
        hopeless = None if forbidden and self.has_answered else _hopeless_status(status, headers, data, settings)
        nothing = Outcome(Reply(), int(forbidden), hopeless=hopeless)
        outcome = read(status, headers, data) if hopeless is None else nothing
        failure = outcome.reply.failure
        if failure is None:
            return outcome
        return replace(outcome, reply=_without_key(outcome.reply, failure, settings))

    async def _post(self, session: Any, data: bytes) -> Outcome | tuple[int, Any, bytes]:
        """Return status, headers and body of the server's answer, or what came of it instead."""
        http, settings = _http(), self.asker.settings
        try:
            async with session.post(self.address, data=data, proxy=self.proxy) as response:
                await response.content.readexactly(_MOST_BYTES + 1)
                failure = f"the server's answer is longer than {_MOST_BYTES:,} bytes"
                return Outcome(Reply(failure=failure, may_pass=True), unknown_cost=True)
        except asyncio.IncompleteReadError as whole:
            return response.status, response.headers, whole.partial
        except TimeoutError:
            failure = f"no answer within endpoint.timeout={settings.timeout:g} seconds"
            return Outcome(Reply(failure=failure, may_pass=True), RETRIES, unknown_cost=True)
        except (http.InvalidURL, http.NonHttpUrlClientError):
            return Outcome(Reply(), hopeless=_no_address(settings))
        except http.ClientConnectorError as error:
            tries = 0 if isinstance(error, http.ClientSSLError) else RETRIES
            return Outcome(Reply(), tries, hopeless=_nobody(settings, error))
        except (http.ClientError, OSError) as error:
            failure = f"the connection broke: {type(error).__name__}"
            return Outcome(Reply(failure=failure, may_pass=True), RETRIES, unknown_cost=True)


def _pause(tries: int) -> float:
    """Return seconds to wait before the next try: doubled each time, and not the same for all calls."""
    return min(_FIRST_PAUSE * 2.0**tries, _LONGEST_PAUSE) * (1 - 0.25 * random.random())


def proxy_of(address: str) -> str | None:
    """Return the proxy that the environment names for an address (https_proxy, no_proxy, ...)."""
    parts = urlsplit(address)
    return None if not parts.hostname or proxy_bypass(parts.hostname) else getproxies().get(parts.scheme)


def _check_address(settings: EndpointSettings) -> None:
    """Refuse what the library would stumble over, and what holds a key: addresses stand in recipes and in errors.

    Raises:
        RagFtError: the address cannot be one, or holds more than an address.
    """
    try:
        parts = urlsplit(settings.base_url)
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise RagFtError(_no_address(settings)) from None
    if told := secret_in_address(settings):
        raise RagFtError(f"endpoint.base_url {told}")


def _no_address(settings: EndpointSettings) -> str:
    return (
        f"endpoint.base_url={settings.base_url} is no address of a server. Write it in full, "
        "for example http://127.0.0.1:8000/v1."
    )


def _nobody(settings: EndpointSettings, error: Any) -> str:
    why = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    number = getattr(why, "errno", None) or 0
    said = os.strerror(number) if number > 0 else str(getattr(why, "strerror", None) or why)[:200]
    return (
        f"nothing answers at {settings.base_url} ({said}). Start the server, "
        "or correct endpoint.base_url, and run the same command again: what is answered is kept."
    )


def _hopeless_status(status: int, headers: Any, data: bytes, settings: EndpointSettings) -> str | None:
    """Return what no other call can escape either."""
    if is_moderated(status, data):
        return None
    if status in (401, 403):
        # Without the server's words, in which it may repeat the key.
        return (
            f"{settings.base_url} refuses the key ({status}). Put one that it takes into the environment variable "
            f"{settings.api_key_env}, or name another variable in endpoint.api_key_env."
        )
    if status in (404, 405):
        return (
            f"{settings.base_url} does not know the model, or is not where a server's API begins ({status}): "
            f"{_hidden(told(data), settings)}. Correct endpoint.model={settings.model} or endpoint.base_url, which "
            "mostly ends in /v1."
        )
    if status == 402 or (status == 429 and b"insufficient_quota" in data):
        return (
            f"{settings.base_url} says that the account has no credit left ({status}). Add some, or name another "
            "server in endpoint.base_url, and run the same command again: what is answered is kept."
        )
    if pause := too_long(status, headers):
        return (
            f"{settings.base_url} asks to wait {pause:.0f} seconds ({status}: {_hidden(told(data), settings)}). "
            "Run the same command again after that: what is answered is kept."
        )
    return None


def _without_key(reply: Reply, failure: str, settings: EndpointSettings) -> Reply:
    """Return the reply, its failure without the key should the server have repeated it."""
    return replace(reply, failure=_hidden(failure, settings))


def _hidden(text: str, settings: EndpointSettings) -> str:
    key = key_of(settings)
    return text.replace(key, "***") if key else text


def key_of(settings: EndpointSettings) -> str:
    """Return the key, empty where its variable is not set.

    Raises:
        RagFtError: it cannot be a key.
    """
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RagFtError(
            f"the environment variable {settings.api_key_env} holds spaces, line ends or letters that no key has. "
            "Set it to the key alone."
        )
    return key


def _http() -> Any:
    try:
        import aiohttp
    except ImportError:
        raise RagFtError(
            "asking a server needs the package aiohttp, which is not installed. Run `pip install 'rag-ft[endpoint]'`."
        ) from None
    return aiohttp
