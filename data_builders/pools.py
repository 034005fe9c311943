"""Pools: searching every question's split with every retriever, and reading the result back as numbers, not texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.negatives import Hit, bears_answer
from data_builders.records import (
    PASSAGE_SCHEMA,
    GoldEvidence,
    Passage,
    Pool,
    PoolPassage,
    Question,
    read_questions,
    write_records,
)
from data_builders.retrievers import RetrieverSettings, open_retriever, retriever_names

MISSED = "gold"  # the retriever named for a gold passage that no retriever found
_BATCH = 256
_CUTOFFS = (1, 2, 5, 10, 20)


class Corpus(Sequence[Passage]):
    """The passages of one split, held in Arrow: bytes of text, no Python object per passage."""

    def __init__(self, table: pa.Table) -> None:
        columns = table.select(PASSAGE_SCHEMA.names).combine_chunks()
        self._columns = [_one_chunk(columns[name]) for name in PASSAGE_SCHEMA.names]
        self.ids: pa.Array = self._columns[0]
        self._position: dict[str, int] = {}

    @classmethod
    def read(cls, path: Path) -> Corpus:
        """Read a passages file."""
        return cls(pq.read_table(path))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: Any) -> Any:
        return Passage(*(column[position].as_py() for column in self._columns))

    def text(self, position: int) -> str:
        """Return title and text as the guard reads them."""
        return f"{self._columns[1][position].as_py()}\n{self._columns[2][position].as_py()}"

    def position(self, passage_id: str) -> int | None:
        """Return where a passage stands, or None if it is not here."""
        if not self._position:
            self._position = {name: place for place, name in enumerate(self.ids.to_pylist())}
        return self._position.get(passage_id)


@dataclass(frozen=True)
class RankedQuestion:
    """What composing a context needs to know of one question. `gold` and `hits` are positions in the corpus."""

    id: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    hits: tuple[Hit, ...]


class Annotations:
    """Questions by id, held in Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._row = {name: row for row, name in enumerate(table["id"].to_pylist())}

    def question(self, question_id: str) -> Question:
        """Return one question with its annotations."""
        return _question(self._table.slice(self._row[question_id], 1).to_pylist()[0])


@dataclass(frozen=True)
class Split:
    """Questions, pools and passages of one split, as columns of numbers and Arrow texts."""

    corpus: Corpus
    questions: pa.Table
    ids: list[str]
    gold: Columns
    pools: Columns
    retrievers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def question(self, row: int) -> Question:
        """Return one question with its annotations."""
        return _question(self.questions.slice(row, 1).to_pylist()[0])

    def answers(self, row: int) -> tuple[str, ...]:
        """Return the accepted answers of one question."""
        return tuple(self.questions["answers"][row].as_py())

    def gold_of(self, row: int) -> tuple[int, ...]:
        """Return the positions of a question's gold passages."""
        return tuple(self.gold.row(row)["passage"])

    def pool_passages(self, row: int, depth: int) -> list[int]:
        """Return the positions of the first `depth` passages of a question's pool."""
        low, high = self.pools.borders[row], self.pools.borders[row + 1]
        return self.pools.values["passage"][low : min(high, low + depth)].tolist()

    def ranked(self, row: int) -> RankedQuestion:
        """Return one question with everything that retrieval found for it."""
        columns = self.pools.row(row)
        names = [self.retrievers[number] for number in columns["retriever"]]
        values = zip(columns["passage"], names, columns["rank"], columns["score"], columns["has_answer"], strict=True)
        hits = tuple(Hit(*value) for value in values if value[2] > 0)  # rank 0: gold that no retriever found
        return RankedQuestion(self.ids[row], self.answers(row), self.gold_of(row), hits)


@dataclass(frozen=True)
class Columns:
    """Lists of numbers, one list per row, as flat arrays with borders."""

    borders: np.ndarray[Any, Any]
    values: dict[str, np.ndarray[Any, Any]]

    def row(self, number: int) -> dict[str, list[Any]]:
        """Return the lists of one row."""
        low, high = self.borders[number], self.borders[number + 1]
        return {name: column[low:high].tolist() for name, column in self.values.items()}


def read_annotations(path: Path) -> Annotations:
    """Read a questions file for looking questions up by id."""
    return Annotations(pq.read_table(path).combine_chunks())


def read_split(passages: Path, questions: Path, pools: Path) -> Split:
    """Read one split for composing contexts. Memory: the passages once, the questions, and 13 bytes per pool entry."""
    corpus = Corpus.read(passages)
    table = pq.read_table(questions).combine_chunks()
    golds = _one_chunk(table["gold"])
    gold = Columns(_borders([pc.list_value_length(golds)]), {"passage": _positions(golds.flatten(), corpus)})
    columns, names, ids = _read_pools(pools, corpus)
    if ids != table["id"].to_pylist():
        raise RagFtError(
            f"{pools} and {questions} hold different questions. Build them again with `rag-ft build RECIPE`."
        )
    return Split(corpus, table, ids, gold, columns, names)


