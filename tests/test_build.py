"""The whole data pipeline: contracts of its rows, shared contexts, and what happens when files or settings change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_world import TinyWorld

from data_builders import sources
from data_builders.build import DataSettings, build_data, data_paths
from data_builders.errors import RagFtError
from data_builders.files import file_hash
from data_builders.records import (
    ContextRow,
    Question,
    check_context_row,
    read_context_rows,
    read_passages,
    read_pools,
    read_questions,
)
from data_builders.text import contains_answer

STEPS = ["source", "pools", "contexts", "labels"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", TinyWorld)


def settings(**contexts: Any) -> DataSettings:
    return DataSettings.model_validate({"contexts": {"passages": {"kind": "fixed", "count": 3}, **contexts}})


def world(**contexts: Any) -> DataSettings:
    """Return settings of the invented world, small."""
    source = {"questions": {"train": 160, "validation": 20, "test": 20}}
    return DataSettings.model_validate({"source": source, "contexts": contexts})


def build(folder: Path, chosen: DataSettings, seed: int = 1) -> list[str]:
    lines: list[str] = []
    build_data(chosen, seed, folder, report=lines.append)
    return lines


def ran(lines: list[str]) -> list[str]:
    return [line.split(":")[0] for line in lines if ": building" in line]


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.rglob("*.parquet"))}


def train_rows(folder: Path) -> list[ContextRow]:
    return list(read_context_rows(data_paths(folder).labels["train"]))


# what the rows hold


@pytest.mark.usefixtures("tiny")
def test_build_leaves_every_table_with_its_rows(tmp_path: Path) -> None:
    build(tmp_path, settings())
    paths = data_paths(tmp_path)
    sizes = {
        "passages": {split: len(list(read_passages(path))) for split, path in paths.passages.items()},
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
    counts = json.loads((tmp_path / "pools/manifest.json").read_text())["counts"]["train"]
    # twelve questions name their only town, one needs two passages
    assert counts["recall (all gold in the top k)"] == {"1": 0.9231, "2": 1.0, "5": 1.0, "10": 1.0, "20": 1.0}
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


# steps


@pytest.mark.usefixtures("tiny")
def test_same_settings_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    chosen = settings(questions_per_context=3)
    build(tmp_path / "one", chosen)
    build(tmp_path / "two", chosen)
    build(tmp_path / "three", chosen, seed=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert hashes(tmp_path / "one")["contexts/train.parquet"] != hashes(tmp_path / "three")["contexts/train.parquet"]


@pytest.mark.usefixtures("tiny")
def test_second_build_runs_nothing(tmp_path: Path) -> None:
    assert ran(build(tmp_path, settings())) == STEPS
    assert build(tmp_path, settings()) == [f"{step}: unchanged" for step in STEPS]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        (lambda s: s.model_copy(update={"depth": 2}), ["pools", "contexts", "labels"]),
        (lambda s: s.model_copy(update={"depth": 40}), ["pools"]),  # four passages: the pools come out the same
        (lambda s: settings(order="retrieved"), ["contexts", "labels"]),
        (lambda s: settings(gold_absent="answer"), ["labels"]),
    ],
)
def test_changed_settings_redo_only_what_depends_on_them(
    tmp_path: Path, change: Callable[[DataSettings], DataSettings], rebuilt: list[str]
) -> None:
    build(tmp_path, settings())
    lines = build(tmp_path, change(settings()))
    assert ran(lines) == rebuilt
    assert any(f"{rebuilt[0]}: building (settings changed: " in line for line in lines)
    fresh = tmp_path / "fresh"
    build(fresh, change(settings()))
    assert hashes(fresh) == {name: value for name, value in hashes(tmp_path).items() if not name.startswith("fresh")}


def test_more_test_questions_leave_the_training_rows_alone(tmp_path: Path) -> None:
    build(tmp_path, world())
    source = {"questions": {"train": 160, "validation": 20, "test": 30}}
    assert ran(build(tmp_path, DataSettings.model_validate({"source": source}))) == ["source", "pools"]


@pytest.mark.usefixtures("tiny")
def test_another_seed_rebuilds_and_says_so(tmp_path: Path) -> None:
    build(tmp_path, settings())
    assert "contexts: building (seed changed from 1 to 2)" in build(tmp_path, settings(), seed=2)


def _delete(path: Path) -> str:
    path.unlink()
    return f"{path.name} is missing"


def _truncate(path: Path) -> str:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-9])
    return f"{path.name} has {size - 9} bytes instead of {size}"


def _edit(path: Path) -> str:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    return f"{path.name} was edited"


def _forget(path: Path) -> str:
    (path.parent / "manifest.json").unlink()
    return "it was interrupted, or its manifest is gone"


def _garble(path: Path) -> str:
    (path.parent / "manifest.json").write_text('{"outputs": ')
    return "it was interrupted, or its manifest is gone"


def _hollow(path: Path) -> str:
    manifest = path.parent / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "outputs": {}}))
    return f"its manifest says nothing of {path.name}"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("harm", [_delete, _truncate, _edit, _forget, _garble, _hollow])
@pytest.mark.parametrize("file", ["source/passages-train.parquet", "contexts/train.parquet"])
def test_harmed_file_is_rebuilt_to_the_same_bytes(tmp_path: Path, harm: Callable[[Path], str], file: str) -> None:
    build(tmp_path, settings())
    before, step = hashes(tmp_path), file.split("/")[0]
    reason = harm(tmp_path / file)
    lines = build(tmp_path, settings())
    assert f"{step}: building ({reason})" in lines
    assert ran(lines) == [step]
    assert hashes(tmp_path) == before


class Interrupted(TinyWorld):
    """Stops while the second split is read, as a kill would."""

    def passages(self, split: str) -> Iterator[Any]:
        if split == "validation":
            raise KeyboardInterrupt
        return super().passages(split)


def test_interrupted_build_goes_on_to_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "one", settings())
    assert (tmp_path / "one/source/passages-train.parquet").exists()
    assert not (tmp_path / "one/source/manifest.json").exists()
    (tmp_path / "one/source/.passages-train.parquet.99999.tmp").write_bytes(b"left by a kill")
    monkeypatch.setitem(sources._SOURCES, "invented_world", TinyWorld)
    assert "source: building (it was interrupted, or its manifest is gone)" in build(tmp_path / "one", settings())
    build(tmp_path / "two", settings())
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("blocked", ["", "pools"])
def test_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, blocked: str) -> None:
    folder = tmp_path / "data"
    if blocked:
        folder.mkdir()
    (folder / blocked if blocked else folder).write_text("a file where a folder should be")
    with pytest.raises(RagFtError, match=r"cannot write .*runs_dir=PATH"):
        build(folder, settings())


class Faulty(TinyWorld):
    """Gives questions that cannot be used beside the good ones."""

    def questions(self, split: str) -> Iterator[Question]:
        good = list(super().questions(split))
        yield from good
        yield replace(good[0], id="no-answer", answers=("...",))
        yield replace(good[0], id="no-gold", gold=(), evidence=())
        yield replace(good[0], id="gold-elsewhere", gold=("nowhere",), evidence=())
        yield replace(good[0], id="wrong-quote", evidence=(replace(good[0].evidence[0], quote="never said"),))


def test_unusable_questions_are_counted_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Faulty)
    build(tmp_path, settings())
    manifest = json.loads((tmp_path / "source/manifest.json").read_text())
    assert manifest["outputs"]["questions-train.parquet"]["rows"] == 13
    assert manifest["dropped"] == {
        "questions whose gold passage is not in the corpus of their split": 3,
        "questions with a quote that is not in their gold passage": 3,
        "questions without a gold passage": 3,
        "questions without an answer in words": 3,
    }
    assert manifest["samples"]["questions without a gold passage"] == ["no-gold"] * 3


class Repeating(TinyWorld):
    """Gives the same passage twice."""

    def passages(self, split: str) -> Iterator[Any]:
        yield from super().passages(split)
        yield from super().passages(split)


def test_two_passages_of_one_id_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Repeating)
    with pytest.raises(RagFtError, match="the train split has two passages with id train-0"):
        build(tmp_path, settings())


@pytest.mark.usefixtures("tiny")
def test_report_names_what_was_left_out_and_what_to_change(tmp_path: Path) -> None:
    lines = build(tmp_path, settings(passages={"kind": "fixed", "count": 9}))
    text = "\n".join(lines)
    assert "contexts with fewer passages than drawn 20" in text
    assert "lower data.contexts.passages" in text
    assert "passages per context: min " in text
    assert "gold positions: 0: " in text
