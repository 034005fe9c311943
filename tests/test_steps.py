"""The steps of a build: what they keep and redo, and what a harmed or interrupted one does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_builds import STEPS, build, hashes, ran, settings, world, world_of
from tiny_world import TinyWorld

from data_builders import sources
from data_builders.data_settings import DataSettings
from data_builders.errors import RagFtError
from data_builders.records import Question


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
        (lambda s: s.model_copy(update={"depth": 2}), ["retrieval/bm25", "pools", "contexts", "labels"]),
        (lambda s: s.model_copy(update={"depth": 40}), ["retrieval/bm25"]),  # four passages: the same are found
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
    chosen = DataSettings.model_validate({"sources": world_of(160, 20, 30)})
    assert ran(build(tmp_path, chosen)) == ["source", "clean", "retrieval/bm25", "pools"]


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
    told = json.loads(manifest.read_text())
    del told["outputs"][path.name]
    manifest.write_text(json.dumps(told))
    return f"its manifest says nothing of {path.name}"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("harm", [_delete, _truncate, _edit, _forget, _garble, _hollow])
@pytest.mark.parametrize(
    "file",
    ["source/passages.parquet", "clean/passages-train.arrow", "pools/train.arrow", "contexts/train.parquet"],
)
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
    assert not (tmp_path / "one/source/manifest.json").exists()
    (tmp_path / "one/source/.passages.parquet.99999.tmp").write_bytes(b"left by a kill")
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
        first, quote = good[0], good[0].evidence[0]
        yield replace(
            first, id=f"{split}-no-answer", question=f"Who said nothing in {first.question}", answers=("...",)
        )
        yield replace(
            first, id=f"{split}-no-gold", question=f"Who stands nowhere in {first.question}", gold=(), evidence=()
        )
        yield replace(
            first,
            id=f"{split}-gold-elsewhere",
            question=f"Who is away in {first.question}",
            gold=("nowhere",),
            evidence=(),
        )
        yield replace(
            first,
            id=f"{split}-wrong-quote",
            question=f"Who lied in {first.question}",
            evidence=(replace(quote, quote="never said"),),
        )


def test_unusable_questions_are_counted_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Faulty)
    build(tmp_path, settings())
    manifest = json.loads((tmp_path / "clean/manifest.json").read_text())
    assert manifest["outputs"]["questions-train.arrow"]["rows"] == 13
    assert manifest["dropped"] == {
        "questions whose gold passage is not in the corpus of their split": 3,
        "questions with a quote that is not in their gold passage": 3,
        "questions without a gold passage (data.gold: answer_match looks for one)": 3,
        "questions without an answer in words": 3,
    }
    assert manifest["samples"]["questions without an answer in words"] == [
        f"{split}-no-answer" for split in ("train", "validation", "test")
    ]


class Repeating(TinyWorld):
    """Gives two different passages one id."""

    def passages(self, split: str) -> Iterator[Any]:
        for passage in super().passages(split):
            yield passage
            yield replace(passage, text=f"{passage.text} And more.")


def test_two_passages_of_one_id_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._SOURCES, "invented_world", Repeating)
    with pytest.raises(RagFtError, match=r"two different passages have the id train-0 \(8 ids in all"):
        build(tmp_path, settings())


@pytest.mark.usefixtures("tiny")
def test_report_names_what_was_left_out_and_what_to_change(tmp_path: Path) -> None:
    lines = build(tmp_path, settings(passages={"kind": "fixed", "count": 9}))
    text = " ".join(" ".join(lines).split())
    assert "20 contexts with fewer passages than drawn" in text
    assert "lower data.contexts.passages" in text
    assert "min 5 % median 95 % max mean" in text
    assert "gold positions 0: " in text
