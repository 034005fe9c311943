"""Weights loaded in this process, as a generator. One caller has the model at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.generation import Generation, Request
from rag_ft.generation.choose import choose_engine, stop_ids
from rag_ft.generation.reach import Reach
from rag_ft.generation.single import pieces, streams, written
from rag_ft.generator import Answer, PassageLike
from rag_ft.generator.contracts import keep_contract, settings_of
from rag_ft.generator.find import Found, find, said_of
from rag_ft.generator.reading import Cost, Posed, longest_output, pose, read_answer
from rag_ft.memory import give_back
from rag_ft.models.load import best_device, load_model, load_tokenizer
from rag_ft.models.positions import reach
from rag_ft.models.tuned import load_tuned
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings, Style

BATCH = 8
"""Questions per forward pass, as evaluation has them."""
_ON_A_GPU = ("flash_attention_2", "flex_attention")  # a run trained there may be asked anywhere


def load_local(
    reference: str, base: str | None, style: Style | None, max_new_tokens: int | None, *, allow_prompt_mismatch: bool
) -> LocalGenerator:
    """Find and load weights; arguments as those of `load_generator`.

    Raises:
        RagFtError: they are not there, do not load, or would be asked otherwise than they were trained.
    """
    found = find(reference, base)
    settings = settings_of(reference, found.contract, style)
    with said_of("reference"):
        encoder = _encoder(found, settings)
        keep_contract(reference, found, encoder, allowed=allow_prompt_mismatch)
        model = _model(found)
    return LocalGenerator(model, encoder, longest_output(settings, max_new_tokens, found.longest))


def _encoder(found: Found, settings: PromptSettings) -> Encoder:
    kwargs = found.contract.chat_template_kwargs if found.contract else {}
    with _told_of_files(f"the tokenizer of {found.tokenizer.reference}"):
        tokenizer = load_tokenizer(found.settings, found.tokenizer)
    try:
        return Encoder(tokenizer, settings, kwargs)
    except RagFtError:
        raise
    except Exception as error:  # template and variables come from outside, and fail in whatever way they like
        raise RagFtError(
            f"the chat template of {found.tokenizer.reference} cannot be written with the variables in its "
            f"prompt.json ({type(error).__name__}). Fetch it again."
        ) from error


@contextmanager
def _told_of_files(what: str) -> Iterator[None]:
    """Name the files that hold what no library expects: they come from outside, and no library checks them all."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, re.error) as error:
        raise RagFtError(
            f"{what} is damaged or of a kind unknown here ({type(error).__name__}). Fetch it again."
        ) from error


def _model(found: Found) -> Any:
    settings = found.settings
    if best_device() == "cpu" and settings.attention in _ON_A_GPU:
        settings = settings.model_copy(update={"attention": "auto"})
    if found.adapter is not None:
        with _told_of_files(f"the adapter in {found.adapter}"):
            return load_tuned(settings.model_copy(update={"tuning": "lora"}), found.weights, found.adapter)
    return load_model(settings, found.weights).eval().requires_grad_(False)


