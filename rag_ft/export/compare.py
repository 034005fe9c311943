"""Whether exported weights answer as the adapter does: logits on eight prompts, side by side. Exports nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data_builders.errors import RagFtError
from data_builders.records import Evidence, Label, Passage, Question, Relevance
from data_builders.sources.invented_world import InventedWorld, InventedWorldSettings, QuestionCounts
from rag_ft.prompting.encode import Encoder, Ids

if TYPE_CHECKING:
    import torch

PROMPTS = 8
_SHOWN = 3  # passages, the gold ones among them
_SEED = 8


@dataclass(frozen=True)
class Probe:
    """A prompt with an answer to it, as token ids; the model is compared where it writes the answer."""

    ids: Ids
    answer: int

    @property
    def positions(self) -> slice:
        """Positions whose logits choose the tokens of the answer."""
        return slice(-self.answer - 1, -1)


@dataclass(frozen=True)
class Asked:
    """Eight prompts and what the adapter answers to them.

    Attributes:
        probes: the prompts.
        adapter: the adapter's logits: for each probe, answer tokens x vocabulary.
    """

    probes: Sequence[Probe]
    adapter: Sequence[torch.Tensor]

    def compared(self, model: Any) -> Difference:
        """Return how far another model's answers are from the adapter's."""
        return difference(logits_of(model, self.probes), self.adapter)


@dataclass(frozen=True)
class Difference:
    """How far logits are from those of the adapter.

    Attributes:
        prompts: how many were asked.
        positions: tokens of their answers together; each has logits over the whole vocabulary.
        greatest: greatest absolute difference of a logit.
        span: of the adapter's logits, from the least to the greatest.
        same_first: positions at which the most likely token is the same.
    """

    prompts: int
    positions: int
    greatest: float
    span: float
    same_first: int

    @property
    def share(self) -> float:
        """The greatest difference as a share of the span."""
        return self.greatest / self.span if self.span else 0.0

    @property
    def agreement(self) -> float:
        """Share of positions at which the most likely token is the same."""
        return self.same_first / self.positions

    def facts(self) -> dict[str, Any]:
        """Return the numbers for export.json."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.prompts} prompts, {self.positions} tokens of answers: greatest difference of a logit "
            f"{self.greatest:.3g} ({100 * self.share:.2g} % of their range), same most likely token at "
            f"{self.same_first} of {self.positions}"
        )


def questions() -> list[tuple[Question, list[Passage]]]:
    """Return eight questions of an invented world, each with three passages that hold its answer."""
    counts = QuestionCounts(train=0, validation=0, test=PROMPTS)
    world = InventedWorld(InventedWorldSettings(questions=counts, words=(40, 60)), "export", _SEED)
    passages = {passage.id: passage for passage in world.passages("test")}
    return [(question, _shown(question, passages)) for question in world.questions("test")]


def _shown(question: Question, passages: Mapping[str, Passage]) -> list[Passage]:
    others = (passage for id_, passage in passages.items() if id_ not in question.gold)
    return list(itertools.islice(itertools.chain((passages[id_] for id_ in question.gold), others), _SHOWN))


def probes(encoder: Encoder) -> list[Probe]:
    """Return the eight questions with their answers as token ids, in the encoder's style."""
    return [_probe(encoder, question, shown) for question, shown in questions()]


def ask(model: Any, encoder: Encoder) -> Asked:
    """Ask an adapter on its base weights the eight prompts."""
    asked = probes(encoder)
    return Asked(asked, logits_of(model, asked))


def _probe(encoder: Encoder, question: Question, shown: Sequence[Passage]) -> Probe:
    prompt = [token for ids in encoder.prompt(question.question, shown) for token in ids]
    answer = [token for span in encoder.target(_label(question, shown)) for token in span.ids]
    return Probe((*prompt, *answer), len(answer))


def _label(question: Question, shown: Sequence[Passage]) -> Label:
    places = {passage.id: place for place, passage in enumerate(shown)}
    return Label(
        tuple(Relevance(place, id_ in question.gold, "it is or is not asked about") for id_, place in places.items()),
        tuple(Evidence(places[one.passage_id], one.quote, one.reason) for one in question.evidence),
        question.analysis,
        question.answers[0],
    )


def logits_of(model: Any, asked: Sequence[Probe]) -> list[torch.Tensor]:
    """Return each probe's logits where its answer is written: float32, answer tokens x vocabulary, on the CPU."""
    import torch

    found = []
    with torch.inference_mode():
        for probe in asked:
            ids = torch.tensor([probe.ids], device=model.device)
            found.append(model(input_ids=ids).logits[0, probe.positions].float().cpu())
    return found


def difference(found: Sequence[torch.Tensor], adapter: Sequence[torch.Tensor]) -> Difference:
    """Compare logits with those of the adapter; what is not finite counts as infinitely far."""
    pairs = list(zip(found, adapter, strict=True))
    width = min(found[0].shape[1], adapter[0].shape[1])  # a converted vocabulary may be padded
    far = [(one[:, :width] - other[:, :width]).abs().nan_to_num(nan=float("inf")).max() for one, other in pairs]
    span = max(float(each.max()) for each in adapter) - min(float(each.min()) for each in adapter)
    same = sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs)
    return Difference(len(pairs), sum(map(len, adapter)), max(map(float, far)), span, same)


def check_tolerance(found: Difference, tolerance: float) -> None:
    """Refuse an export whose logits are further away than rounding can explain.

    Raises:
        RagFtError: the greatest difference is more than `tolerance` of the range of the logits.
    """
    if not found.share <= tolerance:
        rounding = f"; if rounding alone may be that far off, set export.tolerance={_above(found.share)}"
        raise RagFtError(
            f"the export does not answer as the adapter does, and was deleted: the greatest difference of a logit is "
            f"{found.greatest:.3g}, which is {100 * found.share:.3g} % of their range, and export.tolerance allows "
            f"{100 * tolerance:.3g} %. Check that model.weights are those of the training"
            f"{rounding if found.share < 1 else ', and set export.dtype=float32'}."
        )


def check_agreement(found: Difference, agreement: float, remedy: str) -> None:
    """Refuse an export that too often finds another token most likely.

    Args:
        found: the difference.
        agreement: least share of positions with the same most likely token.
        remedy: what else to do about it.

    Raises:
        RagFtError: there are too few.
    """
    if found.agreement < agreement:
        raise RagFtError(
            f"the export does not answer as the adapter does, and was deleted: the most likely token is the same at "
            f"{found.same_first} of {found.positions} tokens of the answers, and export.agreement asks for "
            f"{100 * agreement:.3g} %. {remedy}, or set export.agreement={int(100 * found.agreement) / 100}."
        )


def _above(share: float) -> str:
    """Return a number a little above a share; 1 is the most there is."""
    return f"{(int(100 * share) + 1) / 100:g}" if share < 1 else "1"