def _read_pools(path: Path, corpus: Corpus) -> tuple[Columns, tuple[str, ...], list[str]]:
    parts: dict[str, list[np.ndarray[Any, Any]]] = {
        name: [] for name in ("passage", "retriever", "rank", "score", "has_answer")
    }
    lengths, names, ids = [], [""], []
    entry = "passages.list.element."
    wanted = ["id", *(entry + name for name in ("id", "retriever", "rank", "score", "has_answer"))]
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=wanted):
        pools = batch.column("passages")
        flat = pools.flatten()
        ids += batch.column("id").to_pylist()
        lengths.append(pc.list_value_length(pools))
        parts["passage"].append(_positions(flat.field("id"), corpus))
        coded = flat.field("retriever").dictionary_encode()
        names += [name for name in coded.dictionary.to_pylist() if name not in names]
        recode = np.array([names.index(name) for name in coded.dictionary.to_pylist()], dtype=np.int8)
        parts["retriever"].append(recode[coded.indices.to_numpy()] if len(coded) else np.zeros(0, np.int8))
        for name in ("rank", "score"):
            parts[name].append(flat.field(name).to_numpy())
        parts["has_answer"].append(flat.field("has_answer").to_numpy(zero_copy_only=False))
    values = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts.items()}
    return Columns(_borders(lengths), values), tuple(names), ids


def _positions(ids: pa.Array, corpus: Corpus) -> np.ndarray[Any, Any]:
    """Turn passage ids into positions (the source step has checked that every gold id is there)."""
    return pc.index_in(ids, value_set=corpus.ids).to_numpy(zero_copy_only=False).astype(np.int32)


def _borders(lengths: list[pa.Array]) -> np.ndarray[Any, Any]:
    sizes = [part.to_numpy(zero_copy_only=False).astype(np.int64) for part in lengths]
    return np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum()


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _question(row: dict[str, Any]) -> Question:
    evidence = tuple(GoldEvidence(**item) for item in row["evidence"])
    return Question(**{**row, "answers": tuple(row["answers"]), "gold": tuple(row["gold"]), "evidence": evidence})


@dataclass
class Recall:
    """How good retrieval is: counts over the pools of one split."""

    questions: int = 0
    entries: int = 0
    bearing: int = 0
    all_gold: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_CUTOFFS, 0))
    any_answer: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_CUTOFFS, 0))

    def add(self, pool: Pool) -> None:
        """Count one pool."""
        found = [passage for passage in pool.passages if passage.rank > 0]
        golds = sum(passage.is_gold for passage in pool.passages)
        self.questions += 1
        self.entries += sum(not passage.is_gold for passage in found)
        self.bearing += sum(passage.has_answer and not passage.is_gold for passage in found)
        for cutoff in _CUTOFFS:
            top = found[:cutoff]
            self.all_gold[cutoff] += sum(passage.is_gold for passage in top) == golds
            self.any_answer[cutoff] += any(passage.has_answer for passage in top)

    def as_counts(self) -> dict[str, Any]:
        """Return shares for the manifest."""
        total = max(1, self.questions)
        return {
            "recall (all gold in the top k)": {str(k): round(n / total, 4) for k, n in self.all_gold.items()},
            "answer in the top k": {str(k): round(n / total, 4) for k, n in self.any_answer.items()},
            "share of negatives that bear the answer": round(self.bearing / max(1, self.entries), 4),
        }


def search_split(
    corpus: Corpus, questions: Iterable[Question], settings: Sequence[RetrieverSettings], depth: int
) -> Iterator[Pool]:
    """Search each question with each retriever over the corpus of its split; yield one pool per question, in order.

    Results of several retrievers are interleaved by rank; a passage found twice keeps its first place. Gold passages
    that none found follow at the end with rank 0 and score 0.
    """
    names, retrievers = retriever_names(settings), [open_retriever(one) for one in settings]
    for retriever in retrievers:
        retriever.index(corpus)
    stream = iter(questions)
    while batch := list(islice(stream, _BATCH)):
        queries = [question.question for question in batch]
        results = zip(*(retriever.search(queries, depth) for retriever in retrievers), strict=True)
        for question, found in zip(batch, results, strict=True):
            yield _pool(question, corpus, dict(zip(names, found, strict=True)))


def _pool(question: Question, corpus: Corpus, found: dict[str, list[tuple[int, float]]]) -> Pool:
    ranked: dict[int, tuple[str, int, float]] = {}
    for rank, row in enumerate(zip_longest(*found.values()), start=1):
        for name, hit in zip(found, row, strict=True):
            if hit is not None:
                ranked.setdefault(hit[0], (name, rank, hit[1]))
    for passage_id in question.gold:
        position = corpus.position(passage_id)
        if position is not None:
            ranked.setdefault(position, (MISSED, 0, 0.0))
    passages = tuple(_entry(question, corpus, position, *where) for position, where in ranked.items())
    return Pool(question.id, question.question, question.answers, question.source, question.group, passages)


def _entry(question: Question, corpus: Corpus, position: int, retriever: str, rank: int, score: float) -> PoolPassage:
    passage = corpus[position]
    bears = bears_answer(corpus.text(position), question.answers)
    is_gold = passage.id in question.gold
    return PoolPassage(passage.id, passage.title, passage.text, is_gold, bears, retriever, rank, score)


def write_pools(
    passages: Path, questions: Path, target: Path, retrieval: tuple[Sequence[RetrieverSettings], int], tally: Tally
) -> None:
    """Search one split and write its pools; add retrieval quality to the tally. `retrieval` is (retrievers, depth)."""
    recall, settings, depth = Recall(), *retrieval

    def counted() -> Iterator[Pool]:
        for pool in search_split(Corpus.read(passages), read_questions(questions), settings, depth):
            recall.add(pool)
            missed = sum(passage.rank == 0 for passage in pool.passages)
            if missed:
                tally.count("gold passages that retrieval missed", missed, pool.id)
            tally.measure("passages per pool", len(pool.passages))
            yield pool

    tally.rows[target.name] = write_records(target, Pool, counted())
    if tally.rows[target.name]:
        tally.counts[target.stem] = recall.as_counts()
