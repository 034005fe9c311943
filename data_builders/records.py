"""The rows that travel through the house, their Arrow schemas and their checks. Files of them are in tables.py.

Two tables are contracts: `Pool` (what retrieval found; evaluation reads it) and `ContextRow` (one composed context and
the questions asked of it; training reads it). Both are Parquet and load with `datasets.load_dataset("parquet")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_builders.errors import RagFtError


@dataclass(frozen=True)
class Passage:
    """The unit of retrieval. Rows that show passages keep id, title and text; the corpus keeps all fields.

    Attributes:
        document: the file or article it was cut from, empty where the source does not say.
        page: its page in that file, counted from 1; 0 where there are none.
        split: the one split whose corpus it belongs to; empty for every split's.
    """

    id: str
    title: str
    text: str
    document: str = ""
    page: int = 0
    split: str = ""


@dataclass(frozen=True)
class GoldEvidence:
    """A verbatim quote of a gold passage and why it matters."""

    passage_id: str
    quote: str
    reason: str


@dataclass(frozen=True)
class Question:
    """A question with gold annotations.

    Attributes:
        answers: accepted answers; the first is the one a label writes, the others are aliases. With neither answers
            nor gold the question is annotated as unanswerable (SQuAD 2.0).
        gold: ids of the passages annotated as holding the answer; all of them are needed (two for two hops).
        alternatives: ids of further passages that support the answer as well: never needed, never negatives.
        evidence: one or more quotes per gold passage, empty where the source has none.
        analysis: one or two sentences from evidence to answer, empty where the source has none.
        source: the data set it comes from.
        group: the slice it is reported under, for example `one_hop`.
        split: where the source puts it; empty leaves that to `data.splits`.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    evidence: tuple[GoldEvidence, ...] = ()
    analysis: str = ""
    source: str = ""
    group: str = ""
    split: str = ""
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """What a retriever of the source's own ranked for one question, best first (`ctxs` of DPR and the like)."""

    question: str
    retriever: str
    passages: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Retrieved:
    """Where a passage came from, for one question. `rank` counts from 1."""

    retriever: str
    rank: int
    score: float


@dataclass(frozen=True)
class PoolPassage:
    """A passage of a pool.

    Attributes:
        is_gold: annotated as holding the answer.
        has_answer: contains an accepted answer.
        retriever: who put it at this place; `gold` where nobody found it.
        rank: place given by that retriever, from 1; 0 for gold that nobody found, which stands at the end.
        score: that retriever's score.
        guard: why it may not be a negative (`gold`, `answer`, `near_duplicate`, `cross_encoder`); empty if it may.
        found: every retriever that found it.
    """

    id: str
    title: str
    text: str
    is_gold: bool
    has_answer: bool
    retriever: str
    rank: int
    score: float
    guard: str = ""
    found: tuple[Retrieved, ...] = ()

    @property
    def is_alternative(self) -> bool:
        """Whether the data name it as a passage that supports the answer as well as gold does."""
        return self.guard == "gold" and not self.is_gold


@dataclass(frozen=True)
class Pool:
    """A question and its ranked passages to the full depth; prefixes of it are what a sweep shows."""

    id: str
    question: str
    answers: tuple[str, ...]
    source: str
    group: str
    passages: tuple[PoolPassage, ...]


@dataclass(frozen=True)
class Relevance:
    """A judgement of one shown passage (`passage` indexes into the context)."""

    passage: int
    relevant: bool
    reason: str


@dataclass(frozen=True)
class Evidence:
    """A verbatim quote of one shown passage (`passage` indexes into the context)."""

    passage: int
    quote: str
    reason: str


@dataclass(frozen=True)
class Label:
    """What the generator should write. An abstaining label has no evidence and `answer` None."""

    relevance: tuple[Relevance, ...]
    evidence: tuple[Evidence, ...]
    analysis: str
    answer: str | None


@dataclass(frozen=True)
class ContextQuestion:
    """A question asked of one context. Integers in `gold` and `has_answer` index into the context's passages.

    `answerable` is a property of the context: all gold passages are shown. `has_answer` lists shown passages that
    contain an alias of the answer without being gold. `retrieved` is parallel to the passages (None: not retrieved).
    """

    id: str
    question: str
    answers: tuple[str, ...]
    answerable: bool
    gold: tuple[int, ...]
    has_answer: tuple[int, ...]
    retrieved: tuple[Retrieved | None, ...]
    label: Label | None
    label_source: str
    source: str
    group: str


@dataclass(frozen=True)
class ContextRow:
    """One composed context, its passages in the order shown, and the questions asked of it."""

    id: str
    passages: tuple[Passage, ...]
    questions: tuple[ContextQuestion, ...]


