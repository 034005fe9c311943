"""`rag-ft compare`: runs paired by question, against numbers worked out by hand, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import pytest
from page_reader import Page
from report_cases import RIGHT, write_run

from rag_ft.cli import main
from rag_ft.evaluation.compare import Run, compare, read_answers, read_outputs, read_run
from rag_ft.report.compared import compared_html

ONE = {"base": (30, 20, 8), "tuned": (38, 37, 36)}
TWO = {"base": (30, 20, 8), "tuned": (39, 38, 30)}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a", ONE, name="one"), write_run(tmp_path / "b", TWO, name="two")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change or drop the rows of a run's answers.jsonl."""
    path = folder / "evaluation" / "answers.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row), encoding="utf-8")


def test_runs_scored_by_different_versions_are_told_apart(runs: tuple[Path, Path]) -> None:
    assert not [note for note in compared(*runs)["notes"] if "versions" in note]
    path = runs[0] / "evaluation" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "version": 0}), encoding="utf-8")
    assert compared(*runs)["notes"][-1].startswith("The runs were scored by different versions of rag-ft")


def compared(*folders: Path, baseline: str | None = None) -> dict[str, Any]:
    return compare([read_run(folder, {}) for folder in folders], baseline)


def row_of(rows: list[dict[str, Any]], system: str, passages: int, **keys: Any) -> dict[str, Any]:
    wanted = {"gold": "kept", "variant": "", "group": "all", "system": system, "passages": passages, **keys}
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["compare", *arguments]) == 2
    return capsys.readouterr().err


def test_systems_of_two_runs_are_paired_question_by_question(runs: tuple[Path, Path]) -> None:
    found = compared(*runs)
    assert found["baseline"] == "one: base"
    row = row_of(found["differences"], "two: tuned", 5)
    # 30 questions right against 8, the 8 among them.
    assert (row["wins"], row["ties"], row["losses"]) == (22, 18, 0)
    assert row["accuracy"]["mean"] == pytest.approx(22 / 40)
    assert row["accuracy"]["low"] <= 22 / 40 <= row["accuracy"]["high"]
    assert row["p"] == pytest.approx(2 * comb(22, 0) / 2**22, rel=1e-4)
    assert row_of(found["cells"], "two: tuned", 5)["accuracy"]["mean"] == 30 / 40


def test_another_baseline_turns_the_signs(runs: tuple[Path, Path]) -> None:
    row = row_of(compared(*runs, baseline="one: tuned")["differences"], "two: tuned", 5)
    assert (row["wins"], row["ties"], row["losses"]) == (0, 34, 6)
    assert row["accuracy"]["mean"] == pytest.approx(-6 / 40)
    assert row["p"] == pytest.approx(2 / 2**6)


def test_holm_corrects_over_all_comparisons_of_all_questions(runs: tuple[Path, Path]) -> None:
    rows = [row for row in compared(*runs)["differences"] if row["group"] == "all"]
    smallest = min(rows, key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, smallest["p"] * len(rows)), rel=1e-4)
    assert all(row["p_holm"] is None for row in compared(*runs)["differences"] if row["group"] != "all")


def test_groups_are_compared_apart(runs: tuple[Path, Path]) -> None:
    row = row_of(compared(*runs)["differences"], "two: tuned", 5, group="two_hop")
    # Every fourth question is of two hops: of 0 to 39 ten, of the 30 right eight, of the 8 right two.
    assert (row["wins"], row["ties"], row["losses"]) == (6, 4, 0)


def test_runs_of_unlike_size_are_compared_on_what_they_share(runs: tuple[Path, Path]) -> None:
    rewrite(runs[1], lambda row: row if row["question_id"] < "q20" else None)
    found = compared(*runs)
    assert found["shared"] == 20
    assert found["notes"][0] == "one answered 40 questions, of which 20 are shared and compared."
    row = row_of(found["differences"], "two: tuned", 5)
    assert (row["wins"], row["ties"], row["losses"]) == (12, 8, 0)
    assert found["robustness"] == []  # measured on other questions than these
    assert found["notes"][-1].startswith("Robustness, curves, thresholds and routing are left out")