@dataclass(frozen=True)
class LocalGenerator:
    """A `Generator` over a model of transformers.

    Attributes:
        model: with its adapter, if it has one.
        encoder: writes its prompts.
        max_new_tokens: longest output.
        plain: the adapter is switched off.
        turn: held by whoever has the model. An engine, or a switched adapter, changes it for everybody.
        words: held by whoever has the tokenizer, which several threads may not use at once.
    """

    model: Any
    encoder: Encoder
    max_new_tokens: int
    plain: bool = False
    turn: Any = field(default_factory=Lock, repr=False, compare=False)
    words: Any = field(default_factory=Lock, repr=False, compare=False)

    @property
    def settings(self) -> PromptSettings:
        """How its prompts are written."""
        return self.encoder.settings

    @property
    def prompt_hash(self) -> str:
        """The hash of templates and settings."""
        return prompt_hash(self.settings)

    def without_adapter(self) -> LocalGenerator:
        """Return the weights below the adapter, asked the same way and held in memory once: for comparisons.

        Raises:
            RagFtError: there is no adapter.
        """
        if not hasattr(self.model, "disable_adapter"):
            raise RagFtError("these weights have no adapter that could be switched off. Load their base by its name.")
        return replace(self, plain=True)

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question."""
        return self.answers([(question, passages)])[0]

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions in batches; what questions over the same passages have in common is read once."""
        posed = [pose(question, passages) for question, passages in asked]
        with self.words:
            requests = [self._request(str(index), one) for index, one in enumerate(posed)]
            self.encoder.forget()
        alike: dict[Any, list[Request]] = {}
        for one, request in zip(posed, requests, strict=True):
            alike.setdefault(one.passages, []).append(request)
        found = self._generated(
            [group[start : start + BATCH] for group in alike.values() for start in range(0, len(group), BATCH)]
        )
        return [self._answer(one, found[request.key]) for one, request in zip(posed, requests, strict=True)]

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output as it is written, then the answer."""
        posed = pose(question, passages)
        with self.words:
            request = self._request("", posed)
            self.encoder.forget()
        return self._stream(posed, request)

    def _stream(self, posed: Posed, request: Request) -> Iterator[str | Answer]:
        if not streams(self.model):
            answer = self.answer(posed.question, posed.passages)
            yield answer.output
            yield answer
            return
        began, ids = time.perf_counter(), list[int]()
        tokens = written(self._lent, request, stop_ids(self.model, self.encoder), self.max_new_tokens)
        yield from pieces(tokens, self._decoded, ids)
        cost = Cost(request.length, len(ids), time.perf_counter() - began)
        yield read_answer(self._decoded(tuple(ids)), posed, self.settings, cost)

    @contextmanager
    def _lent(self) -> Iterator[Any]:
        with self.turn:
            if self.plain:
                with self.model.disable_adapter():
                    yield self.model
            else:
                yield self.model

    def _generated(self, groups: Sequence[Sequence[Request]]) -> dict[str, Generation]:
        with self._lent() as model:
            engine = choose_engine(
                model, self.encoder, groups, max_new_tokens=self.max_new_tokens, batch_size=BATCH, share=True
            )
            found = {one.key: one for batch in engine.generate(groups) for one in batch}
        give_back(collect=False)
        return found

    def _request(self, key: str, posed: Posed) -> Request:
        request = Request(key, self.encoder.prompt(posed.question, posed.passages))
        bounds = Reach(reach(self.model.config), self.max_new_tokens)
        if bounds.refusal(request.length) is not None:
            raise RagFtError(self._too_long(posed, request.length, bounds))
        return request

    def _too_long(self, posed: Posed, length: int, bounds: Reach) -> str:
        """Say how many passages fit."""
        said = (
            f"a prompt of {length:,} tokens and an answer of up to {self.max_new_tokens:,} exceed the "
            f"{bounds.positions:,} tokens this model reads"
        )
        for count in range(len(posed.passages) - 1, 0, -1):
            shorter = sum(map(len, self.encoder.prompt(posed.question, posed.passages[:count])))
            if bounds.refusal(shorter) is None:
                return f"{said}: {count} of the {len(posed.passages)} passages fit. Give the first {count} only."
        return f"{said}, and not one passage fits. Give shorter passages or a shorter question, or less max_new_tokens."

    def _decoded(self, ids: Ids) -> str:
        with self.words:
            text: str = self.encoder.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _answer(self, posed: Posed, generation: Generation) -> Answer:
        if generation.failure is not None:
            raise RagFtError(f"the model has no answer ({generation.failure}). Give fewer or shorter passages.")
        cost = Cost(generation.prompt_tokens, len(generation.ids), generation.seconds)
        return read_answer(self._decoded(generation.ids), posed, self.settings, cost)
