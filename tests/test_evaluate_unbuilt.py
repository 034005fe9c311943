"""`rag-ft evaluate` with nothing but a recipe and a file of questions with passages: what it needs is built first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from own_questions import prompts_asked
from own_rows import lines
from small_builds import hashes

Verb = Callable[..., tuple[int, str, str]]
FAR = "http://127.0.0.1:9/v1"  # nobody answers there


def row(number: int) -> dict[str, object]:
    texts = [f"The {thing} of Aldo was opened in {1900 + number}." for thing in ("bridge", "tower", "mill", "port")]
    passages = [{"text": text, "score": 4 - rank, "is_gold": rank == number % 4} for rank, text in enumerate(texts)]
    return {"question": f"What was opened in {1900 + number}?", "answers": ["bridge"], "passages": passages}


@pytest.fixture
def recipe(tmp_path: Path, tiny_weights: Path) -> Path:
    questions = lines(tmp_path / "questions.jsonl", [row(number) for number in range(6)])
    settings = {
        "name": "mine",
        "runs_dir": str(tmp_path / "runs"),
        "data": {
            "sources": {"questions": {"kind": "jsonl", "path": {"test": questions}}},
            "retrievers": [{"kind": "source"}],
        },
        "model": {"weights": str(tiny_weights), "dtype": "float32"},
        "evaluation": {"suite": "robust", "max_new_tokens": 2, "resamples": 100},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "mine.yaml"


def data(recipe: Path) -> Path:
    return recipe.parent / "runs" / "mine" / "data"


def test_the_robust_suite_needs_a_recipe_and_a_file(recipe: Path, run_verb: Verb) -> None:
    code, out, err = run_verb("evaluate", recipe)

    assert code == 0, err
    assert "pools: done" in out
    built = {path.name for path in data(recipe).iterdir() if path.is_dir()}
    assert built == {"source", "clean", "retrieval", "pools"}  # nothing to train on
    code, _, err = run_verb("report", recipe, "evaluation.max_new_tokens=2")
    assert code == 0, err
    page = (recipe.parent / "runs" / "mine" / "report" / "report.html").read_text(encoding="utf-8")
    assert f"rag-ft run {recipe} evaluation.max_new_tokens=2" in page

    again = run_verb("evaluate", recipe)[1]
    assert "pools:" not in again
    assert prompts_asked(again) == 0


def test_what_was_interrupted_is_built_on(recipe: Path, run_verb: Verb) -> None:
    assert run_verb("evaluate", recipe)[0] == 0
    before = hashes(data(recipe))
    (data(recipe) / "pools" / "manifest.json").unlink()

    code, out, err = run_verb("evaluate", recipe)

    assert code == 0, err
    assert "source: unchanged" in out
    assert "pools: done" in out
    assert hashes(data(recipe)) == before


def test_data_of_another_recipe_are_not_replaced(recipe: Path, run_verb: Verb, refused: Callable[..., str]) -> None:
    assert run_verb("evaluate", recipe)[0] == 0
    before = hashes(data(recipe))

    message = refused("evaluate", recipe, "data.depth=2")

    assert "not those of this recipe: retrieval/source (settings changed: depth)" in message
    assert "rag-ft build" in message
    assert hashes(data(recipe)) == before


def test_no_teacher_is_asked_without_being_told_to(recipe: Path, refused: Callable[..., str]) -> None:
    teacher = f"data.questions={{kind: teacher, endpoint: {{base_url: '{FAR}', model: big}}}}"

    message = refused("evaluate", recipe, teacher)

    assert "no synthesis yet, for which a teacher is asked. Run `rag-ft build RECIPE` first." in message
    assert not data(recipe).joinpath("synthesis").exists()
