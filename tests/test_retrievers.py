"""BM25 against values worked out by hand."""

from math import log

import pytest
from tiny_world import corpus_of

from data_builders.pools import search_split
from data_builders.records import Passage, Question
from data_builders.retrievers import Bm25Settings, open_retriever, retriever_names

PASSAGES = [Passage("a", "", "apple pear"), Passage("b", "", "apple apple plum fig"), Passage("c", "", "fig fig")]


def search(settings: Bm25Settings, passages: list[Passage], query: str, depth: int) -> list[tuple[int, float]]:
    retriever = open_retriever(settings)
    retriever.index(passages)
    return retriever.search([query], depth)[0]


def test_scores_follow_lucenes_formula() -> None:
    # lengths 2, 4, 2, mean 8/3; "apple" is in 2 of 3 passages; k1 = 1, b = 0.5
    idf = log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    first = idf * 1 / (1 + 1 * (0.5 + 0.5 * 2 / (8 / 3)))
    second = idf * 2 / (2 + 1 * (0.5 + 0.5 * 4 / (8 / 3)))
    found = search(Bm25Settings(k1=1.0, b=0.5), PASSAGES, "apple", 10)
    assert [position for position, _ in found] == [1, 0]
    assert [score for _, score in found] == pytest.approx([second, first], rel=1e-5)


def test_passages_without_a_common_term_are_not_found() -> None:
    assert [position for position, _ in search(Bm25Settings(), PASSAGES, "plum", 10)] == [1]
    assert search(Bm25Settings(), PASSAGES, "kiwi", 10) == []


def test_ties_keep_the_order_of_the_corpus_also_at_the_cut() -> None:
    same = [Passage(str(number), "", "apple") for number in range(40)] + [Passage("x", "", "pear")]
    assert [position for position, _ in search(Bm25Settings(), same, "apple", 7)] == list(range(7))


def test_digits_and_titles_are_searched() -> None:
    routes = [Passage("6", "Route 6", "A road."), Passage("7", "Route 7", "A road.")]
    assert search(Bm25Settings(), routes, "7", 5)[0][0] == 1


def test_stemmer_and_stop_words_can_be_switched_off() -> None:
    passages = [Passage("a", "", "the running"), Passage("b", "", "pears")]
    assert search(Bm25Settings(), passages, "runs", 5)[0][0] == 0
    assert search(Bm25Settings(stemmer="none"), passages, "runs", 5) == []
    assert search(Bm25Settings(), passages, "the", 5) == []
    assert search(Bm25Settings(stopwords="none"), passages, "the", 5)[0][0] == 0


@pytest.mark.parametrize("passages", [[], [Passage("a", "", "...")]])
def test_an_empty_corpus_is_searched_in_vain(passages: list[Passage]) -> None:
    assert search(Bm25Settings(), passages, "apple", 5) == []


def test_second_retriever_of_a_kind_gets_a_number() -> None:
    assert retriever_names([Bm25Settings(), Bm25Settings(k1=2.0), Bm25Settings(b=1.0)]) == ["bm25", "bm25-2", "bm25-3"]


def test_missed_gold_is_appended_with_rank_0() -> None:
    corpus = corpus_of(["apple pie", "pear", "apple tart", "the colour red"])
    question = Question("q", "apple", ("red",), ("p3", "p2"))
    (pool,) = search_split(corpus, [question], [Bm25Settings()], 10)
    assert [(p.id, p.rank, p.is_gold, p.has_answer) for p in pool.passages] == [
        ("p0", 1, False, False),
        ("p2", 2, True, False),
        ("p3", 0, True, True),
    ]


def test_several_retrievers_are_interleaved_without_repeats() -> None:
    corpus = corpus_of(["apple apple apple apple x y z w v u", "apple", "pear"])
    plain, strict = Bm25Settings(b=0.0, k1=9.0), Bm25Settings(b=1.0, k1=0.1)
    (pool,) = search_split(corpus, [Question("q", "apple", ("-",), ())], [plain, strict], 10)
    assert [(p.id, p.retriever, p.rank) for p in pool.passages] == [("p0", "bm25", 1), ("p1", "bm25-2", 1)]
