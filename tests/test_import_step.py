"""The source step: several sources side by side, files that change or go, and what stays when a source fails."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_rows import asked, lines, passage, recipe, run
from small_builds import STEPS, build, hashes, ran, settings
from tiny_world import TinyWorld

from data_builders import sources
from data_builders.build import require_built
from data_builders.data_settings import DataSettings
from data_builders.errors import RagFtError
from data_builders.import_step import signatures
from data_builders.records import GoldEvidence, Passage, Question, Ranking
from data_builders.tables import read_questions, read_rankings, read_rows

ROW = {
    "id": "q1",
    "question": "When was the bridge opened?",
    "answers": ["1932", "in 1932"],
    "group": "bridges",
    "split": "train",
    "gold": ["p1"],
    "alternatives": ["p2"],
    "evidence": [{"passage_id": "p1", "quote": "in 1932", "reason": "It says so."}],
    "passages": [
        {"id": "p1", "title": "Bridge", "text": "Opened in 1932.", "document": "b.txt", "page": 2, "score": 3.0},
        {"id": "p2", "text": "It was opened in 1932.", "score": 1.5},
    ],
}


def read(folder: Path) -> tuple[list[Passage], list[Question], list[Ranking]]:
    source = folder / "source"
    return (
        [Passage(**row) for row in read_rows(source / "passages.parquet", Passage)],
        list(read_questions(source / "questions.parquet")),
        list(read_rankings(source / "rankings.parquet")),
    )


def expected(source: str, prefix: str) -> tuple[list[Passage], list[Question], list[Ranking]]:
    """Return what the row above has to become."""
    document = f"{prefix}b.txt"
    passages = [
        Passage(f"{prefix}p1", "Bridge", "Opened in 1932.", document, 2, "train"),
        Passage(f"{prefix}p2", "", "It was opened in 1932.", "", 0, "train"),
    ]
    question = Question(
        id=f"{prefix}q1",
        question="When was the bridge opened?",
        answers=("1932", "in 1932"),
        gold=(f"{prefix}p1",),
        evidence=(GoldEvidence(f"{prefix}p1", "in 1932", "It says so."),),
        source=source,
        group="bridges",
        split="train",
        alternatives=(f"{prefix}p2",),
    )
    return passages, [question], [Ranking(f"{prefix}q1", "source", (f"{prefix}p1", f"{prefix}p2"), (3.0, 1.5))]


def test_one_source_keeps_its_ids(tmp_path: Path) -> None:
    rows = lines(tmp_path / "rows.jsonl", [ROW])
    run(tmp_path / "data", recipe({"mine": {"kind": "jsonl", "path": rows}}), "source")
    assert read(tmp_path / "data") == expected("mine", "")


def test_ids_of_several_sources_stand_behind_their_names_everywhere(tmp_path: Path) -> None:
    rows = {"kind": "jsonl", "path": lines(tmp_path / "rows.jsonl", [ROW])}
    run(tmp_path / "data", recipe({"one": rows, "two": rows}), "source")
    first, second = expected("one", "one:"), expected("two", "two:")
    assert read(tmp_path / "data") == tuple(a + b for a, b in zip(first, second, strict=True))


def test_sources_that_hold_no_question_are_one_sentence_and_leave_no_file(tmp_path: Path) -> None:
    nothing = {
        "kind": "jsonl",
        "path": lines(tmp_path / "none.jsonl", []),
        "passages": lines(tmp_path / "passages.jsonl", [passage("p1", "A text.")]),
    }
    with pytest.raises(
        RagFtError, match=r"^data\.sources \(one, two\) hold no question.*`rag-ft import-check FILE`\.$"
    ):
        run(tmp_path / "data", recipe({"one": nothing, "two": nothing}))
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name != "build.lock"] == []


class Failing(TinyWorld):
    """Breaks off after thousands of records, some of them written already."""

    def passages(self, split: str) -> Iterator[Passage]:
        yield from super().passages(split)
        for number in range(6000):
            yield Passage(f"{split}-more-{number}", "", f"More of {number}.")
        raise RagFtError("row 6005 does not fit")


def test_a_source_that_fails_halfway_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Failing)
    with pytest.raises(RagFtError, match="row 6005 does not fit"):
        build(tmp_path, settings())
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "build.lock"] == []


# files that change


@pytest.fixture
def mine(tmp_path: Path) -> tuple[DataSettings, dict[str, Path]]:
    """Two questions to train on and one to test, each in the file of its split with a passage of its own."""
    files = {split: tmp_path / f"{split}.jsonl" for split in ("train", "test")}
    for split, path in files.items():
        lines(path, [row(split, name) for name in ("Aldern", "Berin")[: 2 if split == "train" else 1]])
    paths = {split: str(path) for split, path in files.items()}
    return recipe({"mine": {"kind": "jsonl", "path": paths}}), files


def row(split: str, name: str) -> dict[str, Any]:
    text = f"The {split} bridge of {name} crosses the river Ruhne near the mill."
    shown = passage(f"{split}-{name}", text, f"{name} in {split}", is_gold=True)
    question = f"What does the {split} bridge of {name} cross?"
    return asked(f"{split}-{name}", question, ["the river Ruhne"], passages=[shown])


def test_a_file_that_changes_is_read_again_and_only_what_depends_on_it_is_redone(
    tmp_path: Path, mine: tuple[DataSettings, dict[str, Path]]
) -> None:
    chosen, files = mine
    data = tmp_path / "data"
    assert ran(build(data, chosen)) == STEPS
    lines(files["test"], [row("test", "Corin")])
    told = build(data, chosen)
    assert "source: building (a file of the source changed)" in told
    assert ran(told) == ["source", "clean", "retrieval/bm25", "pools"]
    build(tmp_path / "fresh", chosen)
    assert hashes(data) == hashes(tmp_path / "fresh")


def test_a_file_written_again_with_the_same_rows_redoes_only_the_reading(
    tmp_path: Path, mine: tuple[DataSettings, dict[str, Path]]
) -> None:
    chosen, files = mine
    build(tmp_path / "data", chosen)
    os.utime(files["train"], ns=(1, 1))
    assert ran(build(tmp_path / "data", chosen)) == ["source"]
    assert ran(build(tmp_path / "data", chosen)) == []


def test_data_once_built_serve_without_the_files_they_came_from(
    tmp_path: Path, mine: tuple[DataSettings, dict[str, Path]]
) -> None:
    chosen, files = mine
    build(tmp_path / "data", chosen)
    require_built(chosen, 1, tmp_path / "data")
    files["train"].unlink()
    require_built(chosen, 1, tmp_path / "data")
    lines(files["test"], [row("test", "Corin")])
    require_built(chosen, 1, tmp_path / "data")
    with pytest.raises(RagFtError, match=r"data\.sources\.mine\.path.*there is no file .*train\.jsonl"):
        build(tmp_path / "data", chosen)


def test_a_file_of_an_evaluation_set_that_changes_redoes_the_cleaning(
    tmp_path: Path, mine: tuple[DataSettings, dict[str, Path]]
) -> None:
    chosen, files = mine
    seen = lines(tmp_path / "seen.jsonl", [asked("s1", "Who wrote of the mill?", ["Ida Holm"])])
    held = recipe(
        {"mine": json.loads(chosen.sources["mine"].model_dump_json())},
        decontaminate={"seen": {"kind": "jsonl", "path": seen}},
    )
    build(tmp_path / "data", held)
    lines(tmp_path / "seen.jsonl", [asked("s1", row("train", "Berin")["question"], ["the river Ruhne"])])
    told = build(tmp_path / "data", held)
    assert "clean: building (a file of the source changed)" in told
    assert "source: unchanged" in told
    assert sum(1 for _ in read_questions(tmp_path / "data/clean/questions-train.arrow")) == 1
    assert files["train"].is_file()


# folders as sources


def documents(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    (folder / "bridge.txt").write_text("The Aldern bridge was opened in 1932 by the mayor.\n")
    (folder / "mill.txt").write_text("The mill of Berin grinds oats for the whole valley.\n")
    rows = [asked("q1", "When was the Aldern bridge opened?", ["1932"], document="bridge.txt", split="train")]
    questions = lines(folder.parent / "questions.jsonl", rows)
    return {"kind": "documents", "path": str(folder), "questions": questions}


def test_a_folder_of_documents_is_read_again_when_a_file_in_it_changes_or_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = recipe({"papers": documents(tmp_path / "papers")})
    run(tmp_path / "data", chosen, "source")
    passages, questions, _ = read(tmp_path / "data")
    assert [(p.document, p.page) for p in passages] == [("bridge.txt", 0), ("mill.txt", 0)]
    assert questions[0].gold == (passages[0].id,)
    (tmp_path / "notes.md").write_text("A file beside the folder is none of it.")
    assert run(tmp_path / "data", chosen, "source") == ["source: unchanged"]
    (tmp_path / "papers/more.txt").write_text("The tower of Corin has a bell of eleven tons.\n")
    assert ran(run(tmp_path / "data", chosen, "source")) == ["source"]
    assert len(read(tmp_path / "data")[0]) == 3
    (tmp_path / "papers/mill.txt").write_text("The mill of Berin burned down in 1901, they say.\n")
    assert ran(run(tmp_path / "data", chosen, "source")) == ["source"]


def test_a_beir_folder_is_read_again_when_its_judgements_change(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    lines(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"Text number {n}."} for n in range(2)])
    lines(folder / "queries.jsonl", [{"_id": "q1", "text": "Which text?", "answers": ["number 1"]}])
    (folder / "qrels").mkdir()
    judged = folder / "qrels/train.tsv"
    judged.write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    chosen = recipe({"judged": {"kind": "beir", "path": str(folder)}})
    run(tmp_path / "data", chosen, "source")
    assert read(tmp_path / "data")[1][0].gold == ("d0",)
    judged.write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\nq1\td1\t2\n")
    assert ran(run(tmp_path / "data", chosen, "source")) == ["source"]
    question = read(tmp_path / "data")[1][0]
    assert (question.gold, question.alternatives, question.split) == (("d1",), ("d0",), "train")


def test_only_settings_that_name_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words such as `train` or `*` are no files, even where some are called so."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "jsonl", "documents", "question", "stop"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside").write_text("not meant")
    kept = Path(lines(tmp_path / "rows.jsonl", [ROW])).stat()
    chosen = recipe(
        {
            "rows": {"kind": "jsonl", "path": {"train": "rows.jsonl"}},
            "papers": {"kind": "documents", "path": str(tmp_path / "away"), "include": ["*"]},
            "table": {"kind": "hub", "dataset": "nobody/nothing", "splits": "train"},
        }
    )
    named = signatures([one.model_dump(mode="json") for one in chosen.sources.values()])
    assert list(named) == ["rows.jsonl"]
    assert named["rows.jsonl"] == [kept.st_size, kept.st_mtime_ns]
