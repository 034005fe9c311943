"""A hand-written source: a few towns per split, three questions each and one of two hops, all facts distinct."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from data_builders.corpus import Corpus
from data_builders.manifest import Tally
from data_builders.records import PASSAGE_SCHEMA, GoldEvidence, Passage, Question

FACTS = {
    "train": [
        ("Aldo", "Berin", "1801", "red"),
        ("Bexa", "Corin", "1802", "blue"),
        ("Cyra", "Dorin", "1803", "green"),
        ("Dunn", "Eorin", "1804", "black"),
    ],
    "validation": [("Evra", "Forin", "1805", "white"), ("Fenn", "Gorin", "1806", "brown")],
    "test": [("Gild", "Horin", "1807", "grey"), ("Hark", "Iorin", "1808", "pink")],
}


class TinyWorld:
    """A `Source` whose every passage is gold for some question."""

    def __init__(self, settings: Any, name: str, seed: int) -> None:
        pass

    def records(self, tally: Tally, mapper: Any = map) -> Iterator[Passage | Question]:
        for split in FACTS:
            yield from (replace(passage, split=split) for passage in self.passages(split))
            yield from (replace(question, split=split) for question in self.questions(split))

    def passages(self, split: str) -> Iterator[Passage]:
        for number, (town, founder, year, colour) in enumerate(FACTS[split]):
            text = f"The town of {town} was founded in {year} by {founder}. The flag of the town is {colour}."
            yield Passage(f"{split}-{number}", town, text)

    def questions(self, split: str) -> Iterator[Question]:
        for number, (town, founder, year, colour) in enumerate(FACTS[split]):
            gold = f"{split}-{number}"
            first = f"The town of {town} was founded in {year} by {founder}."
            second = f"The flag of the town is {colour}."
            asked = [
                ("year", f"When was the town of {town} founded?", year, first),
                ("founder", f"Who founded the town of {town}?", founder, first),
                ("flag", f"Which colour has the flag of the town of {town}?", colour, second),
            ]
            for name, text, answer, quote in asked:
                evidence = (GoldEvidence(gold, quote, f"It tells of {town}."),)
                yield Question(f"{gold}-{name}", text, (answer,), (gold,), evidence, f"So {answer}.", "tiny", "one_hop")
        yield self._two_hops(split)

    def _two_hops(self, split: str) -> Question:
        (one, _, first, _), (two, _, second, _) = FACTS[split][:2]
        evidence = tuple(
            GoldEvidence(f"{split}-{number}", f"founded in {year}", f"It dates {town}.")
            for number, (town, year) in enumerate([(one, first), (two, second)])
        )
        gold = (f"{split}-0", f"{split}-1")
        text = f"Is the town of {one} older than the town of {two}?"
        return Question(f"{split}-older", text, ("It is older",), gold, evidence, "", "tiny", "two_hops")


def corpus_of(texts: list[str]) -> Corpus:
    """Return a corpus of passages p0, p1, ... without titles."""
    rows = [{"id": f"p{number}", "title": "", "text": text} for number, text in enumerate(texts)]
    return Corpus(pa.Table.from_pylist(rows, schema=PASSAGE_SCHEMA))
