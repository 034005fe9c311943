"""Keeps the scored answers of benchmarks/real_questions.py: one file a run in results/real_questions, with its recipe.

    python -m benchmarks.real_questions_kept FOLDER      # writes all that are kept as runs below FOLDER

Whoever has these files can compare another system with ours, question by question, without training ours again:
`rag-ft compare FOLDER/reasoning runs/mine`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS
from data_builders.files import atomic_path, write_json
from rag_ft.evaluation.answers import write_answers
from rag_ft.evaluation.compare import read_answers

FOLDER = RESULTS / "real_questions"


def keep(name: str, run: Path, about: Mapping[str, Any]) -> None:
    """Write what a run answered, how it was scored and `about`, which says when it may be used again."""
    scores = json.loads((run / "evaluation/scores.json").read_text(encoding="utf-8"))
    kept = {**about, "scores": scores, "answers": read_answers(run / "evaluation/answers.jsonl")}
    FOLDER.mkdir(exist_ok=True)
    with atomic_path(_path(name)) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(kept, ensure_ascii=False).encode("utf-8"), mtime=0))


def put_back(name: str, run: Path, about: Mapping[str, Any]) -> bool:
    """Write the scores and answers into a run folder and return True, where they were made with the same settings."""
    if not _path(name).exists():
        return False
    kept, wanted = _read(name), json.loads(json.dumps(about))  # keys of numbers are texts in a file
    if any(kept[key] != value for key, value in wanted.items()):
        return False
    write_run(name, run)
    return True


def write_run(name: str, run: Path) -> None:
    """Write the kept answers and their scores into a run folder."""
    kept = _read(name)
    (run / "evaluation").mkdir(parents=True, exist_ok=True)
    write_answers(run / "evaluation/answers.jsonl", kept["answers"])
    write_json(run / "evaluation/scores.json", kept["scores"])


def names(wanted: Iterable[str]) -> list[str]:
    """Return those of the runs that are kept."""
    return [name for name in wanted if _path(name).exists()]


def about(name: str) -> dict[str, Any]:
    """Return what a kept run was made with, what it was trained on, and how often retrieval found the gold."""
    kept = _read(name)
    return {"recipes": kept["recipes"], "training": kept["training"], "recall": kept["scores"]["recall"]}


def _read(name: str) -> dict[str, Any]:
    with gzip.open(_path(name), "rt", encoding="utf-8") as stream:
        kept: dict[str, Any] = json.load(stream)
    return kept


def _path(name: str) -> Path:
    return FOLDER / f"{name}.json.gz"


def main() -> None:
    """Write all that are kept as runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for path in sorted(FOLDER.glob("*.json.gz")):
        name = path.name.removesuffix(".json.gz")
        write_run(name, folder / name)
        print(folder / name)


if __name__ == "__main__":
    main()
