"""A server that speaks the OpenAI protocol, as a generator. It writes the chat template, so it is sent messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from data_builders.errors import RagFtError
from data_builders.servers import Call, Reply
from data_builders.servers.protocol import Taken, Writing
from data_builders.servers.settings import EndpointSettings
from data_builders.servers.streaming import NoAnswerError, streamed
from rag_ft.generation import Engine, Generation, Request
from rag_ft.generation.endpoint import endpoint_engine
from rag_ft.generator import Answer, PassageLike
from rag_ft.generator.contracts import keep_prompt, settings_of
from rag_ft.generator.find import contract_folder
from rag_ft.generator.reading import Cost, Posed, longest_output, pose, read_answer
from rag_ft.prompting.contract import FILE, read_contract
from rag_ft.prompting.messages import MessageWriter, message_writer
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings, Style

TIMEOUT = 600.0
"""Seconds for a whole answer: a model on a processor may take minutes over one that reasons."""
_TOO_LONG = re.compile(r"context|too long|maximum.{0,20}length|num_ctx", re.IGNORECASE)
# What a recipe's settings are called in `load_generator`.
_ARGUMENTS = {"endpoint.base_url": "server", "endpoint.model": "model", "endpoint.api_key_env": "api_key_env"}


@dataclass(frozen=True)
class Access:
    """Where a server is, whom to ask for, and which environment variable holds its key."""

    url: str
    model: str
    api_key_env: str | None = None

    def endpoint(self) -> EndpointSettings:
        """Return it as a recipe says it."""
        found = EndpointSettings(base_url=self.url, model=self.model, timeout=TIMEOUT)
        return found if self.api_key_env is None else found.model_copy(update={"api_key_env": self.api_key_env})


def turn_to_server(
    access: Access,
    reference: str | None,
    style: Style | None,
    max_new_tokens: int | None,
    *,
    allow_prompt_mismatch: bool,
) -> ServerGenerator:
    """Return the generator for a server; arguments as those of `load_generator`. Nothing is sent yet.

    Raises:
        RagFtError: the reference has no prompt contract, or one that is broken; or the address or key cannot be one.
    """
    contract = None if reference is None else read_contract(contract_folder(reference))
    if reference is not None and contract is None and not allow_prompt_mismatch:
        raise RagFtError(
            f"{reference} has no {FILE}, so it does not say how the model on the server is asked. Leave it out, or "
            "give the folder or Hub id of what was trained."
        )
    settings = settings_of(str(reference), contract, style)
    if contract is not None:
        keep_prompt(str(reference), contract, settings, allowed=allow_prompt_mismatch)
    kwargs = contract.chat_template_kwargs if contract else {}
    longest, endpoint = longest_output(settings, max_new_tokens), access.endpoint()
    with _reworded():
        engine = endpoint_engine(endpoint, longest, kwargs)
    writing = Writing(longest, extra_body={"chat_template_kwargs": kwargs} if kwargs else {})
    return ServerGenerator(message_writer(settings, contract), endpoint, engine, writing)


@contextmanager
def _reworded() -> Iterator[None]:
    """Name an argument of `load_generator` in refusals that speak of a recipe's setting, and promise nothing of it."""
    try:
        yield
    except RagFtError as error:
        told = str(error).replace(", and run the same command again: what is answered is kept", "")
        for setting, argument in _ARGUMENTS.items():
            told = told.replace(setting, argument)
        raise RagFtError(told) from error


@dataclass(frozen=True)
class ServerGenerator:
    """A `Generator` over a server. Callers do not wait for one another here.

    Attributes:
        writer: writes its prompts.
        endpoint: where it is.
        engine: asks many prompts at once.
        writing: how it is to write.
        taken: what it takes, as far as it has said.
    """

    writer: MessageWriter
    endpoint: EndpointSettings
    engine: Engine
    writing: Writing
    taken: Taken = field(default_factory=lambda: Taken("off"))

    @property
    def settings(self) -> PromptSettings:
        """How its prompts are written."""
        return self.writer.settings

    @property
    def prompt_hash(self) -> str:
        """The hash of templates and settings."""
        return prompt_hash(self.settings)

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question; who asks one waits for it, so a failing server is not asked again for long."""
        *_, answer = self.stream(question, passages)
        assert isinstance(answer, Answer)
        return answer

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions, some at once; what fails in passing is tried again for a while."""
        posed = [pose(question, passages) for question, passages in asked]
        requests = [Request(str(index), (), self._messages(one)) for index, one in enumerate(posed)]
        with _reworded():
            found = {one.key: one for group in self.engine.generate([[one] for one in requests]) for one in group}
        return [self._answer(one, found[request.key]) for one, request in zip(posed, requests, strict=True)]

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output as it arrives, then the answer."""
        return self._stream(pose(question, passages))

    def _stream(self, posed: Posed) -> Iterator[str | Answer]:
        call = Call("", self._messages(posed))
        try:
            with closing(streamed(self.endpoint, self.writing, call, self.taken)) as found:
                for one in found:
                    yield self._read(posed, one) if isinstance(one, Reply) else one
        except NoAnswerError as error:
            raise _no_answer(posed, str(error)) from error

    def _messages(self, posed: Posed) -> tuple[dict[str, str], ...]:
        return tuple(self.writer.messages(posed.question, posed.passages))

    def _answer(self, posed: Posed, generation: Generation) -> Answer:
        if generation.failure is not None:
            raise _no_answer(posed, generation.failure)
        # 0 stands for prompts that nobody has counted: none is empty
        cost = Cost(generation.prompt_tokens or None, generation.output_tokens, generation.seconds)
        return read_answer(generation.text or "", posed, self.settings, cost)

    def _read(self, posed: Posed, reply: Reply) -> Answer:
        cost = Cost(reply.prompt_tokens, reply.output_tokens, reply.seconds)
        return read_answer(reply.text or "", posed, self.settings, cost)


def _no_answer(posed: Posed, why: str) -> RagFtError:
    count = len(posed.passages)
    if count and _TOO_LONG.search(why):
        return RagFtError(f"the server has no answer ({why}). Give fewer than these {count} passages, or shorter ones.")
    return RagFtError(f"the server has no answer ({why}). Try again, or look into its log.")
