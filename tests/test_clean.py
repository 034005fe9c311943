"""The clean step: every passage once, annotations that follow the one that stays, usable questions, counted drops."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
from own_rows import Left, asked, lines, passage, rows_recipe, run
from small_builds import hashes

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.records import GoldEvidence, Question, Ranking
from data_builders.tables import read_rankings

MILL = "The mill of Aldern grinds oats."
LEFT_IN_PEACE: dict[str, Any] = {  # hygiene has its own tests; here it stays out of the way
    "hygiene": {"repeated_questions": "keep"},
    "splits": {"by": [], "test": 0},
}


def cleaned(folder: Path, questions: list[Any], passages: list[Any], **data: Any) -> Left:
    run(folder / "data", rows_recipe(folder, questions, passages, **{**LEFT_IN_PEACE, **data}), "clean")
    return Left(folder / "data")


def question(number: int, gold: str, **other: Any) -> dict[str, Any]:
    return asked(f"q{number}", f"What is the answer to question {number}?", ["oats"], [gold], **other)


# passages


def test_ids_and_texts_that_come_again_are_searched_once(tmp_path: Path) -> None:
    passages = [
        passage("p1", MILL, "Mills"),
        passage("p1", MILL, "Mills"),
        passage("p2", "the  MILL of Aldern\ngrinds oats.", "mills"),
        passage("p3", MILL, "Oats"),  # another title, so another passage
        passage("p4", " \n ", "Nothing"),
        passage("p2", "the  MILL of Aldern\ngrinds oats.", "mills"),
    ]
    left = cleaned(tmp_path, [question(1, "p1", split="train")], passages)
    assert left.searched("train") == left.searched("test") == ["p1", "p3"]
    told = left.manifest("clean")
    assert told["counts"]["passages that came again"] == 2
    assert told["dropped"] == {"passages with the text of another": 1, "passages without text": 1}
    assert told["samples"]["passages with the text of another"] == ["p2"]
    assert told["samples"]["passages without text"] == ["p4"]


def test_passages_are_compared_with_those_their_split_searches_and_no_others(tmp_path: Path) -> None:
    passages = [
        passage("t1", MILL, split="train"),
        passage("t2", "Only in train.", split="train"),
        passage("e1", MILL, split="test"),  # every question searches the one that all splits share
        passage("e2", "Only in test.", split="test"),
        passage("v2", "Only in test.", split="validation"),  # the same text, but nobody searches both
        passage("t2", "The id of one in train.", split="test"),
        passage("all", MILL),
    ]
    questions = [question(n, gold, split=split) for n, (gold, split) in enumerate([("t1", "train"), ("e1", "test")])]
    left = cleaned(tmp_path, questions, passages)
    assert left.searched("train") == ["all", "t2"]
    assert left.searched("test") == ["all", "e2", "t2"]
    assert left.searched("validation") == ["all", "v2"]
    assert [Corpus.open([left.paths.passages["test"]])[1].text] == ["The id of one in train."]
    assert [one.gold for split in ("train", "test") for one in left.questions(split)] == [("all",), ("all",)]
    assert left.manifest("clean")["dropped"] == {"passages with the text of another": 2}


def test_annotations_and_rankings_follow_the_passage_that_stays(tmp_path: Path) -> None:
    shown = [
        passage("twin", MILL, score=3.0),
        passage("kept", MILL, score=2.0),
        passage("other", "The mill of Berin.", score=1.0),
        passage("copy", "The mill of Berin.", score=0.5),
    ]
    row = asked("q1", "What does it grind?", ["oats"], ["twin", "kept"], passages=shown, alternatives=["copy", "away"])
    row["evidence"] = [{"passage_id": "twin", "quote": "grinds oats", "reason": "It says so."}]
    left = cleaned(tmp_path, [row], [passage("kept", MILL), passage("other", "The mill of Berin.")])
    assert left.searched("train") == ["kept", "other"]
    expected = Question(
        id="q1",
        question="What does it grind?",
        answers=("oats",),
        gold=("kept",),
        evidence=(GoldEvidence("kept", "grinds oats", "It says so."),),
        source="mine",
        split="train",
        alternatives=("other", "away"),
    )
    assert left.questions("train") == [expected]
    assert list(read_rankings(left.paths.rankings)) == [Ranking("q1", "source", ("kept", "other"), (3.0, 1.0))]


@pytest.mark.parametrize(("first", "second"), [("", ""), ("", "train"), ("train", ""), ("test", "test")])
def test_an_id_with_two_texts_is_refused_where_one_question_searches_both(
    tmp_path: Path, first: str, second: str
) -> None:
    passages = [passage("p1", MILL, split=first or None), passage("p1", "Another text.", split=second or None)]
    with pytest.raises(RagFtError, match=r"two different passages have the id p1 \(1 ids in all.*give every passage"):
        cleaned(tmp_path, [question(1, "p1", split="train")], passages)


# questions


def test_a_question_that_comes_again_is_asked_once_and_keeps_its_ranking(tmp_path: Path) -> None:
    shown = [passage("p1", MILL, score=2.0), passage("p2", "The tower.", score=1.0)]
    row = question(1, "p1", passages=shown)
    left = cleaned(tmp_path, [row, question(2, "p1"), row], [])
    assert left.asked("train") == ["q1", "q2"]
    assert list(read_rankings(left.paths.rankings)) == [Ranking("q1", "source", ("p1", "p2"), (2.0, 1.0))]
    told = left.manifest("clean")
    assert told["dropped"] == {"questions that came again": 1}
    assert told["samples"]["questions that came again"] == ["q1"]


def test_an_id_with_two_questions_is_refused(tmp_path: Path) -> None:
    other = {**question(1, "p1"), "question": "What else?"}
    with pytest.raises(RagFtError, match=r'have the id q1: "What is the answer to question 1\?" and "What else\?"'):
        cleaned(tmp_path, [question(1, "p1"), other], [passage("p1", MILL)])


def test_unanswerable_questions_stay_and_unusable_ones_are_named(tmp_path: Path) -> None:
    quoted = [{"passage_id": "p1", "quote": "grinds wheat", "reason": ""}]
    questions = [
        asked("good", "What does the mill grind?", ["oats"], ["p1"]),
        asked("none", "Who owns the mill?", []),
        asked("signs", "Which sign?", ["..."], ["p1"]),
        asked("silent", "What is gold for?", [], ["p1"]),
        asked("lost", "Where is the gold?", ["oats"]),
        asked("away", "What is not here?", ["oats"], ["p9"]),
        asked("blank", "What is blank?", ["oats"], ["p2"]),
        asked("wrong", "What was never said?", ["wheat"], ["p1"], evidence=quoted),
        asked("elsewhere", "What is in the test?", ["oats"], ["p3"]),
    ]
    passages = [passage("p1", MILL), passage("p2", ""), passage("p3", "Only oats.", split="test")]
    left = cleaned(tmp_path, [{**one, "split": "train"} for one in questions], passages)
    assert left.asked("train") == ["good", "none"]
    told = left.manifest("clean")
    assert told["counts"]["questions annotated as unanswerable"] == 1
    assert told["dropped"] == {
        "passages without text": 1,
        "questions whose gold passage is not in the corpus of their split": 3,
        "questions with a quote that is not in their gold passage": 1,
        "questions without a gold passage (data.gold: answer_match looks for one)": 1,
        "questions without an answer in words": 2,
    }
    samples = {name.split(" ")[-1]: ids for name, ids in told["samples"].items()}
    assert samples["split"] == ["away", "blank", "elsewhere"]
    assert samples["passage"] == ["wrong"]
    assert samples["one)"] == ["lost"]
    assert samples["words"] == ["signs", "silent"]


def test_questions_without_gold_stay_where_gold_is_looked_for(tmp_path: Path) -> None:
    left = cleaned(tmp_path, [asked("lost", "Where?", ["oats"])], [passage("p1", MILL)], gold="answer_match")
    assert left.asked("train") == ["lost"]


# samples


def drawn(ids: list[str], most: int, seed: int) -> set[str]:
    """Return the ids whose random numbers, made of seed and id alone, are the smallest."""

    def number(id_: str) -> float:
        digest = hashlib.sha256(f"{seed}\x1fsample\x1f{id_}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big")).random()

    return set(sorted(ids, key=number)[:most])


def test_a_sample_is_drawn_by_the_seed_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [question(number, "p1", split="train") for number in range(40)]
    rows += [{**question(number, "p1", split="test"), "id": f"e{number}"} for number in range(3)]
    kept = {}
    for name, given, most in [("one", rows, 10), ("two", rows[::-1], 10), ("more", rows, 25)]:
        shown = [{**row, "passages": [passage("p1", MILL, score=1.0)]} for row in given]
        left = cleaned(tmp_path / name, shown, [], sample={"train": most, "test": 5})
        kept[name] = set(left.asked("train"))
        assert len(left.asked("test")) == 3
        assert {one.question for one in read_rankings(left.paths.rankings)} == {*kept[name], "e0", "e1", "e2"}
        assert left.manifest("clean")["dropped"] == {"questions of train beyond data.sample": 40 - most}
        assert len(left.manifest("clean")["samples"]["questions of train beyond data.sample"]) == 5
    ids = [f"q{number}" for number in range(40)]
    assert kept["one"] == kept["two"] == drawn(ids, 10, seed=1)
    assert kept["more"] == drawn(ids, 25, seed=1) > kept["one"]
    run(tmp_path / "seed", rows_recipe(tmp_path, rows, [passage("p1", MILL)], **LEFT_IN_PEACE, sample={"train": 10}),
        "clean", seed=2)  # fmt: skip
    assert set(Left(tmp_path / "seed").asked("train")) == drawn(ids, 10, seed=2) != kept["one"]


def test_nothing_of_a_split_may_be_wanted(tmp_path: Path) -> None:
    rows = [question(1, "p1", split="train"), question(2, "p1", split="test")]
    left = cleaned(tmp_path, rows, [passage("p1", MILL)], sample={"test": 0})
    assert (left.asked("train"), left.asked("test")) == (["q1"], [])


# everything at once


def messy(rng: random.Random) -> tuple[list[Any], list[Any]]:
    """Return questions and passages with every kind of fault, many of them at once."""
    splits = [None, "train", "validation", "test"]
    texts = [f"The tower number {number} of the valley has {number} bells." for number in range(40)] + ["", " "]
    passages = []
    for number in range(120):
        text = rng.choice(texts)
        split = rng.choice([None, None, "train", "test"])
        passages.append(passage(f"p{number}", rng.choice([text, text.upper()]), split=split))
    passages += rng.choices(passages, k=20)
    questions = []
    for number in range(400):
        answers = rng.choice([["bells"], ["bells"], [], ["?!"], [str(number), "bells"]])
        gold = [f"p{rng.randrange(130)}" for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        text = f"How many bells has tower {rng.randrange(200)}?"
        questions.append(asked(f"q{number}", text, answers, gold, split=rng.choice(splits)))
    questions += rng.choices(questions, k=30)
    return questions, passages


@pytest.mark.parametrize("seed", range(4))
def test_questions_in_are_questions_out_and_those_left_out(tmp_path: Path, seed: int) -> None:
    questions, passages = messy(random.Random(seed))
    sets = {"kind": "jsonl", "path": lines(tmp_path / "held.jsonl", [asked("x", questions[0]["question"], ["bells"])])}
    gold = "annotated" if seed % 2 else "answer_match"
    chosen = rows_recipe(
        tmp_path, questions, passages, decontaminate={"held": sets}, sample={"train": 10, "test": 5}, gold=gold
    )
    run(tmp_path / "data", chosen, "clean")
    left = Left(tmp_path / "data")
    told = left.manifest("clean")
    out = {split: len(left.questions(split)) for split in left.paths.questions}
    gone = {name: amount for name, amount in told["dropped"].items() if not name.startswith("passages")}
    assert len(questions) == sum(out.values()) + sum(gone.values())
    assert len(gone) >= 8
    assert out == {split: told["counts"].get(f"questions of {split}", 0) for split in out}
    assert (out["train"], out["test"]) == (10, 5)
    assert all(told["samples"][name] for name in told["dropped"])
    searched = sum(len(Corpus.open([path])) for path in left.paths.passages.values())
    lost = sum(amount for name, amount in told["dropped"].items() if name.startswith("passages"))
    assert len(passages) == searched + lost + told["counts"]["passages that came again"]


def test_the_same_rows_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    questions, passages = messy(random.Random(7))
    for name in ("one", "two"):
        run(tmp_path / name / "data", rows_recipe(tmp_path / name, questions, passages), "clean")
    assert hashes(tmp_path / "one/data") == hashes(tmp_path / "two/data")
