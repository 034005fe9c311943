"""Which passages the teacher is asked about, and in which pairs: drawn by the seed. Sends nothing."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from data_builders.documents.chunks import words_in
from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.records import Passage
from data_builders.servers import Call
from data_builders.synthesis.links import linked
from data_builders.synthesis.prompts import answer_schema, question_messages, read_template
from data_builders.synthesis.settings import TeacherQuestionsSettings
from data_builders.templates import Template


@dataclass(frozen=True)
class Asked:
    """One call: the positions of the passages it shows, and the name that links two of them."""

    positions: tuple[int, ...]
    link: str = ""


def plan(
    settings: TeacherQuestionsSettings,
    passages: Sequence[Passage],
    seed: int,
    sources: Collection[str] = (),
    tally: Tally | None = None,
) -> list[Asked]:
    """Return the calls to make, in an order drawn by the seed, so that any beginning of it is a sample.

    Whether a passage is drawn depends on the seed, its split and its id, not on the passages beside it.
    `sources` are names of sources, where they stand before the ids.
    """
    tally = tally or Tally()
    drawn = [position for _, position in _drawn(_weighed(settings, passages, seed, tally), settings.passages)]
    paired = _chosen(drawn, passages, settings.hops, seed) if settings.hops else []
    links = linked(passages, paired, sources, seed) if paired else {}
    tally.count("passages asked about", len(drawn))
    tally.count("of them beside a linked passage", len(links))
    tally.count("of them alone for want of a linked passage", len(paired) - len(links))
    return [
        Asked((position, links[position].position), links[position].name) if position in links else Asked((position,))
        for position in drawn
    ]


def _weighed(
    settings: TeacherQuestionsSettings, passages: Iterable[Passage], seed: int, tally: Tally
) -> Iterator[tuple[float, int]]:
    for position, passage in enumerate(passages):
        if words_in(passage.text) < settings.min_words:
            tally.count("passages too short to ask about (data.questions.min_words)")
            continue
        yield _number(seed, "passages", passage), position


def _drawn(weighed: Iterator[tuple[float, int]], most: int | None) -> list[tuple[float, int]]:
    return sorted(weighed) if most is None else heapq.nsmallest(most, weighed)


def _chosen(drawn: Iterable[int], passages: Sequence[Passage], share: float, seed: int) -> list[int]:
    return [position for position in drawn if _number(seed, "hops", passages[position]) < share]


def _number(seed: int, what: str, passage: Passage) -> float:
    return seeded(seed, f"synthesis/{what}", passage.split, passage.id).random()


def calls(settings: TeacherQuestionsSettings, passages: Sequence[Passage], planned: Sequence[Asked]) -> Iterator[Call]:
    """Return the calls of a plan, made as they are taken; their keys are their places in it.

    Raises:
        RagFtError: the template cannot be filled in; before the first call.
    """
    return _calls(read_template(settings.template), settings, passages, planned)


def _calls(
    template: Template, settings: TeacherQuestionsSettings, passages: Sequence[Passage], planned: Sequence[Asked]
) -> Iterator[Call]:
    for place, asked in enumerate(planned):
        shown = [passages[position] for position in asked.positions]
        messages = question_messages(template, shown, settings.per_passage, asked.link)
        yield Call(str(place), messages, answer_schema(len(shown)))


def synthesis_calls(
    settings: TeacherQuestionsSettings, passages: Sequence[Passage], seed: int, sources: Collection[str] = ()
) -> Iterator[Call]:
    """Yield every call that questions for these passages take, for pricing them before they are made."""
    return calls(settings, passages, plan(settings, passages, seed, sources))
