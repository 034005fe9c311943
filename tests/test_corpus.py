"""The corpus by position: batches do not show, texts come back as they were, its key is its content."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.records import PASSAGE_SCHEMA, Passage

NUMBERS = range(11)
PASSAGES = [Passage(f"p{number}", f"T{number}", f"text {number}", f"d{number % 3}", number) for number in NUMBERS]


def batch(passages: Sequence[Passage]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([vars(passage) for passage in passages], schema=PASSAGE_SCHEMA)


def cut(borders: Sequence[int], passages: Sequence[Passage] = PASSAGES) -> Corpus:
    """Return a corpus whose batches end at `borders`."""
    edges = [0, *borders, len(passages)]
    pieces = [batch(passages[low:high]) for low, high in pairwise(edges)]
    return Corpus(pa.Table.from_batches(pieces, schema=PASSAGE_SCHEMA))


def write(path: Path, passages: Sequence[Passage], size: int = 1000) -> Path:
    table = pa.Table.from_batches([batch(passages)], schema=PASSAGE_SCHEMA)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, PASSAGE_SCHEMA) as writer:
        writer.write_table(table, max_chunksize=size)
    return path


BORDERS = st.lists(st.integers(0, len(PASSAGES)), max_size=4).map(sorted)  # batches may be empty


@given(BORDERS)
def test_passages_are_the_same_however_they_are_cut_into_batches(borders: list[int]) -> None:
    corpus = cut(borders)
    assert list(corpus) == PASSAGES
    assert [corpus.id(number) for number in NUMBERS] == [f"p{number}" for number in NUMBERS]
    assert [corpus.text(number) for number in NUMBERS] == [f"T{number}\ntext {number}" for number in NUMBERS]


@given(BORDERS)
def test_sizes_are_bytes_of_title_and_text(borders: list[int]) -> None:
    grown = [Passage(p.id, "다리"[: p.page], p.text * p.page) for p in PASSAGES]
    assert cut(borders, grown).sizes().tolist() == [len((p.title + p.text).encode()) for p in grown]


@given(BORDERS, st.lists(st.integers(-3, 20), max_size=8))
def test_ids_are_found_over_all_batches_and_unknown_ones_are_minus_one(borders: list[int], wanted: list[int]) -> None:
    corpus = cut(borders)
    expected = [number if number in NUMBERS else -1 for number in wanted]
    for _ in range(2):  # the second time from what was remembered
        found = corpus.positions(pa.array([f"p{number}" for number in wanted], pa.string()))
        assert found.tolist() == expected
        assert found.dtype == np.int32


@given(BORDERS, st.lists(st.integers(0, 10), max_size=12))
def test_taken_columns_keep_order_and_repetitions(borders: list[int], positions: list[int]) -> None:
    ids, pages, texts = cut(borders).take(np.array(positions, np.int64), ["id", "page", "text"])
    assert ids.to_pylist() == [f"p{number}" for number in positions]
    assert pages.to_pylist() == positions
    assert texts.to_pylist() == [f"text {number}" for number in positions]


@given(BORDERS, st.integers(0, 14), st.integers(0, 14))
def test_texts_go_over_the_borders_of_batches(borders: list[int], start: int, stop: int) -> None:
    expected = [f"T{number}\ntext {number}" for number in NUMBERS if start <= number < stop]
    assert list(cut(borders).texts(start, stop)) == expected


def test_any_unicode_comes_back_as_it_was(tmp_path: Path) -> None:
    signs = ["서울은 수도다.", "naïve café ﬁ", "👩‍👩‍👧 \U0001f600", "nul \x00 and line\r\nends", " ", "é ≠ é"]
    passages = [Passage(f"id {text}", f"{text}!", text) for text in signs]
    corpus = Corpus.open([write(tmp_path / "p.arrow", passages, size=2)])
    assert list(corpus) == passages
    assert corpus.positions(pa.array([f"id {text}" for text in reversed(signs)])).tolist() == [5, 4, 3, 2, 1, 0]
    assert list(corpus.texts(1, 4)) == [f"{text}!\n{text}" for text in signs[1:4]]


def test_a_corpus_may_be_empty(tmp_path: Path) -> None:
    for corpus in (Corpus.open([write(tmp_path / "none.arrow", [])]), cut([], [])):
        assert len(corpus) == 0
        assert list(corpus) == list(corpus.texts(0, 5)) == []
        assert corpus.positions(pa.array(["p0"])).tolist() == [-1]
        assert [column.to_pylist() for column in corpus.take(np.array([], np.int64), ["id", "page"])] == [[], []]
        with pytest.raises(IndexError, match="position 0 is outside a corpus of 0 passages"):
            corpus[0]


@pytest.mark.parametrize("position", [-1, 11, 1 << 40])
def test_a_position_outside_is_an_index_error(position: int) -> None:
    for read in (cut([4]).__getitem__, cut([4]).id, cut([4]).text):
        with pytest.raises(IndexError, match=f"position {position} is outside a corpus of 11 passages"):
            read(position)


def test_files_are_searched_one_after_the_other(tmp_path: Path) -> None:
    files = [write(tmp_path / "shared.arrow", PASSAGES[:4]), write(tmp_path / "train.arrow", PASSAGES[4:], size=3)]
    assert list(Corpus.open(files)) == PASSAGES


def test_the_key_is_the_content_and_not_where_it_is_or_what_is_empty(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    one, again = write(tmp_path / "one.arrow", PASSAGES), write(tmp_path / "else/other.arrow", PASSAGES)
    none = write(tmp_path / "none.arrow", [])
    key = Corpus.open([one]).key
    assert Corpus.open([again]).key == Corpus.open([none, one]).key == Corpus.open([one, none]).key == key
    others = [
        [write(tmp_path / "fewer.arrow", PASSAGES[:-1])],
        [write(tmp_path / "order.arrow", PASSAGES[::-1])],
        [write(tmp_path / "text.arrow", [*PASSAGES[:-1], Passage("p10", "T10", "text 1O", "d1", 10)])],
        [one, write(tmp_path / "more.arrow", [Passage("q", "", "more")])],
        [none],
    ]
    assert len({key, *(Corpus.open(files).key for files in others)}) == len(others) + 1


@pytest.mark.parametrize("harm", ["missing", "cut", "other"])
def test_a_file_that_cannot_be_mapped_is_one_sentence(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "p.arrow"
    if harm == "cut":
        path.write_bytes(write(path, PASSAGES).read_bytes()[:-40])
    elif harm == "other":
        path.write_text("id,title,text")
    with pytest.raises(
        RagFtError, match=r"cannot read .*p\.arrow: [^\n]+\. Build it again with `rag-ft build RECIPE`\."
    ):
        Corpus.open([path])
