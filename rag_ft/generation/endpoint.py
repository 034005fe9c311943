"""Asks a server that speaks the OpenAI protocol. It applies the chat template itself, so it is sent messages.

How it is asked stands in data_builders/servers; here prompts become calls, and replies generations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.servers import Call, Reply
from data_builders.servers.client import ServerAsker, server_asker
from data_builders.servers.protocol import Writing
from data_builders.servers.settings import EndpointSettings
from rag_ft.generation import Engine, Generation, Request


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
        RagFtError: the package aiohttp is missing, or the key cannot be one.
    """
    extra = {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
    return EndpointEngine(server_asker(settings, Writing(max_new_tokens, logprobs=True, extra_body=extra)))


def ask_all(
    settings: EndpointSettings, conversations: Sequence[Sequence[dict[str, str]]], max_tokens: int
) -> list[str | None]:
    """Return the server's answer to each conversation, in their order; None where there is none.

    Raises:
        RagFtError: as `endpoint_engine` and its `generate` do.
    """
    calls = (Call(str(index), tuple(messages)) for index, messages in enumerate(conversations))
    asker = server_asker(settings, Writing(max_tokens, logprobs=True))
    found = {call.key: reply.text for call, reply in asker(calls)}
    return [found[str(index)] for index in range(len(conversations))]


@dataclass(frozen=True)
class EndpointEngine:
    """One call for each prompt, a bounded number at once. Limits: no sharing but what the server does by itself."""

    asker: ServerAsker

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        """Yield each group as its last answer arrives. `seconds` is the time of the call, tries and pauses included.

        Raises:
            RagFtError: nothing listens there, or it takes neither the key nor the model: then no prompt has a chance.
            ValueError: a request without messages.
        """
        missing = next((request.key for group in groups for request in group if not request.messages), None)
        if missing is not None:
            raise ValueError(f"request {missing!r} has no messages, which is all that a server can be sent")
        calls = (
            Call(f"{row} {index}", request.messages)
            for row, group in enumerate(groups)
            for index, request in enumerate(group)
        )
        answers: list[dict[int, Generation]] = [{} for _ in groups]
        for call, reply in self.asker(calls):
            row, index = map(int, call.key.split())
            answers[row][index] = _generation(groups[row][index], reply)
            if len(answers[row]) == len(groups[row]):
                yield [answers[row].pop(each) for each in range(len(groups[row]))]


def _generation(request: Request, reply: Reply) -> Generation:
    return Generation(
        request.key,
        (),
        request.length if reply.prompt_tokens is None else reply.prompt_tokens,
        reply.seconds,
        text=reply.text,
        output_tokens=reply.output_tokens,
        confidence=reply.confidence,
        failure=reply.failure,
    )
