"""The false-negative guard: which retrieved passages may not be negatives, and why. Chooses no negatives.

Three tests, each told apart in what it leaves out: an accepted answer stands in the passage, the passage is a
near-duplicate of gold, a cross-encoder finds it as good as gold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_builders.errors import RagFtError
from data_builders.guard_settings import CrossEncoderSettings, GuardSettings
from data_builders.remembered import Remembered
from data_builders.shingles import Shingles, near_duplicates, shingles
from data_builders.text import AnswerMatcher, joined

if TYPE_CHECKING:
    from data_builders.corpus import Corpus

GOLD, ANSWER, NEAR_DUPLICATE, CROSS_ENCODER = "gold", "answer", "near_duplicate", "cross_encoder"
_KEPT = 1 << 25  # bytes of forms, and of shingles, that a process remembers: those of some 50,000 passages


@dataclass(frozen=True)
class Lookups:
    """What the guard reads of a passage, by its position in the corpus: normal form and shingles."""

    joined: Callable[[int], str]
    shingles: Callable[[int], Shingles]

    @classmethod
    def of(cls, corpus: Corpus, kept: int = _KEPT) -> Lookups:
        """Make them from the texts when asked for and remember `kept` bytes of each: questions share their passages."""
        form = Remembered[int, str](lambda position: joined(corpus.text(position)), kept)
        return cls(form, Remembered[int, Shingles](lambda position: shingles(form(position)), kept))


def guard_reasons(
    matcher: AnswerMatcher, gold: Collection[int], hits: Sequence[int], lookups: Lookups, settings: GuardSettings
) -> list[str]:
    """Return, per hit, why it may not be a negative: gold, answer, near_duplicate, or empty if it may.

    Args:
        matcher: the question's answers.
        gold: positions of its gold passages.
        hits: positions of the passages retrieved for it.
        lookups: what to read of a passage.
        settings: which tests to make; the cross-encoder's is not made here.
    """
    golds = set(gold)
    reasons = [GOLD if hit in golds else "" for hit in hits]
    if settings.answers:
        reasons = [
            reason or (ANSWER if matcher.bears(lookups.joined(hit)) else "")
            for hit, reason in zip(hits, reasons, strict=True)
        ]
    if settings.near_duplicates is None or not golds:
        return reasons
    left = [place for place, reason in enumerate(reasons) if not reason]
    sources = [lookups.shingles(position) for position in sorted(golds)]
    copies = near_duplicates(sources, [lookups.shingles(hits[place]) for place in left], settings.near_duplicates)
    for place in np.asarray(left)[copies] if left else ():
        reasons[place] = NEAR_DUPLICATE
    return reasons


class CrossEncoderGuard:
    """Flags passages that a reranker scores about as high as gold (positive-aware mining, arXiv 2407.15831).

    Scores are the model's single logit through a sigmoid, 0 to 1, whatever activation the model came with, so that a
    ratio of two means something. Flagged is what scores at least (1 - margin) times the highest gold score. The highest
    is right for both kinds of several gold passages: where each holds the answer, the best shows what the model can
    recognise; where all are needed (two hops), the later ones often share no word with the question and score near 0,
    which would flag nearly everything. Without gold nothing is flagged.

    Each question is scored by itself: padding depends on a batch's neighbours, and a result may not depend on how
    questions are dealt out to processes.

    Raises:
        RagFtError: the model cannot be loaded, or has more than one output.
    """

    def __init__(self, settings: CrossEncoderSettings) -> None:
        self._settings = settings
        self._model = _load(settings)

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return the score, 0 to 1, of each passage for the question."""
        import torch

        if not passages:
            return np.empty(0, np.float32)
        return self._model.predict(
            [(question, passage) for passage in passages],
            batch_size=self._settings.batch_size,
            activation_fn=torch.nn.Sigmoid(),
            show_progress_bar=False,
            convert_to_numpy=True,
        )

    def flagged(self, question: str, gold: Sequence[str], hits: Sequence[str]) -> list[bool]:
        """Tell, per hit, whether it scores like gold; hits after the first `top` are not read.

        Args:
            question: as it is asked.
            gold: texts of the gold passages.
            hits: texts of passages that are not gold, best ranked first.
        """
        read = hits[: self._settings.top] if gold else []
        if not read:
            return [False] * len(hits)
        scores = self.scores(question, [*gold, *read])
        flags = as_good_as_gold(scores[: len(gold)], scores[len(gold) :], self._settings.margin)
        return [*flags.tolist(), *[False] * (len(hits) - len(read))]


def as_good_as_gold(
    gold: np.ndarray[Any, Any], hits: np.ndarray[Any, Any], margin: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which `hits` score at least (1 - `margin`) times the highest of the `gold` scores, all of them 0 to 1."""
    return np.asarray(hits >= (1 - margin) * gold.max(), bool)


def _load(settings: CrossEncoderSettings) -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise RagFtError(
            "the cross-encoder guard needs sentence-transformers, which is not installed: run "
            "`pip install sentence-transformers` or set guard.cross_encoder to null."
        ) from error
    device = None if settings.device == "auto" else settings.device
    try:
        model = CrossEncoder(settings.model, revision=settings.revision, device=device, max_length=settings.max_length)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise RagFtError(
            f"guard.cross_encoder.model {settings.model} cannot be loaded: {reason}. Give the Hub id or the folder of "
            "a CrossEncoder, or set guard.cross_encoder to null."
        ) from error
    if problem := _problem(model):
        raise RagFtError(
            f"guard.cross_encoder.model {settings.model} {problem}. Give a reranker: a CrossEncoder with one output."
        )
    return model


def _problem(model: Any) -> str:
    """Say why a model gives no single score for a pair, or nothing.

    sentence-transformers loads a bare encoder without a word and puts a random layer on top; its scores are noise.
    """
    if model.num_labels != 1:
        return f"has {model.num_labels} outputs, so it gives no single score for a passage"
    kind = (model.config.architectures or [""])[0]
    if len(model) == 1 and not kind.endswith("ForSequenceClassification"):
        return f"is a {kind or 'model of unknown kind'}, which was not trained to score pairs of texts"
    return ""
