"""A folder as BEIR has it: a corpus, queries, and relevance judgements of each split. Ranks nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.sources.jsonl import answers_of, optional_text, within
from data_builders.sources.rows import (
    BadRow,
    Format,
    Mapper,
    Place,
    RowSettings,
    SourceRecord,
    Split,
    parsed_file,
    setting,
    text_lines,
    text_of,
)

_QRELS: dict[str, Split] = {"train": "train", "dev": "validation", "validation": "validation", "test": "test"}


class BeirSettings(RowSettings):
    """A folder with corpus.jsonl, queries.jsonl and qrels/*.tsv, as BEIR and its followers ship them."""

    kind: Literal["beir"]
    """A retrieval data set; questions train a generator only where they have answers."""
    path: str
    """The folder; its files may be plain or .gz."""
    answers: str | None = None
    """A JSON Lines file {_id, answers} for queries whose own rows have no answers."""
    all_gold: bool = False
    """Whether every relevant passage is needed; false: the best-judged one is gold, the others are alternatives."""


@dataclass(slots=True)
class _Judged:
    """The relevant passages of one query, as (score, id) in the order of the file."""

    split: Split
    passages: list[tuple[float, str]]

    def ids(self) -> tuple[str, ...]:
        """Return the passages, best score first."""
        return tuple(dict.fromkeys(id_ for _, id_ in sorted(self.passages, key=lambda pair: -pair[0])))


class Beir:
    """The source itself: the corpus streams by; judgements and extra answers are held as ids and texts."""

    def __init__(self, settings: BeirSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._name = name
        self._folder = Path(settings.path).expanduser()

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream the corpus, which all splits share, then the queries that have a relevant passage.

        A query judged in several splits belongs to the last of train, validation and test.

        Raises:
            RagFtError: a file is missing or unreadable, or a row does not fit and `bad_rows` is `stop`.
        """
        questions = self.questions(tally)
        yield from self._parsed(beir_file(self._folder, "corpus"), CORPUS, tally)
        yield from questions

    def questions(self, tally: Tally) -> Iterator[Question]:
        """Stream the queries that have a relevant passage; the judgements are read before the first one.

        Raises:
            RagFtError: as for `records`.
        """
        queries, judged, answers = beir_file(self._folder, "queries"), self._judgements(tally), self._answers(tally)
        return self._questions(self._parsed(queries, QUERIES, tally), judged, answers, tally)

    def _questions(
        self,
        queries: Iterator[SourceRecord],
        judged: dict[str, _Judged],
        answers: dict[str, tuple[str, ...]],
        tally: Tally,
    ) -> Iterator[Question]:
        for record in queries:
            if not isinstance(record, Question):
                continue
            if record.id not in judged:
                tally.drop("queries without a relevant passage", 1, record.id)
                continue
            ids, split = judged[record.id].ids(), judged[record.id].split
            gold = ids if self._settings.all_gold else ids[:1]
            known = record.answers or answers.get(record.id, ())
            yield replace(record, answers=known, gold=gold, alternatives=ids[len(gold) :], split=split)

    def _parsed(self, path: Path, format_: Format, tally: Tally) -> Iterator[SourceRecord]:
        return parsed_file(format_, (self._name, path), self._settings.bad_rows, tally)

    def _judgements(self, tally: Tally) -> dict[str, _Judged]:
        judged: dict[str, _Judged] = {}
        for split, path in qrels_files(self._folder):
            for query, passage, score in self._relevant(path, tally):
                if query in judged and judged[query].split != split:
                    tally.count("queries judged in several splits, taken for the last", 1, query)
                    del judged[query]
                judged.setdefault(query, _Judged(split, [])).passages.append((score, passage))
        return judged

    def _relevant(self, path: Path, tally: Tally) -> Iterator[tuple[str, str, float]]:
        """Yield query, passage and score of the judgements above zero."""
        for number, line in enumerate(text_lines(path), start=1):
            if not line.strip():
                continue
            judgement = parse_judgement(line)
            if judgement is not None and judgement[2] > 0:
                yield judgement
            elif judgement is None and number > 1:  # the first line may be a header
                problem = f"{path}, line {number} is not a judgement: query-id, corpus-id and score, cut by tabs"
                if self._settings.bad_rows == "stop":
                    raise RagFtError(f"{problem}. Mend the line, or set bad_rows: skip to leave such lines out.")
                tally.drop("judgements that do not fit kind beir", 1, f"{path.name} line {number}")

    def _answers(self, tally: Tally) -> dict[str, tuple[str, ...]]:
        if self._settings.answers is None:
            return {}
        path = Path(self._settings.answers).expanduser()
        if not path.is_file():
            raise RagFtError(f"{setting(self._name, 'answers')}: there is no file {path}. Give the path of your data.")
        found = self._parsed(path, ANSWERS, tally)
        return {record.id: record.answers for record in found if isinstance(record, Question)}


def beir_file(folder: Path, name: str) -> Path:
    """Return the file of a BEIR folder that holds the `corpus` or the `queries`.

    Raises:
        RagFtError: there is none.
    """
    for file in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if file.is_file():
            return file
    raise RagFtError(
        f"{folder} has no {name}.jsonl or {name}.jsonl.gz, so it is no BEIR folder: "
        "set path to the folder that holds corpus.jsonl, queries.jsonl and qrels/."
    )


def qrels_files(folder: Path) -> list[tuple[Split, Path]]:
    """Return the judgement files of a BEIR folder with the split of each, training first.

    Raises:
        RagFtError: there are none.
    """
    names = [(split, f"{stem}.tsv{zipped}") for stem, split in _QRELS.items() for zipped in ("", ".gz")]
    found = [(split, folder / "qrels" / name) for split, name in names if (folder / "qrels" / name).is_file()]
    if not found:
        raise RagFtError(f"{folder / 'qrels'} has none of train.tsv, dev.tsv and test.tsv: add the judgements there.")
    return found


def parse_judgement(line: str) -> tuple[str, str, float] | None:
    """Return query, passage and score of a line of judgements: BEIR's three columns or TREC's four; None for others."""
    columns = line.split("\t") if "\t" in line else line.split()
    if len(columns) not in (3, 4):
        return None
    try:
        score = float(columns[-1])
    except ValueError:
        return None
    return (columns[0].strip(), columns[-2].strip(), score) if math.isfinite(score) else None


def parse_passage(row: dict[str, Any], place: Place) -> Iterator[Passage]:
    """Yield the passage of a corpus row; its title is its document."""
    title = optional_text(row, "title")
    yield Passage(text_of(row, "_id"), title, text_of(row, "text"), document=title)


def parse_query(row: dict[str, Any], place: Place) -> Iterator[Question]:
    """Yield the question of a query row, with the answers that stand in it or in its metadata, and no gold yet."""
    text, metadata = text_of(row, "text"), row.get("metadata")
    if not text.strip():
        raise BadRow("text", "is empty")
    answers = answers_of(row)
    if answers is None and isinstance(metadata, dict):
        with within("metadata"):
            answers = answers_of(metadata)
    yield Question(text_of(row, "_id"), text, answers or (), (), source=place.source)


def parse_answers(row: dict[str, Any], place: Place) -> Iterator[Question]:
    """Yield the answers to a query as a question without text."""
    answers = answers_of(row)
    if answers is None:
        raise BadRow("answers", "is missing")
    yield Question(text_of(row, "_id"), "", answers, ())


CORPUS = Format(
    kind="beir",
    example={"_id": "d7", "title": "Aldern bridge", "text": "It was opened in 1932."},
    parse=parse_passage,
)
QUERIES = Format(
    kind="beir",
    example={"_id": "q1", "text": "When was the Aldern bridge opened?", "metadata": {"answers": ["1932"]}},
    parse=parse_query,
)
ANSWERS = Format(kind="beir", example={"_id": "q1", "answers": ["1932"]}, parse=parse_answers)
