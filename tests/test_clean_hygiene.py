"""Hygiene within a build: splits by what questions share, repeated questions, evaluation sets of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from own_rows import Left, asked, lines, passage, recipe, rows_recipe, run

SPLITS = ("train", "validation", "test")
PLACES = ["Aldern", "Berin", "Corin", "Dorin", "Ewald", "Falun", "Gorin", "Harth", "Imber", "Jorun"]


def text(place: str) -> str:
    return f"The old stone bridge of {place} leads over a small river and was built by the people of {place} by hand."


def cleaned(folder: Path, *arguments: Any, **data: Any) -> Left:
    run(folder / "data", rows_recipe(folder, *arguments, **data), "clean")
    return Left(folder / "data")


def split_of(left: Left) -> dict[str, str]:
    return {id_: split for split in SPLITS for id_ in left.asked(split)}


def test_questions_about_one_document_go_to_one_split_and_shares_are_met(tmp_path: Path) -> None:
    passages = [passage(f"{place}-{n}", f"{text(place)} Part {n}.", document=place) for place in PLACES for n in (1, 2)]
    questions = [
        asked(f"{place}-{n}", f"Which {word} stands in part {n} of {place}?", ["bridge"], [f"{place}-{n}"])
        for place in PLACES
        for n, word in ((1, "thing"), (2, "building"))
    ]
    left = cleaned(tmp_path, questions, passages, splits={"test": 0.2, "validation": 0.1})
    found = split_of(left)
    assert all(found[f"{place}-1"] == found[f"{place}-2"] for place in PLACES)
    assert {split: list(found.values()).count(split) for split in SPLITS} == {"train": 14, "validation": 2, "test": 4}
    counts = left.manifest("clean")["counts"]
    assert (counts["questions without a split"], counts["groups of them"], counts["largest group"]) == (20, 10, 2)


def test_gold_that_was_left_out_as_a_copy_still_holds_its_questions_together(tmp_path: Path) -> None:
    """The copy has another id and no document: only the passage that stays tells that both questions are about it."""
    passages = [passage(f"{place}-{n}", text(place)) for place in PLACES for n in (1, 2)]
    questions = [
        asked(f"{place}-{n}", f"{words} {place}?", ["bridge"], [f"{place}-{n}"])
        for place in PLACES
        for n, words in ((1, "Which crossing stands in"), (2, "What did people build at"))
    ]
    found = split_of(cleaned(tmp_path, questions, passages, splits={"test": 0.3}))
    assert all(found[f"{place}-1"] == found[f"{place}-2"] for place in PLACES)
    assert list(found.values()).count("test") == 6


def test_splits_may_use_the_same_ids_for_different_passages(tmp_path: Path) -> None:
    """Row numbers as ids: the passage 0 of the test is not that of training, so nothing leaks."""
    paths = {}
    for split, places in (("train", PLACES[:3]), ("test", PLACES[3:6])):
        shown = [passage(str(n), text(place), is_gold=True) for n, place in enumerate(places)]
        rows = [
            asked(f"{split}-{n}", f"What stands in {place}?", ["bridge"], passages=[shown[n]])
            for n, place in enumerate(places)
        ]
        paths[split] = lines(tmp_path / f"{split}.jsonl", rows)
    run(tmp_path / "data", recipe({"mine": {"kind": "jsonl", "path": paths}}), "clean")
    left = Left(tmp_path / "data")
    assert {split: len(left.asked(split)) for split in SPLITS} == {"train": 3, "validation": 0, "test": 3}
    assert left.manifest("clean")["dropped"] == {}


def test_the_same_passage_in_two_splits_leaks_whatever_its_id(tmp_path: Path) -> None:
    questions = [
        asked("t1", "What stands in Aldern?", ["bridge"], ["a"], split="train"),
        asked("t2", "What stands in Berin?", ["bridge"], ["b"], split="train"),
        asked("e1", "Which crossing has Aldern?", ["bridge"], ["x"], split="test"),
    ]
    passages = [
        passage("a", text("Aldern"), split="train"),
        passage("b", text("Berin"), split="train"),
        passage("x", text("Aldern"), split="test"),
    ]
    left = cleaned(tmp_path, questions, passages)
    assert split_of(left) == {"t2": "train", "e1": "test"}
    told = left.manifest("clean")
    assert told["dropped"] == {"train questions that share a gold document with test": 1}
    assert told["samples"]["train questions that share a gold document with test"] == ["t1"]
    kept = cleaned(tmp_path / "kept", questions, passages, splits={"given": "keep"})
    assert set(split_of(kept)) == {"t1", "t2", "e1"}


def test_of_a_question_asked_twice_the_one_in_the_test_stays(tmp_path: Path) -> None:
    questions = [
        asked("t1", "What stands in Aldern?", ["bridge"], ["a"], split="train"),
        asked("t2", "what stands in ALDERN", ["a tower"], ["b"], split="train"),
        asked("e1", "What stands in Aldern?", ["bridge"], ["a"], split="test"),
    ]
    passages = [passage("a", text("Aldern")), passage("b", text("Berin"))]
    left = cleaned(tmp_path, questions, passages)
    assert split_of(left) == {"e1": "test"}
    assert left.manifest("clean")["dropped"] == {
        "questions asked twice with other answers, in two splits": 1,
        "questions asked twice, in two splits": 1,
    }


def squad(path: Path, *paragraphs: tuple[str, str, str, str]) -> dict[str, Any]:
    """Write paragraphs with one question each, as (title, context, question, answer), in the format of SQuAD."""
    articles = [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"s{number}",
                            "question": question,
                            "answers": [{"text": answer, "answer_start": context.index(answer)}],
                        }
                    ],
                }
            ],
        }
        for number, (title, context, question, answer) in enumerate(paragraphs)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return {"kind": "squad", "path": str(path)}


def test_training_questions_that_an_evaluation_set_of_another_kind_holds_are_left_out(tmp_path: Path) -> None:
    thirteen = "leads over a small river and was built by the people of Corin by hand"  # articles do not count
    twelve = "over a small river and was built by the people of Dorin by hand"
    held = squad(
        tmp_path / "dev.json",
        ("Aldern", "Nothing like it.", "What stands in Aldern?", "Nothing"),
        ("Berin", "No bridge at all.", "Which old bridge was it that people built in the town of Berin?", "bridge"),
        ("Corin", f"Elsewhere a road {thirteen}.", "Which river?", "river"),
        ("Dorin", f"Elsewhere a road goes {twelve}.", "Who?", "people"),
    )
    questions = [
        asked("same", "what stands in  Aldern", ["bridge"], ["Aldern"]),
        asked("near", "Which old bridge was it that people built then in the town of Berin?", ["bridge"], ["Berin"]),
        asked("read", "Is there a crossing?", ["bridge"], ["copy of Corin"]),
        asked("free", "What can be crossed at Dorin?", ["bridge"], ["Dorin"]),
    ]
    passages = [passage(place, text(place)) for place in PLACES[:4]]
    passages.append(passage("copy of Corin", text("Corin").upper()))
    given = [{**one, "split": split, "id": f"{split} {one['id']}"} for split in ("train", "test") for one in questions]
    data = {"splits": {"by": []}, "hygiene": {"repeated_questions": "keep"}, "decontaminate": {"dev": held}}
    left = cleaned(tmp_path, given, passages, **data)
    assert left.asked("train") == ["train free"]
    assert left.asked("test") == [f"test {one['id']}" for one in questions]  # only training is kept clean
    told = left.manifest("clean")
    reasons = {
        "training questions: the same question is in dev": ["train same"],
        "training questions: near-duplicate question in dev": ["train near"],
        "training questions: gold passage shares 13 words with one of dev": ["train read"],
    }
    assert {name: told["samples"][name] for name in reasons} == reasons
    assert told["dropped"] == {**dict.fromkeys(reasons, 1), "passages with the text of another": 1}
    alone = {**data, "hygiene": {"repeated_questions": "keep", "passages": False}}
    assert cleaned(tmp_path / "alone", given, passages, **alone).asked("train") == ["train read", "train free"]


def test_what_the_runs_own_test_holds_too_is_counted_and_kept(tmp_path: Path) -> None:
    questions = [
        asked("t1", "What stands in Aldern?", ["bridge"], ["a"], split="train"),
        asked("e1", "Which crossing has Aldern?", ["bridge"], ["a"], split="test"),
    ]
    left = cleaned(tmp_path, questions, [passage("a", text("Aldern"))], splits={"given": "keep"})
    name = "training questions kept although: gold passage shares 13 words with one of the test split"
    assert left.manifest("clean")["counts"][name] == 1
    assert left.asked("train") == ["t1"]
