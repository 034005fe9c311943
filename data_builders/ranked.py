"""One split read back for composing contexts: questions, what retrieval found, passages. Numbers in mapped files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.hits import Hit
from data_builders.mapped import MappedRows, map_table
from data_builders.records import Question
from data_builders.tables import question_of

MISSED = "gold"  # the retriever named for a gold passage that no retriever found
GUARDS = ("", "gold", "answer", "near_duplicate", "cross_encoder")
_HIT = pa.struct(
    [
        ("passage", pa.int32()),
        ("retriever", pa.int8()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("has_answer", pa.int8()),
        ("guard", pa.int8()),
        ("found", pa.list_(pa.struct([("retriever", pa.int8()), ("rank", pa.int32())]))),
    ]
)
HITS_SCHEMA = pa.schema([("row", pa.int32()), ("gold", pa.list_(pa.int32())), ("hits", pa.list_(_HIT))])


@dataclass(frozen=True)
class RankedQuestion:
    """What composing a context needs to know of one question. `gold` and `hits` are positions in the corpus."""

    id: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    hits: tuple[Hit, ...]


class _Chunk:
    """The hits of some consecutive questions as flat columns that stay in the mapped file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        gold, hits = batch.column("gold"), batch.column("hits")
        self.gold_borders, self.gold = gold.offsets.to_numpy(), gold.values.to_numpy()
        self.borders = hits.offsets.to_numpy()
        names = ("passage", "retriever", "rank", "score", "has_answer", "guard")
        self.columns = [hits.values.field(name).to_numpy() for name in names]
        found = hits.values.field("found")
        self.found_borders = found.offsets.to_numpy()
        self.found = [found.values.field(name).to_numpy() for name in ("retriever", "rank")]


class Split:
    """Questions, hits and passages of one split. A row counts the questions that have a pool, in file order.

    Args:
        corpus: the passages the split searches.
        questions: the rows of its questions file, mapped.
        hits: a table of `HITS_SCHEMA`, mapped; `row` points into `questions`.
    """

    def __init__(self, corpus: Corpus, questions: MappedRows, hits: pa.Table) -> None:
        self.corpus = corpus
        self._retrievers: list[str] = json.loads((hits.schema.metadata or {}).get(b"retrievers", b"[]"))
        batches = [batch for batch in hits.to_batches() if batch.num_rows]
        self._chunks = [_Chunk(batch) for batch in batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._questions = questions
        self._rows = hits["row"].to_numpy()
        self.ids: list[str] = questions.column("id").take(hits["row"]).to_pylist()

    @classmethod
    def open(cls, passages: Sequence[Path], questions: Path, hits: Path) -> Split:
        """Read one split; texts and hits stay in their files.

        Raises:
            RagFtError: a file is missing or does not belong to the others.
        """
        asked, found = MappedRows.open(questions), map_table(hits)
        if found.num_rows and found["row"][-1].as_py() >= len(asked):
            raise RagFtError(
                f"{hits} and {questions} hold different questions. Build again with `rag-ft build RECIPE`."
            )
        return cls(Corpus.open(passages), asked, found)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sources(self) -> list[str]:
        """The data set of every question."""
        return self._questions.column("source").take(pa.array(self._rows)).to_pylist()

    def question(self, row: int) -> Question:
        """Return one question with its annotations."""
        return question_of(self._questions.row(int(self._rows[row])))

    def answers(self, row: int) -> tuple[str, ...]:
        """Return the accepted answers of one question."""
        return tuple(self._questions.row(int(self._rows[row]))["answers"])

    def gold_of(self, row: int) -> tuple[int, ...]:
        """Return the positions of a question's gold passages."""
        chunk, at = self._place(row)
        return tuple(chunk.gold[chunk.gold_borders[at] : chunk.gold_borders[at + 1]].tolist())

    def pool_passages(self, row: int, depth: int) -> list[int]:
        """Return the positions of the first `depth` passages of a question's pool."""
        chunk, at = self._place(row)
        low, high = chunk.borders[at], chunk.borders[at + 1]
        return chunk.columns[0][low : min(high, low + depth)].tolist()

    def ranked(self, row: int) -> RankedQuestion:
        """Return one question with everything that retrieval found for it."""
        return RankedQuestion(self.ids[row], self.answers(row), self.gold_of(row), tuple(self._hits(row)))

    def _hits(self, row: int) -> list[Hit]:
        chunk, at = self._place(row)
        low, high = int(chunk.borders[at]), int(chunk.borders[at + 1])
        borders = chunk.found_borders[low : high + 1].tolist()
        names, ranks = (column[borders[0] : borders[-1]].tolist() for column in chunk.found)
        found = [(self._retrievers[name], rank) for name, rank in zip(names, ranks, strict=True)]
        spans = [(first - borders[0], last - borders[0]) for first, last in pairwise(borders)]
        rows = zip(*(column[low:high].tolist() for column in chunk.columns), spans, strict=True)
        return [
            Hit(passage, self._retrievers[name], rank, score, bool(bears), GUARDS[guard], tuple(found[first:last]))
            for passage, name, rank, score, bears, guard, (first, last) in rows
            if rank > 0  # 0: gold that no retriever found
        ]

    def _place(self, row: int) -> tuple[_Chunk, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._chunks[number], int(row - self._starts[number])


class Annotations:
    """Questions by id, read from a mapped file."""

    def __init__(self, rows: MappedRows) -> None:
        self._rows = rows
        self._row = {name: row for row, name in enumerate(rows.column("id").to_pylist())}

    @classmethod
    def read(cls, path: Path) -> Annotations:
        """Read a questions file for looking questions up by id."""
        return cls(MappedRows.open(path))

    def question(self, question_id: str) -> Question:
        """Return one question with its annotations."""
        return question_of(self._rows.row(self._row[question_id]))


def hits_schema(retrievers: Sequence[str]) -> pa.Schema:
    """Return the schema of a hits file, with the names that the numbers of retrievers stand for."""
    return HITS_SCHEMA.with_metadata({"retrievers": json.dumps(list(retrievers))})


@contextmanager
def hits_writer(path: Path, retrievers: Sequence[str]) -> Iterator[pa.RecordBatchFileWriter]:
    """Open an Arrow file of hits that can be mapped."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, hits_schema(retrievers)) as writer:
        yield writer
