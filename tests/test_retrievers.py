"""BM25 against values worked out by hand, against a plain implementation and against bm25s' own index."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from math import log
from pathlib import Path

import bm25s
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.records import PASSAGE_SCHEMA, Passage
from data_builders.retrievers import Query, bm25, retriever_names
from data_builders.retrievers.bm25 import Bm25
from data_builders.retrievers.settings import Bm25Settings

FRUIT = ["apple pear", "apple apple plum fig", "fig fig"]
FILES = ["common_scores.npy", "common_terms.npy", "passages.npy", "scores.npy", "starts.npy", "terms.arrow"]


def corpus_of(texts: Sequence[str | Passage]) -> Corpus:
    passages = [one if isinstance(one, Passage) else Passage(f"p{n}", "", one) for n, one in enumerate(texts)]
    return Corpus(pa.Table.from_pylist([vars(passage) for passage in passages], schema=PASSAGE_SCHEMA))


def indexed(texts: Sequence[str | Passage], chosen: Bm25Settings, folder: Path) -> Bm25:
    corpus, retriever = corpus_of(texts), Bm25(chosen)
    retriever.build(corpus, folder, report=lambda line: None)
    retriever.open(corpus, folder)
    return retriever


def ranking(retriever: Bm25, query: str, depth: int) -> list[tuple[int, float]]:
    (found,) = retriever.search([Query("q", query)], depth)
    assert (found.positions.dtype, found.scores.dtype) == (np.int32, np.float32)
    return list(zip(found.positions.tolist(), found.scores.tolist(), strict=True))


def search(texts: Sequence[str | Passage], query: str, depth: int = 10, **chosen: object) -> list[tuple[int, float]]:
    with tempfile.TemporaryDirectory() as folder:
        return ranking(indexed(texts, Bm25Settings.model_validate(chosen), Path(folder)), query, depth)


def positions(texts: Sequence[str | Passage], query: str, depth: int = 10, **chosen: object) -> list[int]:
    return [position for position, _ in search(texts, query, depth, **chosen)]


def lucene(documents: list[list[str]], query: list[str], k1: float, b: float) -> dict[int, float]:
    """Score every document that has a word of the query, as the formula stands in the paper."""
    mean = sum(map(len, documents)) / len(documents)
    found: dict[int, float] = {}
    for word in query:
        frequency = sum(word in document for document in documents)
        for position, document in enumerate(documents):
            if times := Counter(document)[word]:
                rarity = log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
                score = rarity * times / (times + k1 * (1 - b + b * len(document) / mean))
                found[position] = found.get(position, 0.0) + score
    return found


def test_scores_follow_lucenes_formula() -> None:
    # lengths 2, 4, 2, mean 8/3; "apple" is in 2 of 3 passages; k1 = 1, b = 0.5
    idf = log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    first = idf * 1 / (1 + 1 * (0.5 + 0.5 * 2 / (8 / 3)))
    second = idf * 2 / (2 + 1 * (0.5 + 0.5 * 4 / (8 / 3)))
    found = search(FRUIT, "apple", k1=1.0, b=0.5)
    assert [position for position, _ in found] == [1, 0]
    assert [score for _, score in found] == pytest.approx([second, first], rel=1e-6)


def test_a_word_asked_twice_counts_twice() -> None:
    once, twice = search(FRUIT, "plum apple"), search(FRUIT, "plum apple apple")
    assert dict(twice)[0] == pytest.approx(2 * dict(once)[0], rel=1e-6)


words = st.lists(st.sampled_from("abcdefghijklmnop"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(words, min_size=1, max_size=40),
    query=words,
    depth=st.integers(1, 45),
    k1=st.sampled_from([0.0, 0.9, 2.0]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_rankings_are_those_of_a_plain_implementation(
    documents: list[list[str]], query: list[str], depth: int, k1: float, b: float
) -> None:
    texts = [" ".join(document) for document in documents]
    found = search(texts, " ".join(query), depth, language="none", k1=k1, b=b)
    right = lucene(documents, query, k1, b) if any(documents) else {}
    assert [score for _, score in found] == pytest.approx(sorted(right.values(), reverse=True)[:depth], rel=1e-5)
    assert [score for _, score in found] == pytest.approx([right[position] for position, _ in found], rel=1e-5)
    assert found == sorted(found, key=lambda one: (-one[1], one[0]))


@pytest.fixture(scope="module")
def world() -> list[list[int]]:
    """Return 3,000 documents of 0 to 40 words, numbers drawn by Zipf's law."""
    rng = np.random.default_rng(3)
    return [(rng.zipf(1.4, size) % 900).tolist() for size in rng.integers(0, 41, 3000)]


def as_text(document: Sequence[int]) -> str:
    return " ".join(f"w{number}" for number in document)