def test_a_condition_that_one_run_lacks_is_compared_among_those_that_have_it(runs: tuple[Path, Path]) -> None:
    rewrite(runs[1], lambda row: row if row["passages"] != 2 else None)
    cells = compared(*runs)["cells"]
    assert {cell["system"] for cell in cells if cell["passages"] == 2} == {"one: base", "one: tuned"}


def test_runs_without_a_common_point_say_so(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for run, count in zip(runs, (2, 5), strict=True):
        rewrite(run, lambda row, count=count: row if (row["passages"], row["system"]) == (count, "base") else None)
    assert main(["compare", *map(str, runs)]) == 0
    assert "No two systems were asked at the same point." in capsys.readouterr().out


def test_one_run_compares_its_own_systems_under_their_own_names(runs: tuple[Path, Path]) -> None:
    found = compared(runs[0])
    row = row_of(found["differences"], "tuned", 5)
    assert (row["baseline"], row["wins"]) == ("base", 28)
    scores = json.loads((runs[0] / "evaluation" / "scores.json").read_text())
    same = row_of(scores["differences"], "tuned", 5)
    assert {key: row[key] for key in ("wins", "losses", "ties", "p")} == {
        key: same[key] for key in ("wins", "losses", "ties", "p")
    }


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, ONE, name="same") for name in "ab"]
    found = compared(*folders)
    assert [run["name"] for run in found["runs"]] == [str(folder) for folder in folders]


