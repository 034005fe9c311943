"""Citation recall and precision as ALCE judges them (arXiv 2305.14627, section 4.2), with a model for inference.

Recall: the share of sentences that the passages they cite entail together. Precision: the share of citations that do
not stand idle; a citation of an entailed sentence is idle where its passage does not entail the sentence alone and the
others entail it without it. Every citation of a sentence that is not entailed is wrong. Only the first three of a
sentence count. A sentence without citations, or with one of a passage that is not there, has recall 0, and its
citations are no part of precision; without any citation precision is 0.

Where we differ: [0] is no passage (elsewhere it becomes the last one); an answer that has no sentence scores 0 instead
of being skipped; sentences end where data_builders.sentences has them end, not nltk; abstentions are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from data_builders.entailment import Entails, Pair
from data_builders.records import PoolPassage
from data_builders.sentences import sentences
from rag_ft.evaluation.cases import Case
from rag_ft.prompting.parse import MARK, cited_numbers

Verdict = Callable[[Sequence[int], str], bool]
"""Tells whether passages, counted from 1 and read together, entail a sentence."""

MOST_CITATIONS = 3  # of a sentence


@dataclass(frozen=True)
class Claim:
    """A sentence without its marks, and the passages it cites, counted from 1 as written."""

    sentence: str
    cited: tuple[int, ...]


def claims(case: Case) -> list[Claim]:
    """Return the sentences of an output that ought to be grounded, with what each cites.

    Style reasoning: the reason given for each passage, which cites that passage. Style self_reasoning: the sentences of
    the analysis with their marks [n]; an analysis without any mark cites the passages quoted as evidence.
    """
    if case.style == "reasoning":
        named = [(f"[{one.passage}]", one.reason) for one in case.parsed.relevance]
        return [claim for mark, reason in named for claim in _claims(reason, mark)]
    quoted = dict.fromkeys(one.passage for one in case.parsed.evidence)
    unmarked = not cited_numbers(case.parsed.analysis)
    return _claims(case.parsed.analysis, "".join(f"[{number}]" for number in quoted) if unmarked else "")


def _claims(text: str, added: str) -> list[Claim]:
    """Cut a text into sentences without their marks; `added` marks are cited by each."""
    whole = [text[start:end] for start, end in sentences(text)]
    found = [Claim(" ".join(MARK.sub("", one).split()), tuple(cited_numbers(added + one))) for one in whole]
    return [claim for claim in found if any(map(str.isalnum, claim.sentence))]


@dataclass(frozen=True)
class Grounding:
    """Citation recall and precision of one answer."""

    recall: float
    precision: float


def grounding(told: Sequence[Claim], shown: int, entails: Verdict) -> Grounding:
    """Judge the sentences of one answer; `shown` is the number of passages."""
    supported = hits = cited = 0
    for claim in told:
        if numbers := _counted(claim, shown):
            good = entails(numbers, claim.sentence)
            supported += good
            cited += len(numbers)
            hits += (
                sum(_needed(numbers, place, claim.sentence, entails) for place in range(len(numbers))) if good else 0
            )
    return Grounding(supported / len(told) if told else 0.0, hits / cited if cited else 0.0)


def _counted(claim: Claim, shown: int) -> tuple[int, ...]:
    """Return the citations that are judged: none where one names no passage shown."""
    return claim.cited[:MOST_CITATIONS] if all(1 <= number <= shown for number in claim.cited) else ()


def _needed(numbers: Sequence[int], place: int, sentence: str, entails: Verdict) -> bool:
    """Tell whether a citation of an entailed sentence supports it alone, or is missed where it is taken away."""
    if len(numbers) == 1:
        return True
    return entails(numbers[place : place + 1], sentence) or not entails(_without(numbers, place), sentence)


def _without(numbers: Sequence[int], place: int) -> tuple[int, ...]:
    return (*numbers[:place], *numbers[place + 1 :])


def with_alce(cases: Sequence[Case], entails: Entails) -> list[Case]:
    """Return the cases with alce_recall and alce_precision in `measured`, where they apply.

    They apply to answers in reasoned styles from passages; a failed generation scores 0. The model is asked twice in
    all: for whole sentences, then for the single citations of those that are entailed. No pair is asked twice.
    """
    told = {place: claims(case) for place, case in enumerate(cases) if _applies(case)}
    judged: dict[Pair, bool] = {}
    _ask(judged, [pair for place, found in told.items() for pair in _whole(found, cases[place])], entails)
    _ask(judged, [pair for place, found in told.items() for pair in _single(found, cases[place], judged)], entails)
    return [
        _measured(case, grounding(told[place], len(case.shown), partial(_look_up, judged, case.shown)))
        if place in told
        else case
        for place, case in enumerate(cases)
    ]


def _applies(case: Case) -> bool:
    return case.names_passages and not case.parsed.abstained


def _measured(case: Case, found: Grounding) -> Case:
    values = {"alce_recall": found.recall, "alce_precision": found.precision}
    return replace(case, measured={**case.measured, **values})


def _ask(judged: dict[Pair, bool], pairs: Sequence[Pair], entails: Entails) -> None:
    new = [pair for pair in dict.fromkeys(pairs) if pair not in judged]
    judged.update(zip(new, entails(new) if new else (), strict=True))


def _whole(told: Sequence[Claim], case: Case) -> list[Pair]:
    counted = [(_counted(claim, len(case.shown)), claim.sentence) for claim in told]
    return [(_premise(numbers, case.shown), sentence) for numbers, sentence in counted if numbers]


def _single(told: Sequence[Claim], case: Case, judged: dict[Pair, bool]) -> list[Pair]:
    """Return what precision needs: each citation alone, and the others without it."""
    found = []
    for claim in told:
        numbers = _counted(claim, len(case.shown))
        if len(numbers) > 1 and _look_up(judged, case.shown, numbers, claim.sentence):
            sets = [part for place, one in enumerate(numbers) for part in ((one,), _without(numbers, place))]
            found += [(_premise(part, case.shown), claim.sentence) for part in sets]
    return found


def _look_up(judged: dict[Pair, bool], shown: Sequence[PoolPassage], numbers: Sequence[int], sentence: str) -> bool:
    return judged[_premise(numbers, shown), sentence]


def _premise(numbers: Sequence[int], shown: Sequence[PoolPassage]) -> str:
    """Return passages as ALCE gives them to the model: title and text, one after another."""
    cited = [shown[number - 1] for number in numbers]
    return "\n".join(f"Title: {one.title}\n{one.text}" if one.title else one.text for one in cited)
