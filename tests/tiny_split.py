"""Questions and what retrieval found for them, written by hand: a split to compose contexts of."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from tiny_world import corpus_of

from data_builders.mapped import MappedRows
from data_builders.ranked import GUARDS, HITS_SCHEMA, Split
from data_builders.records import QUESTION_SCHEMA, Question


@dataclass(frozen=True)
class Ranked:
    """A question as retrieval left it: positions of its gold, and of the passages that `order` ranks best first.

    `bearing` passages hold the answer, which guards them; `guards` names other reasons by passage; `found` gives the
    ranks of several retrievers by passage, where bm25 alone is not enough.
    """

    gold: tuple[int, ...]
    order: Sequence[int]
    answers: tuple[str, ...] = ("answer",)
    bearing: Collection[int] = ()
    guards: Mapping[int, str] = field(default_factory=dict)
    found: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    source: str = "tiny"
    question: str = "What is it?"
    alternatives: tuple[str, ...] = ()

    def as_question(self, name: str) -> Question:
        """Return the question with its annotations."""
        gold = tuple(f"p{position}" for position in self.gold)
        return Question(name, self.question, self.answers, gold, source=self.source, alternatives=self.alternatives)

    def hits(self, names: list[str]) -> list[dict[str, Any]]:
        """Return rows of the hits table."""
        return [self._hit(passage, rank, names) for rank, passage in enumerate(self.order, start=1)]

    def _hit(self, passage: int, rank: int, names: list[str]) -> dict[str, Any]:
        guard = "gold" if passage in self.gold else "answer" if passage in self.bearing else ""
        found = [
            {"retriever": names.index(name), "rank": place}
            for name, place in self.found.get(passage, {"bm25": rank}).items()
        ]
        return {
            "passage": passage,
            "retriever": found[0]["retriever"],
            "rank": rank,
            "score": 100.0 - rank,
            "has_answer": int(passage in self.bearing),
            "guard": GUARDS.index(self.guards.get(passage, guard)),
            "found": found,
        }


def split_of(texts: Sequence[str], *questions: Ranked) -> Split:
    """Return a split whose passages hold `texts`, with questions q0, q1, ..."""
    names = sorted({"bm25", *(name for one in questions for ranks in one.found.values() for name in ranks)})
    asked = [asdict(one.as_question(f"q{row}")) for row, one in enumerate(questions)]
    hits = [{"row": row, "gold": one.gold, "hits": one.hits(names)} for row, one in enumerate(questions)]
    schema = HITS_SCHEMA.with_metadata({"retrievers": json.dumps(names)})
    return Split(
        corpus_of(list(texts)),
        MappedRows(pa.Table.from_pylist(asked, schema=QUESTION_SCHEMA)),
        pa.Table.from_pylist(hits, schema=schema),
    )
