"""What must not be lost or leak: built steps, questions, held-out passages, a folder that another build is writing."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from own_rows import Left, asked, lines, passage, recipe, rows_recipe, run
from small_builds import hashes

from data_builders.build import require_built
from data_builders.errors import RagFtError

FERRY = "The ferry of Lorn sails at nine."
BELL = "The bell of Lorn weighs two tons."


def test_no_question_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    questions = [asked(f"q{number}", f"When does ferry {number} sail?", ["nine"], ["nowhere"]) for number in range(3)]
    chosen = rows_recipe(tmp_path, questions, [passage("p1", FERRY)])
    with pytest.raises(
        RagFtError, match=r"none of 3 questions is left.*gold passage is not in the corpus of their split \(3\)"
    ):
        run(tmp_path / "data", chosen)


def test_a_mistyped_path_leaves_what_was_built(tmp_path: Path) -> None:
    questions = [asked("q1", "When does the ferry sail?", ["nine"], ["p1"], split="train")]
    chosen = rows_recipe(tmp_path, questions, [passage("p1", FERRY)])
    run(tmp_path / "data", chosen)
    before = hashes(tmp_path / "data")
    typo = recipe({"mine": {"kind": "jsonl", "path": str(tmp_path / "qestions.jsonl")}})
    with pytest.raises(RagFtError, match=r"data\.sources\.mine\.path: there is no file .*qestions\.jsonl"):
        run(tmp_path / "data", typo)
    require_built(chosen, 1, tmp_path / "data")
    assert hashes(tmp_path / "data") == before


def test_a_mistyped_path_of_an_evaluation_set_names_its_key(tmp_path: Path) -> None:
    questions = [asked("q1", "When does the ferry sail?", ["nine"], ["p1"])]
    sets = {"exam": {"kind": "jsonl", "path": str(tmp_path / "none.jsonl")}}
    with pytest.raises(RagFtError, match=r"^data\.decontaminate\.exam\.path: there is no file"):
        run(tmp_path / "data", rows_recipe(tmp_path, questions, [passage("p1", FERRY)], decontaminate=sets))


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    chosen = rows_recipe(tmp_path, [asked("q1", "When does the ferry sail?", ["nine"], ["p1"])], [passage("p1", FERRY)])
    (tmp_path / "data").mkdir()
    with FileLock(tmp_path / "data/build.lock"), pytest.raises(RagFtError, match=r"another build is writing .*name="):
        run(tmp_path / "data", chosen)
    run(tmp_path / "data", chosen)


def test_of_a_question_in_two_files_the_test_keeps_its_copy(tmp_path: Path) -> None:
    row = {"question": "When does the ferry sail?", "answers": ["nine"], "passages": [{"text": FERRY, "is_gold": True}]}
    other = {
        "question": "What does the bell weigh?",
        "answers": ["two tons"],
        "passages": [{"text": BELL, "is_gold": True}],
    }
    files = {"train": lines(tmp_path / "train.jsonl", [row, other]), "test": lines(tmp_path / "test.jsonl", [row])}
    run(tmp_path / "data", recipe({"mine": {"kind": "jsonl", "path": files}}), "clean")
    left = Left(tmp_path / "data")
    assert [len(left.asked(split)) for split in ("train", "test")] == [1, 1]
    assert left.questions("test")[0].question == row["question"]
    assert left.manifest("clean")["dropped"] == {"questions that came again": 1}


def test_questions_of_the_same_words_and_other_answers_are_two_questions(tmp_path: Path) -> None:
    rows = [
        {"question": "When does it sail?", "answers": ["nine"], "passages": [{"text": FERRY, "is_gold": True}]},
        {"question": "When does it sail?", "answers": ["ten"], "passages": [{"text": BELL, "is_gold": True}]},
    ]
    chosen = rows_recipe(tmp_path, rows, hygiene={"repeated_questions": "keep"}, splits={"test": 0})
    run(tmp_path / "data", chosen, "clean")
    assert len(Left(tmp_path / "data").asked("train")) == 2


def test_gold_found_by_its_answer_is_not_trained_on_where_a_test_question_has_it(tmp_path: Path) -> None:
    questions = [
        asked("q1", "When does the ferry of Lorn sail?", ["nine"], split="test"),
        asked("q2", "At which hour does Lorn's ferry leave?", ["nine"], split="train"),
        asked("q3", "What does the bell of Lorn weigh?", ["two tons"], split="train"),
    ]
    passages = [passage("p1", FERRY), passage("p2", BELL)]
    run(tmp_path / "data", rows_recipe(tmp_path, questions, passages, gold="answer_match"), "pools")
    told = Left(tmp_path / "data").manifest("pools")
    assert told["dropped"] == {"questions whose gold, found by its answer, is that of a held-out question": 1}
    assert told["outputs"]["train.parquet"]["rows"] == 1


def test_unanswerable_questions_stay_with_the_document_they_were_written_about(tmp_path: Path) -> None:
    harbour = {"title": "Harbour", "text": FERRY, "score": 1.0}
    questions = [
        asked(f"q{number}", f"{word} does the ferry sail?", ["nine"] * (number % 2), passages=[
            {**harbour, "is_gold": bool(number % 2)}
        ])
        for number, word in enumerate(["Why", "When", "How fast", "At what time"])
    ]  # fmt: skip
    others = [
        asked(f"b{number}", f"What does bell {number} weigh?", ["two tons"], passages=[
            {"title": f"Bell {number}", "text": f"Bell {number} weighs two tons.", "is_gold": True}
        ])
        for number in range(12)
    ]  # fmt: skip
    for seed in range(4):
        run(tmp_path / f"{seed}", rows_recipe(tmp_path, [*questions, *others], splits={"test": 0.3}), "clean", seed)
        left = Left(tmp_path / f"{seed}")
        harbours = {split for split in ("train", "test") if {f"q{n}" for n in range(4)} & set(left.asked(split))}
        assert len(harbours) == 1
