"""Reading files through an importer, as the tests of importers do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import Passage, Question, Ranking
from data_builders.sources.files import FileSource, FileSourceSettings

CASES = Path(__file__).parent / "cases" / "importers"
KILT_PAGES = {"knowledge_source": str(CASES / "kilt_pages.jsonl")}


class Read:
    """What a source gave: passages by id, questions by id, rankings by question."""

    def __init__(self, kind: str, path: Any, **other: Any) -> None:
        self.tally = Tally()
        self.records = list(opened(kind, path, **other).records(self.tally))
        self.passages = {record.id: record for record in self.records if isinstance(record, Passage)}
        self.questions = {record.id: record for record in self.records if isinstance(record, Question)}
        self.rankings = {record.question: record for record in self.records if isinstance(record, Ranking)}

    def texts(self, ids: tuple[str, ...]) -> list[str]:
        return [self.passages[id_].text for id_ in ids]

    def ranked(self, question: str) -> list[tuple[str, float]]:
        ranking = self.rankings[question]
        assert ranking.retriever == "source"
        return list(zip(self.texts(ranking.passages), ranking.scores, strict=True))

    def asked(self, text: str) -> Question:
        return next(question for question in self.questions.values() if question.question == text)


def opened(kind: str, path: Any, **other: Any) -> FileSource:
    if kind == "kilt":
        other = {**KILT_PAGES, **other}
    recipe = {"kind": kind, "path": path if isinstance(path, dict) else str(path), **other}
    adapter: TypeAdapter[Any] = TypeAdapter(FileSourceSettings)
    return FileSource(adapter.validate_json(json.dumps(recipe)), "mine", 0)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(kind: str, path: Any, **other: Any) -> str:
    with pytest.raises(RagFtError) as caught:
        Read(kind, path, **other)
    return str(caught.value)
