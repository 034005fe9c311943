"""Own rows as a source: files written by hand, the steps of a build run up to one of them, and what these left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_builders.corpus import Corpus
from data_builders.data_settings import DataSettings
from data_builders.data_steps import data_steps
from data_builders.executor import Executor
from data_builders.paths import DataPaths, data_paths
from data_builders.records import Question
from data_builders.steps import run_steps
from data_builders.tables import read_questions


def lines(path: Path, rows: Iterable[Any]) -> str:
    """Write rows as JSON Lines; return the path as a recipe names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def passage(id_: str, text: str, title: str = "", **other: Any) -> dict[str, Any]:
    return {"id": id_, "title": title, "text": text, **other}


def asked(id_: str, question: str, answers: Sequence[str], gold: Sequence[str] = (), **other: Any) -> dict[str, Any]:
    return {"id": id_, "question": question, "answers": answers, "gold": gold, **other}


def recipe(sources: dict[str, Any], **data: Any) -> DataSettings:
    """Return the `data` section that a recipe file with these values gives."""
    return DataSettings.model_validate_json(json.dumps({"sources": sources, **data}))


def rows_recipe(folder: Path, questions: Sequence[Any], passages: Sequence[Any] = (), **data: Any) -> DataSettings:
    """Write one source `mine` of own rows and return the section that reads it."""
    mine = {"kind": "jsonl", "path": lines(folder / "questions.jsonl", questions)}
    if passages:
        mine["passages"] = lines(folder / "passages.jsonl", passages)
    return recipe({"mine": mine}, **data)


def run(folder: Path, chosen: DataSettings, last: str = "labels", seed: int = 1, processes: int = 1) -> list[str]:
    """Bring the steps up to `last` up to date; return what was reported."""
    steps = data_steps(chosen, seed, folder)
    count = [step.name for step in steps].index(last) + 1
    told: list[str] = []
    run_steps(steps[:count], seed, folder, told.append, Executor(processes=processes))
    return told


class Left:
    """What the steps left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: DataPaths = data_paths(folder)

    def manifest(self, step: str) -> dict[str, Any]:
        return json.loads((self.folder / step / "manifest.json").read_text(encoding="utf-8"))

    def questions(self, split: str) -> list[Question]:
        return list(read_questions(self.paths.questions[split]))

    def asked(self, split: str) -> list[str]:
        return [question.id for question in self.questions(split)]

    def searched(self, split: str) -> list[str]:
        return [passage.id for passage in Corpus.open(self.paths.searched(split))]
