"""What becomes of a question beside the others and beside the other passages: repeats, and answers found elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from data_builders.documents.evidence import fold
from data_builders.hygiene.forms import question_form
from data_builders.hygiene.questions import near_duplicate_groups
from data_builders.records import Passage, Question
from data_builders.synthesis.filters import Rejection
from data_builders.synthesis.settings import FiltersSettings
from data_builders.text import AnswerMatcher, contains_answer, joined

Search = Callable[[Sequence[str], int], Iterable[Sequence[int]]]
"""Takes questions and a depth; gives the positions of passages found for each, best first."""
_BATCH = 512


@dataclass(frozen=True)
class Kept:
    """A question that passed the filters of filters.py.

    Attributes:
        order: the call it came from and its place in the reply; the order in which questions are compared and written.
        question: as it will be asked.
        positions: of its gold passages in the corpus.
    """

    order: tuple[int, int]
    question: Question
    positions: tuple[int, ...]


Judged = tuple[Kept, Rejection | None]


def without_repeats(
    kept: Sequence[Kept], asked_before: Iterable[Question], threshold: float | None
) -> Iterator[Judged]:
    """Yield every question with what speaks against it: that another one asks the same.

    One with the wording of an earlier one goes; where the answers differ, the wording means two things and all of the
    written ones go. One with nearly the wording (see `near_duplicate_groups`) goes if an earlier one has its answer.

    Args:
        kept: questions in their order.
        asked_before: questions of the sources; they stay, whatever is written.
        threshold: Jaccard similarity of words from which wordings are near; None compares whole wordings.
    """
    before = list(asked_before)
    questions = [*before, *(one.question for one in kept)]
    forms = [question_form(question.question) for question in questions]
    groups: Iterable[int] = range(len(questions))
    if threshold is not None:
        groups = near_duplicate_groups((question.question for question in questions), threshold).tolist()
    meanings = _ambiguous(forms, questions)
    first: dict[tuple[str, str], Question] = {}
    for place, (question, form, group) in enumerate(zip(questions, forms, groups, strict=True)):
        keys = [("wording", form), *((str(group), joined(answer)) for answer in question.answers)]
        earlier = next((first[key] for key in keys if key in first), None)
        if place >= len(before):
            yield kept[place - len(before)], _repeats(question, earlier, form in meanings)
        if earlier is None:
            first.update(dict.fromkeys(keys, question))


def _repeats(question: Question, earlier: Question | None, ambiguous: bool) -> Rejection | None:
    if ambiguous:
        return Rejection("repeats", "the same words ask for different answers in different passages")
    return None if earlier is None else Rejection("repeats", f'it asks what "{earlier.question}" asks')


def _ambiguous(forms: Sequence[str], questions: Sequence[Question]) -> set[str]:
    """Return the wordings whose questions have answers that do not agree: neither stands in the other."""
    answers: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for form, question in zip(forms, questions, strict=True):
        answers[form].append(question.answers)
    return {form for form, found in answers.items() if any(not _agree(found[0], other) for other in found[1:])}


def _agree(some: Sequence[str], others: Sequence[str]) -> bool:
    return any(contains_answer(one, others) for one in some) or any(contains_answer(one, some) for one in others)


def answered_elsewhere(
    kept: Sequence[Kept], passages: Sequence[Passage], search: Search, settings: FiltersSettings
) -> Iterator[Judged]:
    """Yield every question with what speaks against it: that another of the passages found for it holds the answer.

    By setting such passages become alternatives instead. Those that hold a quote of the question always do: a copy, or
    the next chunk that repeats a sentence. A passage of another split does not count: nobody is shown both.
    """
    for start in range(0, len(kept), _BATCH):
        batch = kept[start : start + _BATCH]
        found = search([one.question.question for one in batch], settings.searched + 2)
        for one, positions in zip(batch, found, strict=True):
            others = [passages[position] for position in positions if position not in one.positions]
            split = one.question.split
            yield _judge(one, [p for p in others if not split or p.split in ("", split)][: settings.searched], settings)


def _judge(one: Kept, others: Sequence[Passage], settings: FiltersSettings) -> Judged:
    question = one.question
    quotes = [fold(item.quote) for item in question.evidence]
    matcher = AnswerMatcher.of(question.answers, question.question)
    same, holding = [], []
    for passage in others:
        text = fold(passage.text)
        if any(quote in text for quote in quotes):
            same.append(passage.id)
        elif matcher.bears(joined(f"{passage.title}\n{passage.text}")):
            holding.append(passage.id)
    rejection = None
    if holding and settings.elsewhere == "reject":
        rejection = Rejection("elsewhere", f'passage {holding[0]} holds the answer "{question.answers[0]}" too')
    alternatives = tuple(dict.fromkeys([*same, *holding]))
    return replace(one, question=replace(question, alternatives=alternatives)), rejection
