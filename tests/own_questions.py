"""A file of own questions with passages, and a recipe over it that evaluates within a second. Holds no test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Row: TypeAlias = dict[str, Any]
NAMES = ["Ada Byron", "Mary Shelley", "Jane Porter", "Ann Radcliffe", "Sarah Scott", "Fanny Burney", "Hannah More"]


def question(number: int) -> str:
    """Return the question about a town's book."""
    return f"Who wrote the book of town {number}?"


def write_questions(path: Path) -> Path:
    """Write questions with six passages each: the gold one second; the first question has a second one, fourth."""
    rows = []
    for number, name in enumerate(NAMES):
        texts = [f"The book of town {number} number {place} is red." for place in range(6)]
        texts[1] = f"The book of town {number} was written by {name}."
        passages: list[Row] = [
            {
                "id": f"p{number}-{place}",
                "title": f"Town {number}",
                "text": text,
                "is_gold": place == 1 or (number, place) == (0, 3),
                "score": 9 - place,
            }
            for place, text in enumerate(texts)
        ]
        asked = {"id": f"q{number}", "question": question(number), "answers": [name], "split": "test"}
        rows.append({**asked, "passages": passages})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_recipe(folder: Path, weights: Path, **data: Any) -> Path:
    """Write a recipe over own questions; `data` goes into that section."""
    folder.mkdir(parents=True, exist_ok=True)
    source = {"kind": "jsonl", "path": str(write_questions(folder / "questions.jsonl"))}
    recipe = {
        "name": "own",
        "runs_dir": str(folder / "runs"),
        "data": {"sources": {"mine": source}, **data},
        "model": {"weights": str(weights), "dtype": "float32"},
        "evaluation": {"passages": [1, 3], "max_new_tokens": 3, "resamples": 100},
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def built(folder: Path, weights: Path, **data: Any) -> Path:
    """Write the recipe and build its data."""
    from rag_ft.cli import main

    path = write_recipe(folder, weights, **data)
    assert main(["build", str(path)]) == 0
    return path


def told(**evaluation: Any) -> list[str]:
    """Return changes to the evaluation section as a verb takes them."""
    return [f"evaluation.{key}={json.dumps(value)}" for key, value in evaluation.items()]


def prompts_asked(out: str) -> int:
    """How many prompts a verb said that it answers."""
    return sum(int(line.split(": ")[1].split()[0]) for line in out.splitlines() if " prompts for " in line)


def evaluation_of(recipe: Path) -> Path:
    """Return the evaluation folder of the recipe's run."""
    return recipe.parent / "runs" / recipe.stem / "evaluation"


def answers_of(recipe: Path) -> list[Row]:
    """Return the rows of answers.jsonl."""
    return [json.loads(line) for line in (evaluation_of(recipe) / "answers.jsonl").read_text().splitlines()]


def stored(recipe: Path, label: str = "") -> list[Row]:
    """Return the predictions of all files whose names begin with a label."""
    files = sorted((evaluation_of(recipe) / "predictions").glob(f"{label}-*.jsonl" if label else "*.jsonl"))
    assert files
    return [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]


def cells_of(recipe: Path, **keys: Any) -> list[Row]:
    """Return the cells of scores.json over all questions that hold the keys."""
    scores = json.loads((evaluation_of(recipe) / "scores.json").read_text())
    wanted = {"group": "all", **keys}
    return [cell for cell in scores["cells"] if all(cell[key] == value for key, value in wanted.items())]


def cell_of(recipe: Path, **keys: Any) -> Row:
    """Return the one cell of scores.json over all questions that holds the keys."""
    [cell] = cells_of(recipe, **keys)
    return cell
