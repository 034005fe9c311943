"""Asks a server that speaks the OpenAI protocol. It applies the chat template itself, so it is sent messages.

The openai client tries again what fails in passing (408, 409, 429, 5xx, time-outs, broken connections), with growing
pauses or those the server names. The key goes from its environment variable into the request's header, nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from data_builders.errors import RagFtError
from data_builders.servers.settings import EndpointSettings
from rag_ft.generation import Engine, Generation, Request

RETRIES = 6
"""Further tries of a call; the pauses before them add up to about 25 seconds."""


def endpoint_engine(
    settings: EndpointSettings, max_new_tokens: int, template_kwargs: Mapping[str, Any] | None = None
) -> Engine:
    """Return an engine that asks a server, greedily.

    Args:
        settings: where it is, whom to ask for, how many calls at once.
        max_new_tokens: longest output.
        template_kwargs: what the recipe passes to the chat template, for servers that take it (vLLM, SGLang,
            llama.cpp); not sent where empty.

    Raises:
        RagFtError: the package openai is missing, or the key cannot be one.
    """
    _client_package()
    _key(settings)
    return EndpointEngine(settings, max_new_tokens, dict(template_kwargs or {}))


def ask_all(
    settings: EndpointSettings, conversations: Sequence[Sequence[dict[str, str]]], max_tokens: int
) -> list[str | None]:
    """Return the server's answer to each conversation, in their order; None where there is none.

    Raises:
        RagFtError: as `endpoint_engine` and its `generate` do.
    """
    groups = [[Request(str(index), (), tuple(messages))] for index, messages in enumerate(conversations)]
    found = {
        answer.key: None if answer.failure else answer.text
        for batch in endpoint_engine(settings, max_tokens).generate(groups)
        for answer in batch
    }
    return [found[str(index)] for index in range(len(conversations))]


@dataclass
class EndpointEngine:
    """One call for each prompt, a bounded number at once. Limits: no sharing but what the server does by itself."""

    settings: EndpointSettings
    max_new_tokens: int
    template_kwargs: dict[str, Any] = field(default_factory=dict)

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield each group as its last answer arrives. `seconds` is the time of the call, tries and pauses included.

        Raises:
            RagFtError: nothing listens there, or it takes neither the key nor the model: then no prompt has a chance.
            ValueError: a request without messages.
        """
        groups = [group for group in groups if group]
        missing = next((request.key for group in groups for request in group if not request.messages), None)
        if missing is not None:
            raise ValueError(f"request {missing!r} has no messages, which is all that a server can be sent")
        # Leaving the block, by Ctrl-C too, cancels what is under way.
        with asyncio.Runner() as runner:
            arrived: asyncio.Queue[list[Generation] | Exception] = asyncio.Queue()
            work = runner.get_loop().create_task(self._ask(groups, arrived))
            for _ in groups:
                found = runner.run(arrived.get())
                if isinstance(found, Exception):
                    raise found
                yield found
            runner.run(_finished(work))

    async def _ask(self, groups: Sequence[Sequence[Request]], arrived: asyncio.Queue[Any]) -> None:
        """Ask everything; put each group's answers into `arrived`, or the error that ends it all."""
        answers: list[dict[int, Generation]] = [{} for _ in groups]
        waiting = iter([(row, index) for row, group in enumerate(groups) for index in range(len(group))])
        extras = self._extras()

        async def work(client: Any) -> None:
            for row, index in waiting:  # one iterator for all workers: each takes what is next
                answers[row][index] = await self._answer(client, groups[row][index], extras)
                if len(answers[row]) == len(groups[row]):
                    await arrived.put([answers[row].pop(each) for each in range(len(groups[row]))])

        try:
            async with _client(self.settings) as client:
                await asyncio.gather(*(work(client) for _ in range(self.settings.concurrency)))
        except Exception as error:
            await arrived.put(error)

    def _extras(self) -> dict[str, Any]:
        """Return what not every server takes."""
        told: dict[str, Any] = {"max_tokens": self.max_new_tokens, "logprobs": True}
        return told | ({"extra_body": {"chat_template_kwargs": self.template_kwargs}} if self.template_kwargs else {})

    async def _answer(self, client: Any, request: Request, extras: dict[str, Any]) -> Generation:
        """Return the answer to one prompt, or its failure."""
        import openai

        began = time.perf_counter()
        try:
            reply = _reply(await self._call(client, request, extras))
        except (openai.APIError, ValueError) as error:  # ValueError: an answer that is no JSON
            _raise_if_hopeless(error, self.settings)
            reply = _Reply(failure=_told(error, self.settings))
        return Generation(
            request.key,
            (),
            request.length if reply.prompt_tokens is None else reply.prompt_tokens,
            time.perf_counter() - began,
            text=reply.text,
            output_tokens=reply.output_tokens,
            confidence=reply.confidence,
            failure=reply.failure,
        )

    async def _call(self, client: Any, request: Request, extras: dict[str, Any]) -> Any:
        """Ask; where the server refuses one of the extras by name, ask without it, now and from then on."""
        import openai

        while True:
            sent = dict(extras)
            try:
                return await client.chat.completions.create(
                    model=self.settings.model, messages=list(request.messages), temperature=0, **sent
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if "logprobs" in str(error) and "logprobs" in sent:
                    extras.pop("logprobs", None)
                elif "max_completion_tokens" in str(error) and "max_tokens" in sent:  # OpenAI's newer models
                    extras["max_completion_tokens"] = extras.pop("max_tokens", self.max_new_tokens)
                else:
                    raise


@dataclass(frozen=True)
class _Reply:
    """What was read out of a server's answer; None where it did not say."""

    text: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    confidence: float | None = None
    failure: str | None = None


def _reply(answer: Any) -> _Reply:
    """Read a chat completion, which may hold anything."""
    choices = getattr(answer, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if choice is None or message is None:
        return _Reply(failure="the server's answer holds no message")
    usage = getattr(answer, "usage", None)
    counts = (_whole(getattr(usage, "prompt_tokens", None)), _whole(getattr(usage, "completion_tokens", None)))
    refusal = getattr(message, "refusal", None)
    if refusal or choice.finish_reason == "content_filter":
        return _Reply(None, *counts, failure=f"the server refused to answer: {refusal or 'content filter'}")
    if not isinstance(message.content, str) or not message.content.strip():
        return _Reply(None, *counts, failure="the server's answer is empty")
    return _Reply(message.content, *counts, confidence=_confidence(choice))


def _whole(count: Any) -> int | None:
    return count if isinstance(count, int) and count >= 0 else None


def _confidence(choice: Any) -> float | None:
    """Return the mean log-probability of the tokens the server gives one for."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None) or []
    known = [token.logprob for token in tokens if isinstance(getattr(token, "logprob", None), int | float)]
    return sum(known) / len(known) if known else None


def _raise_if_hopeless(error: Exception, settings: EndpointSettings) -> None:
    """Raise what no other prompt can escape either."""
    import openai

    key = f"endpoint.model={settings.model}"
    if isinstance(error, openai.APIConnectionError) and type(error.__cause__).__name__ == "ConnectError":
        raise RagFtError(
            f"nothing answers at {settings.base_url}. Start the server, or correct endpoint.base_url, and run the same "
            "command again: what is answered is kept."
        ) from None
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        # Without the server's words, in which it may repeat the key.
        raise RagFtError(
            f"{settings.base_url} refuses the key ({error.status_code}). Put one that it takes into the environment "
            f"variable {settings.api_key_env}, or name another variable in endpoint.api_key_env."
        ) from None
    if isinstance(error, openai.NotFoundError):
        raise RagFtError(
            f"{settings.base_url} does not know the model, or is not where a server's API begins (404): "
            f"{_told(error, settings)}. Correct {key} or endpoint.base_url, which mostly ends in /v1."
        ) from None


def _told(error: Exception, settings: EndpointSettings) -> str:
    """Return an error in one line, without the key should it stand there."""
    kind = "ValueError: the server's answer is not JSON" if isinstance(error, ValueError) else type(error).__name__
    lines = str(error).splitlines()
    text = kind if isinstance(error, ValueError) or not lines else f"{kind}: {lines[0][:300]}"
    key = _key(settings)
    return text.replace(key, "***") if key else text


def _key(settings: EndpointSettings) -> str:
    """Return the key, empty where its variable is not set."""
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise RagFtError(
            f"the environment variable {settings.api_key_env} holds spaces, line ends or letters that no key has. "
            "Set it to the key alone."
        )
    return key


@asynccontextmanager
async def _client(settings: EndpointSettings) -> AsyncIterator[Any]:
    """Yield a client of the server; it is given a key in any case, so that it does not look for one elsewhere."""
    openai = _client_package()
    async with openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=_key(settings) or "none",
        timeout=settings.timeout,
        max_retries=RETRIES,
    ) as client:
        yield client


async def _finished(work: asyncio.Task[None]) -> None:
    await work


def _client_package() -> Any:
    try:
        import openai
    except ImportError:
        raise RagFtError(
            "a system with an endpoint needs the package openai, which is not installed. "
            "Run `pip install 'rag-ft[endpoint]'`."
        ) from None
    return openai
