"""A world of invented people, places, organisations and works, so that no model knows it and every label is exact."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.settings import Settings
from data_builders.sources.invented_world_blocks import BLOCK, FAMILY, GRAMMAR, draw_block
from data_builders.sources.invented_world_model import Entity
from data_builders.sources.invented_world_writing import Fact, Written, ask, one_hop_facts, two_hop_facts, write_passage
from data_builders.sources.rows import SPLITS, Mapper, SourceBase, SourceRecord

_LEAST_BLOCKS = 5  # a world so small that retrieval ranks all of it would teach and measure nothing


class QuestionCounts(Settings):
    """How many questions each split gets; the number of entities follows from it."""

    train: Annotated[int, Field(ge=0)] = 2000
    """Questions to train on."""
    validation: Annotated[int, Field(ge=0)] = 200
    """Questions to watch while training."""
    test: Annotated[int, Field(ge=1)] = 200
    """Questions to evaluate on."""


class InventedWorldSettings(SourceBase):
    """Passages and questions about people, places, organisations and works that do not exist."""

    kind: Literal["invented_world"] = "invented_world"
    """An embedded source: needs no file and no network."""
    questions: QuestionCounts = QuestionCounts()
    """Questions per split; entities of different splits are disjoint."""
    passages: Annotated[int, Field(ge=0)] = 0
    """Fewest passages of the training split; those beyond what its questions need are never asked about."""
    words: tuple[Annotated[int, Field(ge=40, le=120)], Annotated[int, Field(ge=40, le=120)]] = (40, 120)
    """Shortest and longest passage, in words."""
    two_hop_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of questions that need two passages."""

    @model_validator(mode="after")
    def _shortest_before_longest(self) -> InventedWorldSettings:
        if self.words[0] > self.words[1]:
            raise ValueError(
                f"words is {list(self.words)}, but the shortest passage comes first and the longest second; "
                f"write words: [{self.words[1]}, {self.words[0]}]"
            )
        return self


@dataclass(frozen=True)
class _Block:
    """The facts of one block that are still to be asked about."""

    families: Mapping[str, tuple[Entity, ...]]
    written: Mapping[str, Written]
    one_hop: Iterator[Fact]
    two_hop: Iterator[Fact]
    seed: int

    def ask(self, two_hop: bool, id_: str) -> Question:
        """Ask about the next fact."""
        return ask(next(self.two_hop if two_hop else self.one_hop), id_, self.families, self.written, self.seed)


class InventedWorld:
    """The source itself: passages and questions that are a pure function of settings, seed and split.

    The same seed gives the same bytes; with more questions a split keeps its entities and gets further ones.
    """

    def __init__(self, settings: InventedWorldSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._facts = facts_per_passage(settings.words)
        self._quota = _questions_per_block(self._facts, settings.two_hop_share)

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream passages and questions of the three splits, which share no passage."""
        for split in SPLITS:
            yield from (replace(passage, split=split) for passage in self.passages(split))
            yield from (replace(question, split=split) for question in self.questions(split))

    def passages(self, split: str) -> Iterator[Passage]:
        """Stream the passages of a split: those the questions need, and never fewer than 240 if it has questions."""
        questions, least = self._count(split), math.ceil(self._settings.passages / BLOCK) if split == "train" else 0
        blocks = max(_LEAST_BLOCKS, least, math.ceil(questions / self._quota)) if questions else 0
        for number in range(blocks):
            families = draw_block(self._seed, split, number, self._facts)
            for entity in itertools.chain.from_iterable(families.values()):
                yield write_passage(entity, self._settings.words, self._seed).passage

    def questions(self, split: str) -> Iterator[Question]:
        """Stream the questions of a split; about five are asked of each passage.

        The first ones are dealt out among the least blocks in turn, so that a small split asks about all of them.
        """
        count, dealt = self._count(split), _LEAST_BLOCKS * self._quota
        blocks = [self._block(split, number) for number in range(_LEAST_BLOCKS)] if count else []
        turns = Counter[bool]()
        for index in range(min(count, dealt)):
            two_hop = self._is_two_hop(index)
            yield blocks[turns[two_hop] % _LEAST_BLOCKS].ask(two_hop, f"{split}-q{index:06d}")
            turns[two_hop] += 1
        for first in range(dealt, count, self._quota):
            block = self._block(split, first // self._quota)
            for index in range(first, min(first + self._quota, count)):
                yield block.ask(self._is_two_hop(index), f"{split}-q{index:06d}")

    def _block(self, split: str, number: int) -> _Block:
        families = draw_block(self._seed, split, number, self._facts)
        entities = itertools.chain.from_iterable(families.values())
        written = {entity.id: write_passage(entity, self._settings.words, self._seed) for entity in entities}
        rng = seeded(self._seed, "invented_world", split, "asked", number)
        one_hop = _take_turns(rng, one_hop_facts(families))
        return _Block(families, written, one_hop, _take_turns(rng, two_hop_facts(families)), self._seed)

    def _is_two_hop(self, index: int) -> bool:
        """Tell whether the running share of two-hop questions calls for one more at this index."""
        share = self._settings.two_hop_share
        return math.floor((index + 1) * share) > math.floor(index * share)

    def _count(self, split: str) -> int:
        return getattr(self._settings.questions, split)


def facts_per_passage(words: tuple[int, int]) -> int:
    """Return how many facts every passage states, about ten words each."""
    middle = (words[0] + words[1]) / 2
    return 4 if middle < 50 else 5 if middle < 62 else 6 if middle < 85 else 7


def _questions_per_block(facts: int, two_hop_share: float) -> int:
    """Return how many questions are asked of a block: five per passage, or as many as there are different facts."""
    one_hop, two_hop = BLOCK * facts, FAMILY * sum(kind.links for kind in GRAMMAR.values()) * facts
    limits = [5.0 * BLOCK]
    if two_hop_share < 1:  # one less: rounding may put one question more of a group into a block
        limits.append((one_hop - 1) / (1 - two_hop_share))
    if two_hop_share > 0:
        limits.append((two_hop - 1) / two_hop_share)
    return int(min(limits))


def _take_turns(rng: random.Random, facts: list[list[Fact]]) -> Iterator[Fact]:
    """Yield every fact once, in rounds: each entity's first, in random order, then each one's second."""
    for own in facts:
        rng.shuffle(own)
    for round_ in itertools.zip_longest(*facts):
        yield from rng.sample([fact for fact in round_ if fact is not None], sum(fact is not None for fact in round_))
