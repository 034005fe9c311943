"""TREC runs and the sources' own rankings as retrievers: order, unknown ids, bad lines, saved files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.records import PASSAGE_SCHEMA, Ranking
from data_builders.retrievers import Query
from data_builders.retrievers.rankings import SourceRanking, TrecRun
from data_builders.retrievers.settings import SourceRankingSettings, TrecRunSettings
from data_builders.tables import write_records


def corpus(*ids: str) -> Corpus:
    rows = [{"id": name, "title": "", "text": name, "document": "", "page": 0, "split": ""} for name in ids]
    return Corpus(pa.Table.from_pylist(rows, schema=PASSAGE_SCHEMA), "key")


def searched(retriever: Any, over: Corpus, folder: Path, *questions: str, depth: int = 10) -> tuple[list[Any], str]:
    """Build, open in a second object, search; returns (ids, scores) per question and what was reported."""
    folder.mkdir(exist_ok=True)
    lines: list[str] = []
    retriever.build(over, folder, lines.append)
    retriever.open(over, folder)
    found = retriever.search([Query(name, "") for name in questions], depth)
    assert all(one.positions.dtype == np.int32 and one.scores.dtype == np.float32 for one in found)
    return [([over.id(p) for p in one.positions], one.scores.tolist()) for one in found], "\n".join(lines)


def run_of(path: Path, text: str) -> TrecRun:
    path.write_text(text, encoding="utf-8")
    return TrecRun(TrecRunSettings(kind="trec_run", path=str(path)))


def test_the_score_decides_and_not_the_rank_column(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a.run", "q1 Q0 a 1 0.5 t\nq1 Q0 b 2 0.75 t\n\nq2\tQ0\tc\t1\t-3e0\tt\nq1  Q0 c 3 0.625 t\n")
    found, _ = searched(run, corpus("a", "b", "c"), tmp_path / "index", "q2", "q1", "q3")
    assert found == [(["c"], [-3.0]), (["b", "c", "a"], [0.75, 0.625, 0.5]), ([], [])]


def test_equal_scores_keep_the_rank_and_then_the_order_of_the_corpus(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a.run", "q Q0 a 3 1 t\nq Q0 b 2 1 t\nq Q0 d 1 1 t\nq Q0 c 1 1 t\n")
    found, _ = searched(run, corpus("a", "b", "c", "d"), tmp_path / "index", "q")
    assert found[0][0] == ["c", "d", "b", "a"]


def test_depth_cuts_and_several_files_plain_or_zipped_are_one_run(tmp_path: Path) -> None:
    (tmp_path / "train.run").write_text("q1 Q0 a 1 2 t\nq1 Q0 b 2 1 t\n")
    (tmp_path / "test.run.gz").write_bytes(gzip.compress(b"q2 Q0 b 1 9 t\nq1 Q0 c 1 3 t\n"))
    settings = TrecRunSettings(kind="trec_run", path=(str(tmp_path / "train.run"), str(tmp_path / "test.run.gz")))
    found, report = searched(TrecRun(settings), corpus("a", "b", "c"), tmp_path / "index", "q1", "q2", depth=2)
    assert [ids for ids, _ in found] == [["c", "a"], ["b"]]
    assert report == "  trec_run: 2 questions, 4 passages ranked"


def test_unknown_and_repeated_passages_are_counted(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a.run", "q Q0 x 1 9 t\nq Q0 a 2 1 t\nq Q0 b 3 2 t\nq Q0 a 4 3 t\nr Q0 y 1 1 t\n")
    found, report = searched(run, corpus("a", "b"), tmp_path / "index", "q", "r")
    assert found == [(["a", "b"], [3.0, 2.0]), ([], [])]
    assert "2 not in the passages this split searches are left out (such as x, y)" in report
    assert "1 named twice" in report
    run = run_of(tmp_path / "b.run", "q Q0 x 1 9 t\n")
    assert "must name passages by the ids of data.sources" in searched(run, corpus("a"), tmp_path / "index", "q")[1]


def test_ids_with_spaces_stand_in_a_run_cut_by_tabs(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a.run", "q 1\tQ0\tNew York#0\t1\t9\tt\nq 1\tQ0\tb\t2\t8\tt\n")
    found, _ = searched(run, corpus("b", "New York#0"), tmp_path / "index", "q 1")
    assert found == [(["New York#0", "b"], [9.0, 8.0])]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q Q0 a 1 0.5", "it has 5 columns instead of 6"),
        ("q Q0 New York 1 0.5 t", "it has 7 columns instead of 6; cut them by tabs if an id holds spaces"),
        ("q Q0 a 0.5 1 t", 'the rank is "0.5", not a whole number'),
        ("q Q0 a 99999999999 1 t", 'the rank "99999999999" is too large'),
        ("q Q0 a 1 high t", 'the score is "high", not a number'),
        ("q Q0 a 1 nan t", 'the score is "nan", not a finite number'),
    ],
)
def test_a_bad_line_is_named_with_an_example_of_a_right_one(tmp_path: Path, line: str, problem: str) -> None:
    run = run_of(tmp_path / "bad.run", f"q Q0 a 1 1 t\n\n{line}\n")
    with pytest.raises(RagFtError) as refusal:
        run.build(corpus("a"), tmp_path, print)
    assert str(refusal.value).startswith(f"{tmp_path / 'bad.run'}, line 3: {problem}. ")
    assert "question-17 Q0 passage-42 1 23.75 my-engine" in str(refusal.value)


def test_a_missing_run_is_named_with_its_key(tmp_path: Path) -> None:
    run = TrecRun(TrecRunSettings(kind="trec_run", path=str(tmp_path / "no.run")))
    with pytest.raises(RagFtError, match=r"data\.retrievers\.path .*there is no file .*no\.run"):
        run.index_settings()


def test_another_run_is_another_index_and_an_empty_one_finds_nothing(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "1.run", "q Q0 a 1 1 t\n"), run_of(tmp_path / "2.run", "")
    assert one.index_settings() != two.index_settings()
    assert searched(two, corpus("a"), tmp_path / "index", "q")[0] == [([], [])]
    assert searched(one, corpus(), tmp_path / "index", "q")[0] == [([], [])]


_ID = st.text(st.characters(exclude_categories=["Zs", "Zl", "Zp", "Cc", "Cs"]), min_size=1, max_size=6)


@given(
    st.dictionaries(_ID, st.dictionaries(st.sampled_from("abcdef"), st.floats(-1e9, 1e9, width=32), min_size=1)),
    st.randoms(use_true_random=False),
)
def test_any_run_comes_back_sorted_whatever_the_order_of_its_lines(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, dict[str, float]], chance: Any
) -> None:
    folder = tmp_path_factory.mktemp("run")
    lines = [f"{q} Q0 {p} 0 {score!r} t\n" for q, ranked in run.items() for p, score in ranked.items()]
    chance.shuffle(lines)
    found, _ = searched(run_of(folder / "a.run", "".join(lines)), corpus(*"abcdef"), folder / "index", *run)
    expected = [sorted(ranked, key=lambda p, r=ranked: (-r[p], p)) for ranked in run.values()]  # type: ignore[misc]
    assert [ids for ids, _ in found] == expected


def rankings_of(folder: Path, *rankings: Ranking) -> Path:
    write_records(folder / "rankings.parquet", Ranking, rankings)
    return folder / "rankings.parquet"


def source(path: Path, name: str = "") -> SourceRanking:
    return SourceRanking(SourceRankingSettings(kind="source", name=name), path)


def test_a_sources_own_ranking_keeps_its_order_even_where_scores_disagree(tmp_path: Path) -> None:
    path = rankings_of(tmp_path, Ranking("q1", "dpr", ("b", "x", "a"), (1.0, 5.0, 2.0)), Ranking("q2", "dpr", (), ()))
    found, report = searched(source(path), corpus("a", "b"), tmp_path / "index", "q1", "q2", "q3")
    assert found == [(["b", "a"], [1.0, 2.0]), ([], []), ([], [])]
    assert report.startswith("  dpr: 1 questions, 3 passages ranked\n    1 not in")


def test_several_rankings_of_a_question_are_fused_or_chosen_by_name(tmp_path: Path) -> None:
    path = rankings_of(
        tmp_path,
        Ranking("q1", "dpr", ("a", "b"), (9.0, 8.0)),
        Ranking("q2", "dpr", ("c", "a"), (7.0, 6.0)),
        Ranking("q1", "bm25", ("c", "b"), (3.0, 2.0)),
    )
    over = corpus("a", "b", "c")
    fused, _ = searched(source(path), over, tmp_path / "fused", "q1", "q2")
    assert fused[0][0] == ["b", "a", "c"]  # 2/62 before 1/61 and 1/61
    assert fused[0][1] == pytest.approx([2 / 62, 1 / 61, 1 / 61])
    assert fused[1] == (["c", "a"], [7.0, 6.0])
    chosen, _ = searched(source(path, "bm25"), over, tmp_path / "chosen", "q1", "q2")
    assert chosen == [(["c", "b"], [3.0, 2.0]), ([], [])]
    assert source(path).index_settings() != source(path, "bm25").index_settings()


def test_a_name_that_no_ranking_has_is_refused_unless_there_is_only_one(tmp_path: Path) -> None:
    one = Ranking("q", "dpr", ("a",), (1.0,))
    renamed, _ = searched(source(rankings_of(tmp_path, one), "mine"), corpus("a"), tmp_path / "index", "q")
    assert renamed == [(["a"], [1.0])]
    path = rankings_of(tmp_path, one, Ranking("q", "bm25", ("a",), (1.0,)))
    with pytest.raises(RagFtError, match=r"rankings by bm25, dpr\. Set name to one of these, or leave it out to fuse"):
        source(path, "mine").build(corpus("a"), tmp_path, print)


def test_sources_without_rankings_are_told_what_to_use_instead(tmp_path: Path) -> None:
    with pytest.raises(RagFtError, match="Use kind: bm25, dense or trec_run instead"):
        source(rankings_of(tmp_path)).build(corpus("a"), tmp_path, print)


def test_many_questions_span_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.retrievers.rankings._LINES", 7)
    monkeypatch.setattr("data_builders.retrievers.rankings._LISTS", 3)
    names = [f"q{number}" for number in range(20)]
    lines = [f"{name} Q0 {place} t\n" for place in ("a 2 1.0", "b 1 2.0") for name in names]
    run = run_of(tmp_path / "a.run", "".join(lines))
    found, _ = searched(run, corpus("a", "b"), tmp_path / "one", *names)
    path = rankings_of(tmp_path, *(Ranking(name, "r", ("b", "a"), (2.0, 1.0)) for name in names))
    assert found == searched(source(path), corpus("a", "b"), tmp_path / "two", *names)[0]
    assert found == [(["b", "a"], [2.0, 1.0])] * 20
