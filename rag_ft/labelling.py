"""The student's own base model as a writer of labels (InstructRAG, arXiv 2406.13629). Knows nothing of labels.

`data_builders` knows neither weights nor engines, so the verbs that build hand this in. Nothing is loaded before the
first call that was never answered: labels that are all on disk need no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.label_step import LocalWriter
from data_builders.labels.settings import SelfSynthesisLabelsSettings
from data_builders.progress import Progress
from data_builders.servers import Asker, Call, Reply
from rag_ft.models.settings import ModelSettings

if TYPE_CHECKING:
    from rag_ft.generation import Generation
    from rag_ft.models.weights import Weights
    from rag_ft.prompting.encode import Encoder

_BATCHES = 8
"""Batches of prompts that are sorted by length together."""


def local_writer(model: ModelSettings) -> LocalWriter:
    """Return what makes the writer of a recipe's labels when it is needed."""
    return SelfSynthesis(model)


@dataclass(frozen=True)
class SelfSynthesis:
    """Makes the writer of a recipe's labels; a `LocalWriter`.

    `model` is the recipe's section: dtype, quantisation, chat template; its adapter is left out.
    """

    model: ModelSettings

    def __call__(
        self, settings: SelfSynthesisLabelsSettings, store: Path, report: Callable[[str], None], total: int | None
    ) -> Asker:
        """Return an asker whose calls weights loaded here answer, greedily.

        Args:
            settings: whose weights, how long, how many at once.
            store: keeps every reply; what is in it is not generated again.
            report: takes lines about progress.
            total: how many labels are wanted.

        Raises:
            RagFtError: the weights name nothing that can be loaded.
        """
        from data_builders.servers.store import kept
        from rag_ft.models.weights import resolve_model

        chosen = self._chosen(settings)
        weights = resolve_model(chosen)
        writer = _LocalWriter(chosen, weights, settings, report, total)
        identity = {
            "model": settings.weights,
            "weights": weights.identity,
            "loaded": _loaded_as(chosen),
            "template": chosen.chat_template_kwargs,
            "max_tokens": settings.max_new_tokens,
        }
        return kept(writer, store, identity)

    def decides(self, settings: SelfSynthesisLabelsSettings) -> dict[str, Any]:
        """Return how the weights are loaded; nothing is resolved, loaded or hashed.

        A branch on the Hub that moves on rebuilds nothing: the labels are those of the commit there was.
        """
        chosen = self._chosen(settings)
        return {"revision": chosen.revision, **_loaded_as(chosen), "template": chosen.chat_template_kwargs}

    def _chosen(self, settings: SelfSynthesisLabelsSettings) -> ModelSettings:
        own = settings.weights == self.model.weights
        told = {"weights": settings.weights, "adapter": None, "revision": self.model.revision if own else None}
        return self.model.model_copy(update=told)


def _loaded_as(model: ModelSettings) -> dict[str, Any]:
    """Return the settings that decide, beside the weights, what is written."""
    return model.model_dump(mode="json", include={"dtype", "quantisation", "chat_template", "rope_scaling"})


@dataclass
class _LocalWriter:
    """Answers calls with transformers, a few batches at a time. Limits: schemas are not enforced, only asked for."""

    model: ModelSettings
    weights: Weights
    settings: SelfSynthesisLabelsSettings
    report: Callable[[str], None]
    total: int | None
    _loaded: tuple[Any, Encoder] | None = field(default=None, init=False)

    def __call__(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        """Yield calls with replies, batch by batch."""
        waiting = iter(calls)
        with Progress("labels written here", None, self.report) as progress:
            while part := list(islice(waiting, self.settings.batch_size * _BATCHES)):
                for pair in self._answer(part):
                    progress.advance(1)
                    yield pair

    def _answer(self, calls: list[Call]) -> Iterator[tuple[Call, Reply]]:
        from rag_ft.generation import Request
        from rag_ft.generation.choose import choose_engine

        model, encoder = self._load()
        named = {str(place): call for place, call in enumerate(calls)}
        groups = [[Request(key, (encoder.tokenise(_prompt(encoder, call)),))] for key, call in named.items()]
        engine = choose_engine(
            model,
            encoder,
            groups,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            share=False,
        )
        for batch in engine.generate(groups):
            for written in batch:
                call = named[written.key]
                yield call, self._reply(call, written, encoder)

    def _load(self) -> tuple[Any, Encoder]:
        from rag_ft.models.load import load_model, load_tokenizer
        from rag_ft.prompting.encode import Encoder
        from rag_ft.prompting.settings import PromptSettings

        if self._loaded is None:
            self.report(f"  {self.weights.reference} is loaded to write {self.total or 'the'} labels")
            tokenizer = load_tokenizer(self.model, self.weights)
            encoder = Encoder(tokenizer, PromptSettings(), self.model.chat_template_kwargs)
            self._loaded = load_model(self.model, self.weights).eval(), encoder
        return self._loaded

    def _reply(self, call: Call, written: Generation, encoder: Encoder) -> Reply:
        if written.failure is not None:
            return Reply(prompt_tokens=written.prompt_tokens, seconds=written.seconds, failure=written.failure)
        return Reply(
            text=call.begun + _continued(call.begun, written.ids, encoder),
            prompt_tokens=written.prompt_tokens,
            output_tokens=len(written.ids),
            truncated=len(written.ids) >= self.settings.max_new_tokens,
            confidence=written.confidence,
            seconds=written.seconds,
        )


def _continued(begun: str, ids: Sequence[int], encoder: Encoder) -> str:
    """Return what tokens say behind a text; alone, some tokenizers would lose the space in front of them."""
    lead = encoder.tokenise(begun) if begun else ()
    before, whole = (encoder.tokenizer.decode(list(one), skip_special_tokens=True) for one in (lead, (*lead, *ids)))
    return str(whole[len(before) :])


def _prompt(encoder: Encoder, call: Call) -> str:
    """Return a conversation as the chat template has it, and the beginning of what follows.

    Passages in it have no power over control tokens.
    """
    messages = [{**message, "content": encoder.safe(message["content"])} for message in call.messages]
    prompt = encoder.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **encoder.template_kwargs
    )
    return f"{prompt}{encoder.safe(call.begun)}"