def test_verb_prints_writes_a_page_and_json(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    html, told = tmp_path / "out.html", tmp_path / "out.json"
    assert main(["compare", *map(str, runs), "--html", str(html), "--json", str(told)]) == 0
    out = capsys.readouterr().out
    assert "accuracy less that of one: base, 40 shared questions" in out
    assert "22/18/0" in out
    page = Page(html.read_text(encoding="utf-8"))
    row = next(row for row in page.table("Question by question at") if row[0].startswith("two: tuned"))
    assert row[3:6] == ["22", "18", "0"]
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert "PARTIAL" not in html.read_text(encoding="utf-8")
    assert json.loads(told.read_text())["shared"] == 40
    labels = [attributes["aria-label"] or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert any("two: tuned, 5: +55.0" in label for label in labels)


def test_the_page_says_whose_passages_each_run_was_trained_on(runs: tuple[Path, Path], tmp_path: Path) -> None:
    told = (
        {"retrievers": [{"kind": "bm25", "name": None}], "negatives": {"retriever_shares": None}},
        {"retrievers": [], "negatives": {"retriever_shares": {"bm25": 1, "dense": 1}}},
    )
    for run, data in zip(runs, told, strict=True):
        (run / "recipe.resolved.yaml").write_text(json.dumps({"data": data}), encoding="utf-8")
    html = tmp_path / "out.html"
    assert main(["compare", *map(str, runs), "--html", str(html)]) == 0
    table = Page(html.read_text(encoding="utf-8")).table("Runs: 40 questions shared")
    assert [[cell.strip() for cell in row] for row in table] == [
        ["Run", "Questions", "Trained on passages of"],
        ["one", "40", "bm25"],
        ["two", "40", "bm25, dense"],
    ]


def test_beside_whose_ranking_is_shown_stands_whose_passages_each_was_trained_on(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / name, right, name=name, retrievers=("bm25", "dense"))
        for name, right in (("one", ONE), ("two", TWO))
    ]
    found = compared(*folders)
    page = Page(compared_html(found, None, {"one": "bm25", "two": "bm25, dense"}))
    [caption] = [table["caption"] for table in page.tables if table["caption"].startswith("Whose ranking is shown")]
    assert caption.endswith(". Trained on passages of one: bm25; two: bm25, dense")


def test_same_runs_give_the_same_page(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("1.html", "2.html"):
        assert main(["compare", *map(str, runs), "--html", str(tmp_path / name)]) == 0
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_a_partial_run_stamps_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(tmp_path / "a", ONE), write_run(tmp_path / "b", TWO, name="two", partial=True)]
    html = tmp_path / "out.html"
    assert main(["compare", *map(str, folders), "--html", str(html)]) == 0
    assert "PARTIAL" in capsys.readouterr().out
    text = html.read_text(encoding="utf-8")
    assert text.count(">PARTIAL</text>") == text.count("<svg")
    assert "PARTIAL: two" in text


def test_a_recipe_stands_for_its_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "quickstart", RIGHT, name="quickstart")
    assert main(["compare", "quickstart", f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert "28/12/0" in capsys.readouterr().out


def test_runs_that_share_no_question_are_refused(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(runs[1], lambda row: {**row, "question_id": f"other-{row['question_id']}"})
    message = refused(capsys, *map(str, runs))
    assert "share no question (one 40, two 40)" in message


def test_same_ids_of_other_questions_are_refused(runs: tuple[Path, Path]) -> None:
    texts = [{"q00": ("Where?", ("Orsk",))}, {"q00": ("When?", ("Orsk",))}]
    found = [read_run(folder, text) for folder, text in zip(runs, texts, strict=True)]
    with pytest.raises(Exception, match="1 of 1 shared question ids ask or accept something else in two"):
        compare(found)


def test_other_metrics_are_refused(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = runs[1] / "evaluation" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metric": "f1"}))
    assert "different metrics (one accuracy, two f1)" in refused(capsys, *map(str, runs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "kept no single answers. Write it with `rag-ft evaluate RECIPE`"),
        (lambda path: path.write_text("{\n"), "line 1 of"),
        (lambda path: path.write_text('{"question_id": "q1"}\n'), "lacks group, system"),
        (lambda path: path.write_text("[1]\n"), "line 1 of"),
        (lambda path: path.write_text(""), "holds no scored answers"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot read"),
    ],
)
def test_missing_or_damaged_answers_name_the_command(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], change: Callable[[Path], Any], message: str
) -> None:
    change(runs[0] / "evaluation" / "answers.jsonl")
    assert message in refused(capsys, *map(str, runs))


def test_wrong_arguments_get_one_clear_sentence(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = map(str, runs)
    assert "is given twice" in refused(capsys, one, one)
    message = refused(capsys, one, two, "--baseline", "tuned")
    assert '"tuned" is the name of several systems. Write one of: one: base; one: tuned; two: base' in message
    assert "is no system of these runs" in refused(capsys, one, "--baseline", "nobody")
    assert "does not exist" in refused(capsys, str(runs[0].parent))


def test_answers_keep_separators_that_are_no_line_ends(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ONE)
    rewrite(folder, lambda row: {**row, "answer": "a\u2028b"})
    path = folder / "evaluation" / "answers.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("\\u2028", "\u2028"), encoding="utf-8")
    assert {row["answer"] for row in read_answers(path)} == {"a\u2028b"}


def test_what_was_written_is_found_by_the_answer_it_was_parsed_to(runs: tuple[Path, Path]) -> None:
    row = read_answers(runs[0] / "evaluation" / "answers.jsonl")[0]
    folder = runs[0] / "evaluation" / "predictions"
    folder.mkdir()
    old = {**row, "answer": "Something else", "output": "of earlier weights"}
    lines = [{"fingerprint": "x"}, old, {**row, "output": "Because of [1]. Answer: Orsk"}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"half', encoding="utf-8")
    assert read_outputs(runs[0], [row]) == {(row["question_id"], row["system"]): "Because of [1]. Answer: Orsk"}


def test_a_run_is_what_its_files_say(runs: tuple[Path, Path]) -> None:
    run = read_run(runs[0], {})
    assert isinstance(run, Run)
    assert (run.name, len(run.questions())) == ("one", 40)