_TEXT = pa.string()
_PASSAGE = [("id", _TEXT), ("title", _TEXT), ("text", _TEXT)]
_QUOTE = [("quote", _TEXT), ("reason", _TEXT)]
_RETRIEVED = [("retriever", _TEXT), ("rank", pa.int32()), ("score", pa.float32())]
_LABEL = pa.struct(
    [
        ("relevance", pa.list_(pa.struct([("passage", pa.int32()), ("relevant", pa.bool_()), ("reason", _TEXT)]))),
        ("evidence", pa.list_(pa.struct([("passage", pa.int32()), *_QUOTE]))),
        ("analysis", _TEXT),
        ("answer", _TEXT),
    ]
)

PASSAGE_SCHEMA = pa.schema([*_PASSAGE, ("document", _TEXT), ("page", pa.int32()), ("split", _TEXT)])
RANKING_SCHEMA = pa.schema(
    [
        ("question", _TEXT),
        ("retriever", _TEXT),
        ("passages", pa.list_(_TEXT)),
        ("scores", pa.list_(pa.float32())),
    ]
)
QUESTION_SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("question", _TEXT),
        ("answers", pa.list_(_TEXT)),
        ("gold", pa.list_(_TEXT)),
        ("evidence", pa.list_(pa.struct([("passage_id", _TEXT), *_QUOTE]))),
        ("analysis", _TEXT),
        ("source", _TEXT),
        ("group", _TEXT),
        ("split", _TEXT),
        ("alternatives", pa.list_(_TEXT)),
    ]
)
POOL_SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("question", _TEXT),
        ("answers", pa.list_(_TEXT)),
        ("source", _TEXT),
        ("group", _TEXT),
        (
            "passages",
            pa.list_(
                pa.struct(
                    [
                        *_PASSAGE,
                        ("is_gold", pa.bool_()),
                        ("has_answer", pa.bool_()),
                        *_RETRIEVED,
                        ("guard", _TEXT),
                        ("found", pa.list_(pa.struct(_RETRIEVED))),
                    ]
                )
            ),
        ),
    ]
)
CONTEXT_SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("passages", pa.list_(pa.struct(_PASSAGE))),
        (
            "questions",
            pa.list_(
                pa.struct(
                    [
                        ("id", _TEXT),
                        ("question", _TEXT),
                        ("answers", pa.list_(_TEXT)),
                        ("answerable", pa.bool_()),
                        ("gold", pa.list_(pa.int32())),
                        ("has_answer", pa.list_(pa.int32())),
                        ("retrieved", pa.list_(pa.struct(_RETRIEVED))),
                        ("label", _LABEL),
                        ("label_source", _TEXT),
                        ("source", _TEXT),
                        ("group", _TEXT),
                    ]
                )
            ),
        ),
    ]
)

Record = Passage | Question | Ranking | Pool | ContextRow
SCHEMAS: dict[type, pa.Schema] = {
    Passage: PASSAGE_SCHEMA,
    Question: QUESTION_SCHEMA,
    Ranking: RANKING_SCHEMA,
    Pool: POOL_SCHEMA,
    ContextRow: CONTEXT_SCHEMA,
}


def plain(value: Any) -> Any:
    """Return a record as dictionaries and lists, as `dataclasses.asdict` does without copying every text."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    fields = getattr(value, "__dataclass_fields__", None)
    return value if fields is None else {name: plain(getattr(value, name)) for name in fields}


def record_table(kind: type[Record], records: Iterable[Record]) -> pa.Table:
    """Return records of one `kind` as a table."""
    return pa.Table.from_pylist([plain(record) for record in records], schema=SCHEMAS[kind])


def check_context_row(row: ContextRow) -> None:
    """Check the invariants every builder must keep.

    Raises:
        RagFtError: an index points outside the context, gold and `answerable` disagree with the label, or a quote is
            not verbatim in the passage it cites.
    """
    for question in row.questions:
        problem = _first_problem(row, question)
        if problem:
            raise RagFtError(f"context row {row.id}, question {question.id}: {problem}.")


def _first_problem(row: ContextRow, question: ContextQuestion) -> str | None:
    count = len(row.passages)
    label = question.label
    cited = [item.passage for item in label.evidence] if label else []
    judged = [item.passage for item in label.relevance] if label else []
    if any(not 0 <= index < count for index in (*question.gold, *question.has_answer, *cited, *judged)):
        return f"an index points outside its {count} passages"
    if len(question.retrieved) != count:
        return f"retrieved has {len(question.retrieved)} entries for {count} passages"
    if label and label.evidence and not question.answerable:
        return "its label quotes evidence although the context is not answerable"
    for item in label.evidence if label else ():
        if item.quote not in row.passages[item.passage].text:
            return f'the quote "{item.quote}" is not in passage {item.passage}'
    return None
