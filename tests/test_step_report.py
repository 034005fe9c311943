"""The report at the end of a step: what a person reads, aligned, within a width, safe for a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from data_builders.manifest import Tally
from data_builders.quality import Relevant, advise_on_recall, count_quality, quality_report
from data_builders.retrievers import Found
from data_builders.step_report import WIDTH, report_lines


def counted(ranked: dict[str, Found], gold: set[int], bearing: set[int], tally: Tally) -> None:
    count_quality(ranked, [], Relevant(gold, gold, bearing), tally)


def report(tally: Tally) -> list[str]:
    return list(report_lines(tally))


def found(*positions: int) -> Found:
    import numpy as np

    return Found(np.array(positions, np.int32), np.ones(len(positions), np.float32))


def test_numbers_stand_first_aligned_and_those_that_are_zero_are_not_shown() -> None:
    tally = Tally(rows={"train.parquet": 1200, "train.arrow": 1200, "validation.parquet": 1, "test.parquet": 0})
    tally.count("questions", 7)
    tally.count("nothing", 0)
    assert report(tally) == ["1,200 rows of train.parquet", "    1 row of validation.parquet", "    7 questions"]


def test_what_was_left_out_is_named_with_the_ids_the_line_has_room_for() -> None:
    tally = Tally()
    for number in range(5):
        tally.drop("questions without words", 1, f"question-{number:030d}")
    tally.drop("a file that was broken", 2)
    assert report(tally) == [
        "left out",
        "  2 a file that was broken",
        f"  5 questions without words: question-{0:030d}",
    ]


def test_shares_by_cutoff_are_a_table_and_gaps_stay_empty() -> None:
    tally = Tally(counts={"retrieval of test": {"bm25": {"recall": {"1": 0.5, "all": 1.0}, "precision": {"1": 0.25}}}})
    assert report(tally) == [
        "retrieval of test: bm25      1    all",
        "  recall                 0.500  1.000",
        "  precision              0.250",
    ]


def test_distributions_are_a_table_of_quantiles() -> None:
    tally = Tally()
    for words in (10, 20, 1000):
        tally.measure("words", words)
    assert report(tally) == [
        "       min  5 %  median   95 %    max    mean",
        "words   10   10      20  1,000  1,000  343.33",
    ]


def test_a_histogram_is_cut_between_its_entries() -> None:
    tally = Tally(counts={"gold positions": dict.fromkeys(range(20), 1000)})
    lines = report(tally)
    assert lines[0].startswith("gold positions  0: 1,000  1: 1,000")
    assert all(line.endswith("1,000") for line in lines)
    assert len(lines) > 1


def test_text_from_a_file_cannot_move_the_cursor() -> None:
    tally = Tally()
    tally.drop("rows", 1, "\x1b[2Jid")
    tally.excerpt("kept", "red \x1b[31m and \u202e reversed")
    text = "\n".join(report(tally))
    assert "\\x1b[2Jid" in text
    assert "\\u202e reversed" in text


@given(
    st.dictionaries(st.text(min_size=1, max_size=30), st.integers(0, 10**7), max_size=5),
    st.lists(st.text(max_size=300), max_size=3),
    st.lists(st.text(max_size=60), max_size=6),
)
def test_every_line_is_printable_and_short(counts: dict[str, int], excerpts: list[str], ids: list[str]) -> None:
    tally = Tally()
    for name, amount in counts.items():
        tally.count(f"number {sum(map(ord, name))}", amount)
    for text in excerpts:
        tally.excerpt("an example", text)
    for one in ids:
        tally.drop("rows that do not fit", 1, one)
    for line in report(tally):
        assert all(sign.isprintable() or unicodedata.category(sign) == "Zs" for sign in line)
        assert len(line) <= WIDTH


def test_quality_is_told_as_deep_as_the_rankings_go() -> None:
    tally = Tally()
    counted({"bm25": found(4, 7, 9)}, {7}, {7, 9}, tally)
    counted({"bm25": found(3)}, {3, 5}, {3}, tally)
    assert quality_report(tally.counts["quality"])["bm25"] == {
        "recall (all gold in the top k)": {"1": 0.0, "2": 0.5, "all": 0.5},
        "any gold in the top k": {"1": 0.5, "2": 1.0, "all": 1.0},
        "precision (gold among the top k)": {"1": 0.5, "2": 0.5},
        "answer in the top k": {"1": 0.5, "2": 1.0, "all": 1.0},
        "share of negatives at rank k that bear the answer": {"1": 0.0, "2": 0.0},
    }


def test_advice_on_recall_names_the_best_retriever_of_each_split_and_the_remedy_once() -> None:
    quality, tally = Tally(), Tally()
    counted({"bm25": found(1, 2), "dense": found(2, 7)}, {7}, set(), quality)
    counted({"bm25": found(1, 2), "dense": found(2, 3)}, {7}, set(), quality)
    for split in ("train", "test"):
        advise_on_recall(quality_report(quality.counts["quality"]), split, tally)
    assert tally.advice[:2] == [
        "dense does not find all gold passages of 50 % of the train questions.",
        "dense does not find all gold passages of 50 % of the test questions.",
    ]
    assert tally.advice[2].startswith("Raise data.depth")
    assert len(tally.advice) == 3


def test_good_recall_needs_no_advice() -> None:
    quality, tally = Tally(), Tally()
    counted({"bm25": found(7)}, {7}, set(), quality)
    advise_on_recall(quality_report(quality.counts["quality"]), "test", tally)
    assert not tally.advice
