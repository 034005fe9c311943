"""Named suites: what sweeps and references they stand for, fitted to what the data offer. Asks nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rag_ft.evaluation.settings import EvaluationSettings, SweepSettings

Suite = Callable[[EvaluationSettings], EvaluationSettings]

QUICK_QUESTIONS = 100
_NOISE = (0.0, 0.2, 0.4, 0.6, 0.8)
_POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Offer:
    """What the data have to show.

    Attributes:
        passages: the most that a pool holds.
        retrievers: names of those that found something.
        documents: the corpus says which document passages were cut from.
    """

    passages: int
    retrievers: tuple[str, ...] = ()
    documents: bool = False


def _quick(settings: EvaluationSettings) -> EvaluationSettings:
    """A look in minutes: three counts, gold kept and absent, on 100 questions at most."""
    asked = min(settings.questions or QUICK_QUESTIONS, QUICK_QUESTIONS)
    absent = SweepSettings(passages=(5,), gold=("absent",))
    return _with(settings, (1, 5, 10), ("kept",), (absent,)).model_copy(update={"questions": asked})


def _robust(settings: EvaluationSettings) -> EvaluationSettings:
    """Every axis by itself at one count or two."""
    sweeps = (
        SweepSettings(passages=(5, 10), gold=("absent",)),
        SweepSettings(passages=(10,), position=_POSITIONS),
        SweepSettings(passages=(10,), order=("shuffled",)),
        SweepSettings(passages=(5,), noise=_NOISE),
        SweepSettings(passages=(10,), negatives=("hard", "weak", "random")),
        SweepSettings(passages=(5,), gold=("counterfactual",)),
    )
    return _with(settings, (1, 2, 5, 10, 20), ("kept", "retrieved"), sweeps, by_retriever=(5, 10))


def _full(settings: EvaluationSettings) -> EvaluationSettings:
    """Every axis at several counts, and the documents that gold was cut from."""
    sweeps = (
        SweepSettings(passages=(1, 5, 10, 20), gold=("absent", "counterfactual")),
        SweepSettings(passages=(5, 10, 20), position=_POSITIONS),
        SweepSettings(passages=(5, 10, 20), order=("reordered",), gold=("kept", "retrieved")),
        SweepSettings(passages=(5, 10, 20), order=("shuffled",), draws=5),
        SweepSettings(passages=(5, 10, 20), noise=(*_NOISE, 1.0)),
        SweepSettings(passages=(5, 10, 20), negatives=("hard", "weak", "random")),
        SweepSettings(passages=(10,), negatives=("random",), position=_POSITIONS),
    )
    found = _with(settings, (1, 2, 3, 5, 10, 15, 20), ("kept", "retrieved"), sweeps, by_retriever=(1, 5, 10, 20))
    return found.model_copy(update={"references": ("closed_book", "gold_only", "full_document")})


def _rgb(settings: EvaluationSettings) -> EvaluationSettings:
    """RGB's four abilities over five passages (arXiv 2309.01431).

    Noise robustness: noise 0 to 0.8. Negative rejection: gold absent. Information integration: the same noise, on the
    group of questions that need several passages. Counterfactual robustness: gold that states another answer.
    """
    sweeps = (
        SweepSettings(passages=(5,), noise=_NOISE),
        SweepSettings(passages=(5,), gold=("absent", "counterfactual")),
    )
    return _with(settings, (5,), ("kept",), sweeps)


SUITES: dict[str, Suite] = {"quick": _quick, "robust": _robust, "full": _full, "rgb": _rgb}
"""Name -> the evaluation a suite stands for, before it is fitted to the data."""


def _with(
    settings: EvaluationSettings,
    passages: tuple[int, ...],
    gold: tuple[str, ...],
    sweeps: Sequence[SweepSettings],
    by_retriever: tuple[int, ...] = (),
) -> EvaluationSettings:
    """Return settings with other points; the retriever "*" stands for every one there is, until these are known."""
    ranked = (
        [SweepSettings(passages=by_retriever, gold=("kept", "retrieved"), retriever=("*",))] if by_retriever else []
    )
    update: dict[str, Any] = {
        "passages": passages,
        "gold": gold,
        "sweeps": (*sweeps, *ranked),
        "references": ("closed_book", "gold_only"),
    }
    return settings.model_copy(update=update)


def suited(settings: EvaluationSettings, offer: Offer) -> tuple[EvaluationSettings, list[str]]:
    """Return the evaluation that `suite` stands for, as far as the data go, and lines about what was left out.

    Without a suite the settings come back as they are.
    """
    if settings.suite is None:
        return settings, []
    wanted = SUITES[settings.suite](settings)
    everything = (wanted.passages, *(sweep.passages for sweep in wanted.sweeps))
    beyond = sorted({count for counts in everything for count in counts if count > offer.passages})
    lines = []
    if beyond:
        counts = ", ".join(map(str, beyond))
        lines.append(f"suite {settings.suite}: no counts of {counts}, since pools hold {offer.passages} passages")
    if any(sweep.retriever for sweep in wanted.sweeps) and len(offer.retrievers) < 2:
        lines.append(f"suite {settings.suite}: no retriever is compared with another, since there is one")
    if "full_document" in wanted.references and not offer.documents:
        lines.append(f"suite {settings.suite}: no full documents, since the passages name none")
    return _fitted(wanted, offer), lines


def _fitted(wanted: EvaluationSettings, offer: Offer) -> EvaluationSettings:
    sweeps = []
    for sweep in wanted.sweeps:
        if sweep.retriever:
            sweep = sweep.model_copy(update={"retriever": offer.retrievers})
        if not sweep.retriever or len(offer.retrievers) > 1:
            sweeps.append(sweep.model_copy(update={"passages": _within(sweep.passages, offer)}))
    kept = [one for one in wanted.references if one != "full_document" or offer.documents]
    return wanted.model_copy(
        update={
            "passages": _within(wanted.passages, offer),
            "sweeps": tuple(dict.fromkeys(sweeps)),
            "references": tuple(kept),
        }
    )


def _within(counts: tuple[int, ...], offer: Offer) -> tuple[int, ...]:
    """Return the counts that a pool can fill; where it fills none, the one it can."""
    return tuple(count for count in counts if count <= offer.passages) or (offer.passages,)
