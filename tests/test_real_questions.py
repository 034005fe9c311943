"""The benchmark on real questions, without its trainings: answers kept and put back, numbers, page and figure."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from report_cases import write_run

from benchmarks import real_questions, real_questions_kept, real_questions_page
from rag_ft.cli import main
from rag_ft.evaluation.compare import read_answers
from rag_ft.report.figures import save_figure

ROOT = Path(__file__).parent.parent
RIGHT = {"base": (30, 20, 8), "clean": (38, 30, 10), "answer": (38, 37, 36)}
TRAINING = {"steps": 10, "tokens": 1000, "questions": 40, "minutes": 1.5}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kept answers to the same questions: the base, `clean` and `answer`."""
    monkeypatch.setattr(real_questions_kept, "FOLDER", tmp_path / "kept")
    for name, right in RIGHT.items():
        run = write_run(tmp_path / "made" / name, {name: right}, name=name)
        real_questions_kept.keep(name, run, about(name))
    return tmp_path / "kept"


def about(name: str, **changes: Any) -> dict[str, Any]:
    recipes = {"base": {"name": "base", "counts": {1: 1}}, name: {"name": name}}
    return {"recipes": recipes, "tokens": 1000, "limit": 40, "training": TRAINING, **changes}


def test_kept_answers_come_back_as_they_were(kept: Path, tmp_path: Path) -> None:
    run = tmp_path / "again" / "answer"
    assert real_questions_kept.put_back("answer", run, about("answer"))
    made = tmp_path / "made" / "answer"
    scores, answers = "evaluation/scores.json", "evaluation/answers.jsonl"
    assert (run / scores).read_text(encoding="utf-8") == (made / scores).read_text(encoding="utf-8")
    assert read_answers(run / answers) == read_answers(made / answers)


@pytest.mark.parametrize("changes", [{"limit": 80}, {"tokens": 2000}, {"recipes": {"answer": {"name": "other"}}}])
def test_answers_of_other_settings_are_not_taken(kept: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = tmp_path / "again"
    assert not real_questions_kept.put_back("answer", run, about("answer", **changes))
    assert not real_questions_kept.put_back("raft-like", run, about("raft-like"))
    assert not run.exists()


def test_kept_answers_are_compared_as_runs(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["real_questions_kept", str(tmp_path / "runs")])
    real_questions_kept.main()
    runs = [str(tmp_path / "runs" / name) for name in ("base", "clean", "answer")]
    assert capsys.readouterr().out.split() == sorted(runs)
    assert main(["compare", *runs, "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["shared"] == 40


def test_the_numbers_of_the_page_are_those_of_the_kept_runs(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_questions, "rag_ft", lambda *words: main(list(words)))
    for name in RIGHT:
        assert real_questions_kept.put_back(name, tmp_path / "runs" / name, about(name))
    against = [real_questions.compared(tmp_path, other) for other in ("base", "clean")]
    numbers = real_questions.numbers_of(*against, notes=["How it came about."])
    assert numbers["trainings"] == {"clean": TRAINING, "answer": TRAINING}
    found = {
        (cell["system"], cell["passages"]): cell["accuracy"]["mean"]
        for cell in numbers["cells"]
        if (cell["gold"], cell["group"]) == ("kept", "all")
    }
    counts = sorted({passages for _, passages in found})
    assert [found["answer", count] for count in counts] == [right / 40 for right in RIGHT["answer"]]
    for other in ("base", "clean"):
        [row] = [
            row
            for row in numbers[f"minus {other}"]
            if (row["system"], row["gold"], row["group"], row["passages"]) == ("answer", "kept", "all", counts[-1])
        ]
        assert row["accuracy"]["mean"] == pytest.approx((36 - RIGHT[other][-1]) / 40)


def test_page_and_figure_are_those_of_the_results_file(tmp_path: Path) -> None:
    assert (ROOT / "docs/results.md").read_text(encoding="utf-8") == real_questions_page.page()
    save_figure(real_questions_page.figure_scores(), tmp_path / "results.svg")
    assert texts(tmp_path / "results.svg") == texts(ROOT / "docs/results.svg")


def texts(figure: Path) -> list[str]:
    """Return what is written in a figure: names with their last numbers, axes."""
    found = re.findall(r">([^<>]+)</text>", figure.read_text(encoding="utf-8"))
    assert len(found) > 10
    return found