@pytest.fixture(scope="module")
def ours(world: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Bm25:
    folder = tmp_path_factory.mktemp("index")
    return indexed([as_text(document) for document in world], Bm25Settings(language="none"), folder)


@pytest.fixture(scope="module")
def library(world: list[list[int]]) -> bm25s.BM25:
    made = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    made.index([as_text(document).split() for document in world], show_progress=False)
    return made


def test_scores_and_cuts_are_those_of_bm25s(world: list[list[int]], ours: Bm25, library: bm25s.BM25) -> None:
    for query in (document[:9] for document in world[:200] if document):
        scores = library.get_scores(as_text(query).split())
        order = np.argsort(-scores, kind="stable")
        for depth in (1, 10, 3000):
            found = ranking(ours, as_text(query), depth)
            count = min(depth, int((scores > 0).sum()))
            # Terms may be added in another order, so the last bits differ and near-ties may change places.
            np.testing.assert_allclose([score for _, score in found], scores[order][:count], rtol=1e-6)
            np.testing.assert_allclose(scores[[p for p, _ in found]], scores[order][:count], rtol=1e-6)


def test_the_score_of_one_term_is_that_of_bm25s_to_the_bit(ours: Bm25, library: bm25s.BM25) -> None:
    for number in (1, 2, 3, 50, 400):  # in most passages, and in few
        scores = library.get_scores([f"w{number}"])
        expected = sorted(((-score, p) for p, score in enumerate(scores.tolist()) if score > 0))
        assert ranking(ours, f"w{number}", 3000) == [(p, -score) for score, p in expected]


def test_a_shorter_ranking_is_the_beginning_of_a_longer_one(world: list[list[int]], ours: Bm25) -> None:
    for query in map(as_text, world[:50]):
        longest = ranking(ours, query, 3000)
        assert [ranking(ours, query, depth) for depth in (1, 7, 50, 800)] == [longest[:d] for d in (1, 7, 50, 800)]


def test_an_answer_does_not_depend_on_its_neighbours(world: list[list[int]], ours: Bm25) -> None:
    queries = [Query(str(number), as_text(document)) for number, document in enumerate(world[:100])]
    together = ours.search(queries, 20)
    for query, found in zip(reversed(queries), reversed(together), strict=True):
        (alone,) = ours.search([query], 20)
        assert alone.positions.tolist() == found.positions.tolist()
        assert alone.scores.tobytes() == found.scores.tobytes()


@pytest.mark.parametrize("others", [1, 1000])  # in most passages, and in few
def test_ties_keep_the_order_of_the_corpus_also_at_the_cut(others: int) -> None:
    same = [*["pear"] * others, *["apple"] * 40, "plum"]
    assert positions(same, "apple", 7) == list(range(others, others + 7))


def test_passages_without_a_common_term_are_not_found() -> None:
    assert positions(FRUIT, "plum") == [1]
    assert positions(FRUIT, "kiwi") == []
    assert positions(FRUIT, "kiwi plum") == [1]


def test_depth_may_exceed_the_corpus() -> None:
    assert positions(FRUIT, "fig pear", 1000) == [0, 2, 1]  # 0.98 x 0.55 against 0.47 x 0.71 and less
    assert positions(["apple"], "apple", 1000) == [0]


@pytest.mark.parametrize("query", ["", "   ", "?!", "the of"])
def test_a_query_without_words_finds_nothing(query: str) -> None:
    assert search(FRUIT, query) == []


@pytest.mark.parametrize("texts", [[], ["..."], ["the", ""]])
def test_an_empty_corpus_is_searched_in_vain(texts: list[str]) -> None:
    assert search(texts, "apple the") == []


def test_digits_and_titles_are_searched() -> None:
    routes = [Passage("6", "Route 6", "A road."), Passage("7", "Route 7", "A road.")]
    assert positions(routes, "7") == [1]


def test_english_words_are_stemmed_and_stop_words_dropped() -> None:
    assert positions(["the running", "pears"], "runs") == [0]
    assert positions(["the running", "pears"], "the") == []


def test_language_none_keeps_words_as_they_are() -> None:
    assert positions(["the running", "pears"], "runs", language="none") == []
    assert positions(["The running", "pears"], "the", language="none") == [0]


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("german", "Die Häuser am Fluss", "Haus"),
        ("french", "Les chevaux de l'homme", "homme cheval"),
        ("turkish", "IŞIK ve İSTANBUL", "istanbul"),
        ("turkish", "IŞIK ve İSTANBUL", "\u0131ş\u0131k"),
        ("arabic", "كِتَاب", "كتاب"),
        ("finnish", "talossa", "talo"),
        ("english", "cafe\u0301", "caf\u00e9"),
        ("english", "the \ufb01rst", "first"),  # a ligature, as PDF files have them
    ],
)
def test_forms_of_a_word_are_found(language: str, text: str, query: str) -> None:
    assert positions(["xxx", text], query, language=language) == [1]


