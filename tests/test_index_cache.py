"""Indexes are built once, kept in RAG_FT_CACHE, built again when half of one is there; searching odd questions."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_rows import Left, asked, passage, rows_recipe, run
from small_builds import hashes, ran
from test_pools import trec
from tiny_world import corpus_of

from data_builders.errors import RagFtError
from data_builders.files import file_hash
from data_builders.retrieval import FOUND_SCHEMA, found_table, prepare_index, read_found
from data_builders.retrievers import Found, Retriever
from data_builders.tables import read_context_rows, read_pools

PASSAGES = [
    passage(f"p{n}", f"The {word} of Aldern was made of {word} stone.") for n, word in enumerate(["red", "blue"])
]
ASKED = [
    asked(f"q{n}", f"What is {word} in Aldern?", ["stone"], [f"p{n}"], split="train")
    for n, word in enumerate(["red", "blue"])
]
LOOSE: dict[str, Any] = {"splits": {"by": []}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def times(cache: Path) -> dict[str, int]:
    files = (path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(cache)): path.stat().st_mtime_ns for path in files}


def found(folder: Path) -> list[list[int]]:
    path = folder / "retrieval/bm25/train.parquet"
    return [one.positions.tolist() for one in read_found(path, 0, len(ASKED))]


def searched(folder: Path, *, passages: list[Any] = PASSAGES, **data: Any) -> Path:
    run(folder / "data", rows_recipe(folder, ASKED, passages, **LOOSE, **data), "retrieval/bm25")
    return folder / "data"


def test_a_second_build_of_the_same_corpus_reads_the_index_of_the_first(tmp_path: Path, cache: Path) -> None:
    first = searched(tmp_path / "one")
    built = times(cache)
    assert {name.split("/")[0] for name in built} == {"indexes"}
    assert len({name.split("/")[1] for name in built}) == 1
    second = searched(tmp_path / "two")
    deeper = searched(tmp_path / "deeper", depth=1)
    assert times(cache) == built
    assert found(first) == found(second) == [[0, 1], [1, 0]]
    assert found(deeper) == [[0], [1]]


def test_another_corpus_or_other_constants_have_an_index_of_their_own(tmp_path: Path, cache: Path) -> None:
    searched(tmp_path / "one")
    built = times(cache)
    searched(tmp_path / "more", passages=[*PASSAGES, passage("p9", "One more.")])
    searched(tmp_path / "flat", retrievers=[{"kind": "bm25", "b": 0.0}])
    now = times(cache)
    assert {name: now[name] for name in built} == built
    assert len({name.split("/")[1] for name in now}) == 3


@pytest.mark.parametrize("left", ["everything but the mark", "half of it", "nothing"])
def test_a_half_built_index_is_built_again(tmp_path: Path, cache: Path, left: str) -> None:
    searched(tmp_path / "one")
    (mark,) = cache.glob("indexes/*/complete.json")
    files = sorted(path for path in mark.parent.iterdir() if path != mark)
    whole = {path.name: file_hash(path) for path in files}
    mark.unlink()
    for number, path in enumerate(files):
        if left == "nothing" or (left == "half of it" and number % 2):
            path.unlink()
        elif left == "half of it":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = searched(tmp_path / "two")
    assert mark.is_file()
    assert {path.name: file_hash(path) for path in files} == whole
    assert found(again) == [[0, 1], [1, 0]]


class Breaking:
    """A retriever whose disk fails while it builds, as any of them may."""

    parallel = True

    def __init__(self, fail: Callable[[Path], None]) -> None:
        self._fail = fail

    def index_settings(self) -> dict[str, Any]:
        return {"kind": "breaking"}

    def build(self, corpus: Any, folder: Path, report: Callable[[str], None]) -> None:
        (folder / "half").write_text("half of an index")
        self._fail(folder)

    def open(self, corpus: Any, folder: Path) -> None:
        """Nothing to open."""

    def search(self, queries: Any, depth: int) -> list[Any]:
        return []


def full(number: int, wrapped: bool = False) -> Callable[[Path], None]:
    def fail(folder: Path) -> None:
        try:
            raise OSError(number, "the disk says no", str(folder / "half"))
        except OSError as error:
            if wrapped:  # as files.atomic_path does, whose advice is for the folder of runs
                raise RagFtError("cannot write it: choose another folder with runs_dir=PATH.") from error
            raise

    return fail


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_fails_while_indexing_names_the_folder_and_the_variable(
    cache: Path, number: int, wrapped: bool
) -> None:
    breaking: Retriever = Breaking(full(number, wrapped))
    with pytest.raises(RagFtError, match=r"^cannot write .*: the disk says no\. .*RAG_FT_CACHE") as caught:
        prepare_index(breaking, corpus_of(["one"]), print)
    assert f"{cache}/indexes/" in str(caught.value)
    assert "runs_dir" not in str(caught.value)
    assert not list(cache.glob("indexes/*/complete.json"))
    whole: Retriever = Breaking(lambda folder: None)
    assert (prepare_index(whole, corpus_of(["one"]), print) / "complete.json").is_file()


def test_a_cache_that_is_a_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "file"))
    with pytest.raises(RagFtError, match=r"cannot write .*file/indexes/.*RAG_FT_CACHE"):
        searched(tmp_path / "one")


@pytest.mark.parametrize(
    "raised", [OSError(errno.ENOENT, "no model here"), RagFtError("the model is broken"), KeyError("bug")]
)
def test_what_is_not_the_disks_fault_is_raised_as_it_is(cache: Path, raised: Exception) -> None:
    def fail(folder: Path) -> None:
        raise raised

    breaking: Retriever = Breaking(fail)
    with pytest.raises(type(raised)) as caught:
        prepare_index(breaking, corpus_of(["one"]), print)
    assert caught.value is raised


def test_a_run_file_that_changes_is_searched_again(tmp_path: Path, cache: Path) -> None:
    retriever = trec(tmp_path / "mine.run", {"q0": ["p0"], "q1": ["p1"]})
    chosen = rows_recipe(tmp_path, ASKED, PASSAGES, **LOOSE, retrievers=[retriever])
    run(tmp_path / "data", chosen, "pools")
    trec(tmp_path / "mine.run", {"q0": ["p1", "p0"], "q1": ["p1"]})
    told = run(tmp_path / "data", chosen, "pools")
    assert ran(told) == ["retrieval/mine", "pools"]
    assert "retrieval/mine: building (a file of the source changed)" in told
    first = next(read_pools(tmp_path / "data/pools/train.parquet"))
    assert [entry.id for entry in first.passages] == ["p1", "p0"]


def test_a_ranking_of_the_source_that_is_named_is_not_taken_for_the_fused_ones(tmp_path: Path, cache: Path) -> None:
    """A retriever without a name is called by its kind, `source`, as the ranking of that name is."""
    shown = [{**PASSAGES[0], "score": 2.0, "retriever": "source"}, {**PASSAGES[1], "score": 1.0, "retriever": "other"}]
    rows = [{**ASKED[0], "passages": shown}]
    for name, ids in [("", ["p0", "p1"]), ("source", ["p0"])]:
        retriever = {"kind": "source", "name": name}
        run(tmp_path / "data", rows_recipe(tmp_path, rows, **LOOSE, retrievers=[retriever]), "pools")
        (pool,) = read_pools(tmp_path / "data/pools/train.parquet")
        assert [entry.id for entry in pool.passages] == ids


@pytest.mark.parametrize("text", ["???", "the of and", "zzz qqq"])
def test_a_question_that_retrieval_cannot_read_is_asked_with_its_gold(tmp_path: Path, cache: Path, text: str) -> None:
    rows = [*ASKED, {**ASKED[0], "id": "odd", "question": text}]
    contexts = {"passages": {"kind": "fixed", "count": 2}, "gold_probability": 1.0}
    run(tmp_path / "data", rows_recipe(tmp_path, rows, PASSAGES, **LOOSE, contexts=contexts))
    left = Left(tmp_path / "data")
    assert left.manifest("retrieval/bm25")["counts"] == {"questions without any passage found": 1}
    pool = next(pool for pool in read_pools(left.paths.pools["train"]) if pool.id == "odd")
    assert [(entry.id, entry.rank) for entry in pool.passages] == [("p0", 0)]
    asked_of = {one.id: row for row in read_context_rows(left.paths.labels["train"]) for one in row.questions}
    assert "p0" in {passage.id for passage in asked_of["odd"].passages}


@given(st.lists(st.integers(0, 4), max_size=5), st.integers(0, 20), st.integers(0, 20))
def test_a_range_of_what_was_found_is_read_over_the_borders_of_parts(sizes: list[int], one: int, other: int) -> None:
    lists = [[number] * (number % 3) for number in range(sum(sizes))]  # some questions find nothing
    found = [Found(np.array(ids, np.int32), np.array(ids, np.float32) / 2) for ids in lists]
    start, stop = sorted((one, other))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "found.parquet"
        with pq.ParquetWriter(path, FOUND_SCHEMA) as writer:
            borders = np.cumsum([0, *sizes])
            for low, high in pairwise(borders):
                writer.write_table(found_table(found[low:high]))
        read = read_found(path, start, stop)
    assert [(row.positions.tolist(), row.scores.tolist()) for row in read] == [
        (ids, [number / 2 for number in ids]) for ids in lists[start:stop]
    ]


def test_passages_that_nobody_asks_about_are_not_indexed(tmp_path: Path, cache: Path) -> None:
    data = searched(tmp_path / "one", passages=[*PASSAGES, passage("e1", "Only the test.", split="test")])
    assert len(list(cache.glob("indexes/*/complete.json"))) == 1
    assert [len(read_found(data / f"retrieval/bm25/{split}.parquet", 0, 9)) for split in ("train", "test")] == [2, 0]
    assert hashes(data)["retrieval/bm25/test.parquet"] == hashes(data)["retrieval/bm25/validation.parquet"]
