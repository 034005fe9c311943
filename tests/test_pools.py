"""Pools: merging several rankings, gold that was missed or has to be found, the guard's marks, both files of a pool.

The rankings are TREC runs written by hand, so every place in a pool can be worked out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from own_rows import Left, asked, passage, rows_recipe, run
from test_guard import reference_scores, write_model

from data_builders.pools import _block
from data_builders.ranked import Split
from data_builders.ranking import InterleaveSettings, Placed, RrfSettings, merge
from data_builders.records import Pool, PoolPassage, Retrieved
from data_builders.retrievers import Found
from data_builders.tables import read_pools

BRIDGE = "The bridge of Aldern leads over the river Ruhne near the old mill and was opened in the summer"
PASSAGES = [
    passage("gold", f"{BRIDGE} of 1932.", "Aldern"),
    passage("near", f"{BRIDGE}.", "Bridges"),
    passage("storm", "A storm came over the coast in 1932 and took many roofs with it.", "Weather"),
    passage("alt", "Since the early thirties cars could cross the water there.", "Roads"),
    passage("bell", "The tower of Berin has a bell of eleven tons.", "Berin"),
    passage("oats", "The mill of Corin grinds oats for the valley.", "Corin"),
    passage("fair", "A fair is held in Dorin every autumn.", "Dorin"),
]
QUESTION = "When was the bridge of Aldern opened?"
ASKED = asked("q1", QUESTION, ["1932"], ["gold"], alternatives=["alt"], split="train")
A = ["bell", "gold", "storm", "near"]
B = ["gold", "oats", "alt", "bell"]


def trec(path: Path, ranked: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Write a run; return the retriever of that name. The best of n passages scores n."""
    rows = [
        f"{question} Q0 {id_} {rank} {len(ids) - rank + 1} {path.stem}\n"
        for question, ids in ranked.items()
        for rank, id_ in enumerate(ids, start=1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(rows))
    return {"kind": "trec_run", "name": path.stem, "path": str(path)}


def pooled(
    folder: Path, questions: Sequence[Any], runs: Mapping[str, Mapping[str, Sequence[str]]], **data: Any
) -> tuple[Left, dict[str, Pool]]:
    """Build up to the pools; return what was left and the pools of train by question."""
    retrievers = [trec(folder / f"{name}.run", ranked) for name, ranked in runs.items()]
    loose = {"hygiene": {"repeated_questions": "keep"}, "splits": {"by": [], "test": 0}}
    chosen = rows_recipe(folder, questions, PASSAGES, **{**loose, **data}, retrievers=retrievers)
    run(folder / "data", chosen, "pools")
    left = Left(folder / "data")
    return left, {pool.id: pool for pool in read_pools(left.paths.pools["train"])}


def shape(pool: Pool) -> list[tuple[str, str, int, float]]:
    return [(entry.id, entry.retriever, entry.rank, round(entry.score, 4)) for entry in pool.passages]


# merging


def test_interleaving_takes_the_firsts_then_the_seconds_and_names_all_who_found(tmp_path: Path) -> None:
    left, pools = pooled(tmp_path, [ASKED], {"a": {"q1": A}, "b": {"q1": B}})
    assert shape(pools["q1"]) == [
        ("bell", "a", 1, 4.0),
        ("gold", "b", 1, 4.0),
        ("oats", "b", 2, 3.0),
        ("storm", "a", 3, 2.0),
        ("alt", "b", 3, 2.0),
        ("near", "a", 4, 1.0),
    ]
    assert [
        [(place.retriever, place.rank, place.score) for place in entry.found] for entry in pools["q1"].passages
    ] == [
        [("a", 1, 4.0), ("b", 4, 1.0)],
        [("b", 1, 4.0), ("a", 2, 3.0)],
        [("b", 2, 3.0)],
        [("a", 3, 2.0)],
        [("b", 3, 2.0)],
        [("a", 4, 1.0)],
    ]
    first = pools["q1"].passages[0]
    assert (first.title, first.text) == ("Berin", "The tower of Berin has a bell of eleven tons.")
    assert left.manifest("pools")["quantiles"]["passages per pool"]["max"] == 6


def test_fusion_ranks_by_weighted_reciprocal_ranks(tmp_path: Path) -> None:
    ranking = {"kind": "rrf", "k": 1, "weights": {"b": 2.0}}
    _, pools = pooled(tmp_path, [ASKED], {"a": {"q1": A}, "b": {"q1": B}}, ranking=ranking)
    assert shape(pools["q1"]) == [
        ("gold", "rrf", 1, 1.3333),  # 1/3 + 2/2
        ("bell", "rrf", 2, 0.9),  # 1/2 + 2/5
        ("oats", "rrf", 3, 0.6667),  # 2/3
        ("alt", "rrf", 4, 0.5),  # 2/4
        ("storm", "rrf", 5, 0.25),  # 1/4
        ("near", "rrf", 6, 0.2),  # 1/5
    ]
    assert pools["q1"].passages[1].found == (Retrieved("a", 1, 4.0), Retrieved("b", 4, 1.0))


@pytest.mark.parametrize("ranking", [InterleaveSettings(), RrfSettings(kind="rrf")])
def test_what_one_found_and_nothing_keep_their_order(ranking: Any) -> None:
    found = Found(np.array([7, 2, 5], np.int32), np.array([3, 2, 1], np.float32))
    none = Found(np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert [place.passage for place in merge({"a": found, "b": none}, ranking)] == [7, 2, 5]
    assert merge({"a": none}, ranking) == merge({}, ranking) == []
    longer = merge({"a": none, "b": found}, InterleaveSettings())
    assert longer[2] == Placed(5, "b", 3, 1.0, (("b", 3, 1.0),))


# judging


def test_the_guard_marks_gold_alternatives_answers_and_near_copies(tmp_path: Path) -> None:
    left, pools = pooled(tmp_path, [ASKED], {"a": {"q1": A}, "b": {"q1": B}})
    marks = {entry.id: (entry.is_gold, entry.has_answer, entry.guard) for entry in pools["q1"].passages}
    assert marks == {
        "bell": (False, False, ""),
        "gold": (True, True, "gold"),
        "oats": (False, False, ""),
        "storm": (False, True, "answer"),
        "alt": (False, False, "gold"),
        "near": (False, False, "near_duplicate"),
    }
    told = left.manifest("pools")
    kept = {name: amount for name, amount in told["counts"].items() if name.startswith("kept from")}
    assert kept == {
        "kept from the negatives: holds the answer": 1,
        "kept from the negatives: nearly repeats gold": 1,
    }
    assert {name: told["samples"][name] for name in kept} == {name: ["q1"] for name in kept}
    (excerpt,) = told["excerpts"]["kept from the negatives: holds the answer"]
    assert excerpt.startswith(f"{QUESTION} [1932] storm Weather: ")
    assert "A storm came over the coast in 1932 and took many roofs with it." in excerpt


def test_the_guard_can_be_switched_off(tmp_path: Path) -> None:
    off = {"answers": False, "near_duplicates": None}
    _, pools = pooled(tmp_path, [ASKED], {"a": {"q1": A}, "b": {"q1": B}}, guard=off)
    marks = {
        entry.id: (entry.has_answer, entry.guard) for entry in pools["q1"].passages if entry.guard or entry.has_answer
    }
    assert marks == {"gold": (True, "gold"), "storm": (True, ""), "alt": (False, "gold")}


def test_gold_that_no_retriever_found_stands_at_the_end(tmp_path: Path) -> None:
    two = {**ASKED, "gold": ["fair", "gold", "oats"]}
    left, pools = pooled(tmp_path, [two], {"a": {"q1": ["bell", "gold", "near"]}})
    assert shape(pools["q1"])[2:] == [("near", "a", 3, 1.0), ("fair", "gold", 0, 0.0), ("oats", "gold", 0, 0.0)]
    missed = pools["q1"].passages[3]
    assert (missed.is_gold, missed.guard, missed.found, missed.has_answer) == (True, "gold", (), False)
    told = left.manifest("pools")
    assert told["counts"]["gold passages that retrieval missed"] == 2
    assert told["samples"]["gold passages that retrieval missed"] == ["q1"]


def test_gold_without_the_answer_is_counted_where_an_answer_can_be_looked_for(tmp_path: Path) -> None:
    questions = [
        {**ASKED, "gold": ["fair", "gold", "oats"]},
        asked("q2", "Is there a fair in Dorin?", ["yes"], ["fair"], split="train"),
        asked("q3", "Who sleeps in the mill?", [], split="train"),
    ]
    left, _ = pooled(tmp_path, questions, {"a": {"q1": A, "q2": A, "q3": A}})
    told = left.manifest("pools")
    assert told["counts"]["gold passages that do not hold an answer"] == 2
    assert told["samples"]["gold passages that do not hold an answer"] == ["q1"]


def test_a_question_that_finds_nothing_has_its_gold_alone(tmp_path: Path) -> None:
    left, pools = pooled(tmp_path, [ASKED, {**ASKED, "id": "q2"}], {"a": {"q1": A}})
    assert shape(pools["q2"]) == [("gold", "gold", 0, 0.0)]
    assert left.manifest("retrieval/a")["counts"] == {"questions without any passage found": 1}


def test_unanswerable_questions_have_pools_without_gold_or_guards(tmp_path: Path) -> None:
    declined = asked("q2", "Who sleeps in the mill?", [], split="train")
    left, pools = pooled(tmp_path, [ASKED, declined], {"a": {"q1": A, "q2": ["gold", "storm"]}})
    assert shape(pools["q2"]) == [("gold", "a", 1, 2.0), ("storm", "a", 2, 1.0)]
    assert {(entry.is_gold, entry.has_answer, entry.guard) for entry in pools["q2"].passages} == {(False, False, "")}
    quality = left.manifest("pools")["counts"]["retrieval of train"]["a"]
    assert quality["recall (all gold in the top k)"] == {"1": 0.0, "2": 1.0, "all": 1.0}  # of q1 alone


def test_gold_that_is_not_annotated_is_the_best_passage_with_the_answer(tmp_path: Path) -> None:
    questions = [
        {**ASKED, "gold": [], "alternatives": []},
        {**ASKED, "id": "q2", "gold": [], "alternatives": []},
        {**ASKED, "id": "q3"},
        {**ASKED, "id": "q4", "answers": ["yes"], "gold": []},
    ]
    ranked = {"q1": ["bell", "storm", "gold"], "q2": ["bell", "oats"], "q3": ["storm"], "q4": ["gold", "storm"]}
    left, pools = pooled(tmp_path, questions, {"a": ranked}, gold="answer_match")
    assert list(pools) == ["q1", "q3"]
    marks = [(entry.id, entry.is_gold, entry.guard) for entry in pools["q1"].passages]
    assert marks == [("bell", False, ""), ("storm", True, "gold"), ("gold", False, "answer")]
    assert [entry.id for entry in pools["q3"].passages if entry.is_gold] == ["gold"]  # annotated, so not looked for
    told = left.manifest("pools")
    assert told["counts"]["questions whose gold is the best passage that bears the answer"] == 1
    assert told["dropped"] == {"questions without gold that retrieval found no answer for": 2}
    assert told["samples"]["questions without gold that retrieval found no answer for"] == ["q2", "q4"]
    assert told["outputs"]["train.parquet"]["rows"] == told["outputs"]["train.arrow"]["rows"] == 2


def test_a_cross_encoder_marks_what_scores_like_gold(tmp_path: Path) -> None:
    model = write_model(tmp_path / "reranker")
    ranked = ["bell", "gold", "oats", "storm", "fair", "near"]
    free = ["bell", "oats", "fair"]  # the others are marked by the tests of strings
    shown = {one["id"]: f"{one['title']}\n{one['text']}" for one in PASSAGES}
    scores = dict(
        zip(["gold", *free], reference_scores(model, QUESTION, [shown[i] for i in ["gold", *free]]), strict=True)
    )
    best = sorted((scores[id_] for id_ in free), reverse=True)
    margin = round(1 - (best[0] + best[1]) / 2 / scores["gold"], 6)  # between the best of them and the next
    assert 0 < margin < 1
    settings = {"cross_encoder": {"model": str(model), "margin": margin, "device": "cpu"}}
    left, pools = pooled(tmp_path, [ASKED], {"a": {"q1": ranked}}, guard=settings)
    flagged = [entry.id for entry in pools["q1"].passages if entry.guard == "cross_encoder"]
    assert flagged == [max(free, key=lambda id_: scores[id_])]
    told = left.manifest("pools")
    assert told["counts"]["kept from the negatives: scores like gold"] == 1
    assert told["excerpts"]["kept from the negatives: scores like gold"][0].startswith(
        f"{QUESTION} [1932] {flagged[0]} "
    )


# the files


def many(folder: Path) -> tuple[Left, dict[str, Pool]]:
    """Build pools of 620 questions, more than one part, with random runs of two retrievers."""
    rng, ids = random.Random(3), [one["id"] for one in PASSAGES]
    questions, runs = [], {"a": {}, "b": {}}
    for number in range(620):
        gold = rng.sample(ids, rng.choice([0, 1, 1, 2]))
        answers = ["1932"] if gold or rng.random() < 0.8 else []
        questions.append(asked(f"q{number}", f"{QUESTION} {number}", answers, gold, split="train"))
        for ranked in runs.values():
            ranked[f"q{number}"] = rng.sample(ids, rng.randrange(5))
    return pooled(folder, questions, runs, gold="answer_match")


def entry_of(split: Split, hit: Any, gold: set[int]) -> PoolPassage:
    """Return a hit as the table of pools shows it; the hits keep ranks of others but not their scores."""
    found = tuple(Retrieved(name, rank, 0.0) for name, rank in hit.found)
    passage = split.corpus[hit.passage]
    texts = (passage.id, passage.title, passage.text)
    is_gold = hit.passage in gold
    return PoolPassage(*texts, is_gold, hit.has_answer, hit.retriever, hit.rank, hit.score, hit.guard, found)


def test_both_files_of_a_pool_hold_the_same_entries(tmp_path: Path) -> None:
    left, pools = many(tmp_path)
    paths = left.paths
    split = Split.open(paths.searched("train"), paths.questions["train"], paths.hits["train"])
    dropped = left.manifest("pools")["dropped"]
    assert len(split) == len(pools) == 620 - sum(dropped.values())
    assert sum(dropped.values()) > 20
    assert split.ids == list(pools)
    for row, (id_, pool) in enumerate(pools.items()):
        ranked, gold = split.ranked(row), {entry.id for entry in pool.passages if entry.is_gold}
        assert (ranked.id, ranked.answers) == (id_, pool.answers)
        assert {split.corpus.id(position) for position in ranked.gold} == gold
        plain = [
            PoolPassage(**{**vars(e), "found": tuple(Retrieved(f.retriever, f.rank, 0.0) for f in e.found)})
            for e in pool.passages
            if e.rank
        ]
        assert [entry_of(split, hit, set(ranked.gold)) for hit in ranked.hits] == plain


def test_parts_of_pools_with_much_text_hold_fewer_questions_and_the_same_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = many(tmp_path / "whole")
    monkeypatch.setattr("data_builders.pools._TEXT", 20_000)
    left, pools = many(tmp_path / "parts")
    assert pools == whole
    file = pq.ParquetFile(left.paths.pools["train"])
    parts = [file.read_row_group(number).to_pylist() for number in range(file.num_row_groups)]
    texts = [sum(len(one["title"] + one["text"]) for pool in part for one in pool["passages"]) for part in parts]
    assert len(parts) > 10
    assert 5_000 < max(texts) <= 20_000  # of 620 pools with at most 8 passages of 100 characters each


@pytest.mark.parametrize(
    ("shown", "most", "block"),
    [
        ([10] * 1000, 4990, 500),
        ([10] * 1000, 4989, 250),
        ([10] * 999 + [10**10], 4990, 500),  # one question is too much by itself: smaller parts win nothing
        ([10**10] * 2 + [10] * 998, 4990, 1),
        ([], 100, 500),
        ([7, 7, 7], 1, 1),
    ],
)
def test_a_part_holds_no_more_text_than_it_may_beside_its_largest_pool(
    monkeypatch: pytest.MonkeyPatch, shown: list[int], most: int, block: int
) -> None:
    monkeypatch.setattr("data_builders.pools._TEXT", most)
    assert _block(np.array(shown, np.int64)) == block


def test_pools_load_with_datasets(tmp_path: Path) -> None:
    from datasets import load_dataset

    left, pools = many(tmp_path)
    path = left.paths.pools["train"]
    assert pq.ParquetFile(path).num_row_groups == 2
    loaded = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == list(pools)
    first, ours = loaded[0], next(iter(pools.values()))
    assert (first["question"], first["answers"], first["source"]) == (ours.question, list(ours.answers), "mine")
    entries = [
        PoolPassage(**{**entry, "found": tuple(Retrieved(**place) for place in entry["found"])})
        for entry in first["passages"]
    ]
    assert tuple(entries) == ours.passages
