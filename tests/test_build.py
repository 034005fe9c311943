"""The whole data pipeline: contracts of its rows and of shared contexts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from small_builds import build, settings, world

from data_builders.corpus import Corpus
from data_builders.paths import data_paths
from data_builders.records import ContextRow, Question, check_context_row
from data_builders.tables import read_context_rows, read_pools, read_questions
from data_builders.text import contains_answer


def train_rows(folder: Path) -> list[ContextRow]:
    return list(read_context_rows(data_paths(folder).labels["train"]))


# what the rows hold


@pytest.mark.usefixtures("tiny")
def test_build_leaves_every_table_with_its_rows(tmp_path: Path) -> None:
    build(tmp_path, settings())
    paths = data_paths(tmp_path)
    sizes = {
        "passages": {split: len(Corpus.open(paths.searched(split))) for split in paths.questions},
        "questions": {split: len(list(read_questions(path))) for split, path in paths.questions.items()},
        "pools": {split: len(list(read_pools(path))) for split, path in paths.pools.items()},
        "labels": {split: len(list(read_context_rows(path))) for split, path in paths.labels.items()},
    }
    asked = {"train": 13, "validation": 7, "test": 7}
    assert sizes["passages"] == {"train": 4, "validation": 2, "test": 2}
    assert sizes["questions"] == sizes["pools"] == asked
    assert sizes["labels"] == {"train": 13, "validation": 7}
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("tiny")
def test_pools_carry_ranks_gold_and_answers(tmp_path: Path) -> None:
    build(tmp_path, settings())
    pools = {pool.id: pool for pool in read_pools(data_paths(tmp_path).pools["train"])}
    founder = pools["train-1-founder"]
    assert [passage.rank for passage in founder.passages] == [1, 2, 3, 4]
    assert [(p.id, p.retriever) for p in founder.passages if p.is_gold] == [("train-1", "bm25")]
    assert founder.passages[0].id == "train-1"
    assert [p.id for p in founder.passages if p.has_answer] == ["train-1"]
    assert [p.score for p in founder.passages] == sorted((p.score for p in founder.passages), reverse=True)


@pytest.mark.usefixtures("tiny")
def test_retrieval_quality_is_in_the_manifest(tmp_path: Path) -> None:
    lines = build(tmp_path, settings())
    counts = json.loads((tmp_path / "pools/manifest.json").read_text())["counts"]["retrieval of train"]["bm25"]
    # twelve questions name their only town, one needs two passages
    assert counts["recall (all gold in the top k)"] == {"1": 0.9231, "2": 1.0, "all": 1.0}  # four towns are searched
    assert any("recall (all gold in the top k)" in line for line in lines)


def check_row(row: ContextRow, annotated: dict[str, Question]) -> None:
    """Check one labelled row against the annotations, by other means than the builder's."""
    check_context_row(row)
    ids = [passage.id for passage in row.passages]
    assert len(set(ids)) == len(ids)
    for asked in row.questions:
        gold = annotated[asked.id].gold
        label = asked.label
        assert label is not None
        assert asked.answerable == (set(gold) <= set(ids))
        assert sorted(ids[index] for index in asked.gold) == (sorted(gold) if asked.answerable else [])
        assert asked.has_answer == ()
        others = [passage for passage in row.passages if passage.id not in gold or not asked.answerable]
        assert not any(contains_answer(f"{p.title}\n{p.text}", asked.answers) for p in others)
        assert [judged.passage for judged in label.relevance] == list(range(len(ids)))
        assert {judged.passage for judged in label.relevance if judged.relevant} == set(asked.gold)
        assert label.answer == (asked.answers[0] if asked.answerable else None)
        assert bool(label.evidence) == asked.answerable


