"""Weights or a server as an object that answers questions over passages, asked exactly as it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from data_builders.errors import RagFtError
from data_builders.records import Passage
from rag_ft.prompting.parse import Judgement, Quote
from rag_ft.prompting.settings import PromptSettings, Style

PassageLike: TypeAlias = Passage | Mapping[str, Any] | str
"""A passage as users have it: ours, a mapping with `text` and perhaps `title` and `id`, or its bare text."""


@dataclass(frozen=True)
class Answer:
    """What a generator said about a question. Passages are counted from 1, as in the prompt.

    Attributes:
        answer: the short answer; None where it abstained, or wrote none.
        abstained: it said that no passage holds the answer.
        citations: what it says it read, word for word, in which passage. Nobody has checked that it stands there.
        relevance: its judgement of each passage it judged.
        analysis: how it came to the answer; empty in styles without one.
        well_formed: the output has the parts that its style asks for.
        output: everything it wrote.
        prompt_tokens: of the prompt; None where a server did not count them.
        output_tokens: of the output; None where a server did not count them.
        seconds: from question to the end of the answer; in a batch, its share of the batch.
        route: of Self-Route (rag_ft/app/routing.py), `few` where few passages were enough, `all` where not; else empty.
    """

    answer: str | None
    abstained: bool
    citations: tuple[Quote, ...]
    relevance: tuple[Judgement, ...]
    analysis: str
    well_formed: bool
    output: str
    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float
    route: str = ""


class Generator(Protocol):
    """What answers questions over passages: weights loaded here, or a server. Several threads may ask at once."""

    @property
    def settings(self) -> PromptSettings:
        """How its prompts are written."""
        ...

    @property
    def prompt_hash(self) -> str:
        """The hash of templates and settings, as in prompt.json; another one where a prompt departs from them."""
        ...

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question; no passages is the closed-book prompt.

        Raises:
            RagFtError: the prompt is too long, or the server has no answer.
        """
        ...

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions at once, in their order.

        Raises:
            RagFtError: as `answer`, for any of them.
        """
        ...

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output piece by piece as it is written, and at the end the answer read from all of it.

        Leaving early (`close()`, or the end of a loop that was left) stops the writing.

        Raises:
            RagFtError: as `answer`.
        """
        ...


def load_generator(
    reference: str | Path | None = None,
    *,
    base: str | None = None,
    server: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    style: Style | None = None,
    max_new_tokens: int | None = None,
    allow_prompt_mismatch: bool = False,
) -> Generator:
    """Load weights, or turn to a server, and answer questions the way they were trained to.

    Args:
        reference: folder or Hub id of an adapter or of whole (merged) weights, a run folder, or anything
            `model.weights` takes. With a server it only says how to ask: its prompt.json is read, no weights are.
        base: weights below an adapter; None takes those it was trained on.
        server: address of a server that speaks the OpenAI protocol, for example http://127.0.0.1:8000/v1.
        model: the model's name on that server.
        api_key_env: environment variable that holds the server's key; None takes OPENAI_API_KEY, if it is set.
        style: another style than the contract's; an adapter must have been trained in it too.
        max_new_tokens: longest output; None takes 48 for style answer, 256 for reasoning, 1024 for self_reasoning, or
            what the run's recipe says.
        allow_prompt_mismatch: ask all the same what has no prompt contract, or one that this version of rag-ft or this
            tokenizer breaks.

    Raises:
        RagFtError: nothing is there by that name, it does not load, or it would be asked otherwise than trained.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise RagFtError(f"max_new_tokens={max_new_tokens}: an answer needs one at least. Leave it out, or raise it.")
    name = None if reference is None else str(reference)
    _check_name("reference", name)
    _check_name("base", base)
    if server is None:
        if model is not None or api_key_env is not None:
            raise RagFtError("model and api_key_env go with a server. Give its address as server=URL.")
        if name is None:
            raise RagFtError("no weights and no server. Give a folder or Hub id, or server=URL and model=NAME.")
        from rag_ft.generator.local import load_local

        return load_local(name, base, style, max_new_tokens, allow_prompt_mismatch=allow_prompt_mismatch)
    if not model or base is not None:
        wrong = "model=NAME is missing" if not model else "base goes with weights that are loaded here"
        raise RagFtError(f"server={server}: {wrong}. Write load_generator(reference, server=URL, model=NAME).")
    from rag_ft.generator.server import Access, turn_to_server

    access = Access(server, model, api_key_env)
    return turn_to_server(access, name, style, max_new_tokens, allow_prompt_mismatch=allow_prompt_mismatch)


def _check_name(argument: str, given: str | None) -> None:
    """Refuse what no file system can look up: a home that nobody has, a name that is too long."""
    try:
        Path(given or "").expanduser().exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise RagFtError(
            f"{argument}={str(given)[:80]!r} cannot be looked up ({type(error).__name__}). Give a folder or Hub id."
        ) from None