def test_stop_words_are_those_of_the_language() -> None:
    assert positions(["die Katze", "Hund"], "die", language="german") == []
    assert positions(["die cat", "dog"], "die", language="english") == [0]


KOREAN = ["서울은 대한민국의 수도이다.", "부산에서 배를 탔다.", "2019년에 서울에서 iPhone을 샀다."]


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Bm25:
    pytest.importorskip("kiwipiepy", reason="Korean needs kiwipiepy")
    return indexed(KOREAN, Bm25Settings(language="korean"), tmp_path_factory.mktemp("korean"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("서울", {0, 2}),
        ("서울에서", {0, 2}),
        ("서울의", {0, 2}),
        ("2019년", {2}),
        ("IPHONE이", {2}),
        ("배는", {1}),
        ("사다", {2}),  # the stem of 샀다
        ("은 에서 의", set()),
    ],
)
def test_korean_is_matched_by_content_morphemes(korean: Bm25, query: str, expected: set[int]) -> None:
    assert {position for position, _ in ranking(korean, query, 10)} == expected


def test_korean_name_the_dictionary_does_not_know_is_found_whatever_its_particle() -> None:
    pytest.importorskip("kiwipiepy", reason="Korean needs kiwipiepy")
    texts = ["다론시의 인구는 3만 명이다.", "다른 시의 인구는 4만 명이다.", "강에는 다리가 둘 있다."]
    assert search(texts, "다론시는 어디에 있습니까?", language="korean")[0][0] == 0


def test_accents_do_not_keep_an_english_question_from_its_passage() -> None:
    texts = ["Scott Gómez played for New Jersey.", "Scott Gordon coached."]
    assert [position for position, _ in search(texts, "gomez", language="english")] == [0]
    assert [position for position, _ in search(["Röntgen rays"], "Rontgen", language="none")] == []


def test_korean_without_its_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)  # what Python takes for "not installed"
    with pytest.raises(RagFtError, match=r'pip install "rag-ft\[korean\]"'):
        search(KOREAN, "서울", language="korean")


def test_another_process_opens_the_index_and_finds_the_same(world: list[list[int]], tmp_path: Path) -> None:
    texts, query = [as_text(document) for document in world], as_text(world[7])
    here = ranking(indexed(texts, Bm25Settings(language="none"), tmp_path), query, 30)
    program = (
        "import json, pathlib, sys\n"
        "from data_builders.retrievers import Query, bm25, settings\n"
        "retriever = bm25.Bm25(settings.Bm25Settings(language='none'))\n"
        "retriever.open(range(3000), pathlib.Path(sys.argv[1]))\n"
        "(found,) = retriever.search([Query('q', sys.argv[2])], 30)\n"
        "print(json.dumps([found.positions.tolist(), found.scores.tolist()]))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path, query], capture_output=True, text=True, check=True)
    assert list(zip(*json.loads(done.stdout), strict=True)) == here


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_index_is_the_same_however_the_corpus_is_cut(
    world: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, folders = [as_text(document) for document in world[:500]], [tmp_path / "whole", tmp_path / "cut"]
    for folder, chunk in zip(folders, (8192, 37), strict=True):
        folder.mkdir()
        monkeypatch.setattr(bm25, "_CHUNK", chunk)
        indexed(texts, Bm25Settings(), folder)
    assert contents(folders[0]) == contents(folders[1])
    assert list(contents(folders[0])) == FILES


def test_an_interrupted_build_is_written_over(world: list[list[int]], tmp_path: Path) -> None:
    texts = [as_text(document) for document in world]

    def stop(start: int, end: int) -> None:
        raise KeyboardInterrupt

    half, whole = tmp_path / "half", tmp_path / "whole"
    for folder in (half, whole):
        folder.mkdir()
    indexed(texts, Bm25Settings(), half)  # another corpus, longer than the one that follows
    broken = corpus_of(texts[:50])
    broken.texts = stop  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        Bm25(Bm25Settings()).build(broken, half, report=lambda line: None)
    (half / "counts.partial").write_bytes(b"what a killed process leaves")
    for folder in (half, whole):
        indexed(texts[:50], Bm25Settings(), folder)
    assert contents(half) == contents(whole)


def test_index_depends_on_language_and_constants_not_on_the_name() -> None:
    settings_ = Bm25(Bm25Settings(name="mine", language="german", k1=1.2, b=0.75)).index_settings()
    assert settings_ == {"language": "german", "k1": 1.2, "b": 0.75}


def test_second_retriever_of_a_kind_gets_a_number() -> None:
    assert retriever_names([Bm25Settings(), Bm25Settings(k1=2.0), Bm25Settings(b=1.0)]) == ["bm25", "bm25-2", "bm25-3"]