@pytest.mark.parametrize("questions_per_context", [1, 6])
def test_every_row_agrees_with_the_annotations(tmp_path: Path, questions_per_context: int) -> None:
    build(tmp_path, world(questions_per_context=questions_per_context, gold_probability=0.7))
    annotated = {question.id: question for question in read_questions(data_paths(tmp_path).questions["train"])}
    rows = train_rows(tmp_path)
    for row in rows:
        check_row(row, annotated)
    asked = [question for row in rows for question in row.questions]
    assert Counter(question.id for question in asked) == Counter(list(annotated))  # each exactly once
    absent = sum(not question.answerable for question in asked) / len(asked)
    assert absent == pytest.approx(0.3, abs=0.1 if questions_per_context == 1 else 0.05)


def test_provenance_is_that_of_the_questions_own_pool(tmp_path: Path) -> None:
    build(tmp_path, world(questions_per_context=6))
    pools = {pool.id: pool for pool in read_pools(data_paths(tmp_path).pools["train"])}
    for row in train_rows(tmp_path):
        for asked in row.questions:
            ranks = {entry.id: entry.rank for entry in pools[asked.id].passages if entry.rank}
            shown = [found.rank if found else None for found in asked.retrieved]
            assert shown == [ranks.get(passage.id) for passage in row.passages]


# shared contexts


@pytest.mark.usefixtures("tiny")
def test_ideal_world_is_asked_about_in_one_context(tmp_path: Path) -> None:
    build(
        tmp_path,
        settings(questions_per_context=13, gold_probability=1.0, passages={"kind": "fixed", "count": 4}),
    )
    (row,) = train_rows(tmp_path)
    assert len(row.questions) == 13
    loads = Counter(index for question in row.questions for index in question.gold)
    assert sorted(loads.values()) == [3, 3, 4, 4]  # three questions per town, and the two towns of the two hops


@pytest.mark.usefixtures("tiny")
def test_few_questions_are_spread_over_all_passages(tmp_path: Path) -> None:
    build(
        tmp_path,
        settings(
            questions_per_context=3,
            gold_probability=1.0,
            passages={"kind": "fixed", "count": 4},
            contexts={"train": 1, "validation": 0},
        ),
    )
    (row,) = train_rows(tmp_path)
    assert row.id == row.questions[0].id
    asked = Counter(index for question in row.questions for index in question.gold)
    assert len(row.questions) == 3
    assert set(asked.values()) == {1}
    assert list(read_context_rows(data_paths(tmp_path).labels["validation"])) == []


def test_shared_contexts_serve_several_questions_of_several_passages(tmp_path: Path) -> None:
    build(tmp_path, world(questions_per_context=8, gold_probability=1.0))
    rows = train_rows(tmp_path)
    assert sum(len(row.questions) for row in rows) == 160
    assert len(rows) < 160 / 3
    full = [row for row in rows if len(row.questions) == 8]
    for row in full:
        assert len({index for question in row.questions for index in question.gold}) >= 4


def test_shared_context_without_any_gold(tmp_path: Path) -> None:
    build(tmp_path, world(questions_per_context=4, gold_probability=0.0))
    asked = [question for row in train_rows(tmp_path) for question in row.questions]
    assert len(asked) == 160
    assert not any(question.answerable or question.gold for question in asked)


@pytest.mark.parametrize("questions_per_context", [1, 4])
def test_cap_is_met_with_distinct_questions_first_and_further_passes_then(
    tmp_path: Path, questions_per_context: int
) -> None:
    chosen = world(questions_per_context=questions_per_context, contexts={"train": 200, "validation": 5})
    build(tmp_path, chosen)
    rows = train_rows(tmp_path)
    assert len(rows) == len({row.id for row in rows}) == 200
    asked = Counter(question.id for row in rows for question in row.questions)
    assert len(asked) == 160
    assert max(asked.values()) - min(asked.values()) <= 1
    first, again = rows[0], next(row for row in rows if row.id == f"{rows[0].id}#2")
    assert [passage.id for passage in first.passages] != [passage.id for passage in again.passages]


def test_small_cap_covers_as_many_gold_passages_as_it_can(tmp_path: Path) -> None:
    build(tmp_path, world(contexts={"train": 20}, gold_probability=1.0))
    golds = [tuple(sorted(row.passages[i].id for i in row.questions[0].gold)) for row in train_rows(tmp_path)]
    assert len(set(golds)) == 20
