"""The sections of the page beyond accuracy by count, against numbers known from how the cases were made."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from page_reader import Page
from report_cases import (
    FURTHER,
    QUESTIONS,
    RIGHT,
    old_scores,
    pools,
    question_id,
    scored,
    scored_further,
)
from test_report import EVIL, FACTS

from rag_ft.evaluation.robustness import MEASURES
from rag_ft.report.axes import axis_grids
from rag_ft.report.charts import chart_alt, cost_charts, coverage_charts, forest_figure
from rag_ft.report.disagreements import browser, choose_disagreements
from rag_ft.report.drawing import INK, SERIES_COLOURS, look
from rag_ft.report.findings import is_clear
from rag_ft.report.page import report_html, write_report
from rag_ft.report.robustness import SUMMARY, p_text, place_name, robustness_note, robustness_table

SYSTEMS = ["base", "base + reordering", "tuned", "tuned, routed"]


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    return scored_further()[0]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    return scored_further()[1]


@pytest.fixture(scope="module")
def shown(scores: dict[str, Any], answers: list[dict[str, Any]]) -> dict[str, Any]:
    return browser(scores, answers, pools(), None, SYSTEMS)


@pytest.fixture(scope="module")
def html(scores: dict[str, Any], shown: dict[str, Any]) -> str:
    return report_html(scores, [], FACTS, shown)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def share(right: int) -> str:
    return f"{100 * right / QUESTIONS:.1f}"


def test_positions_stand_first_to_last_with_their_accuracy(page: Page) -> None:
    table = page.table("Where the gold passages stand")
    assert table[0] == ["System", "First", "50 %", "Last"]
    for row in table[1:]:
        right = [FURTHER["kept", f"position={place}"][row[0]] for place in ("0", "0.5", "1")]
        assert [cell.split()[0] for cell in row[1:]] == list(map(share, right))
    assert [row[0] for row in table[1:]] == SYSTEMS[:3]  # the routed system was asked at no position


def test_retriever_matrix_begins_with_the_ranking_of_the_run(page: Page) -> None:
    table = page.table("Whose ranking is shown")
    assert table[0] == ["System", "as ranked for the run", "bm25", "dense"]
    tuned = next(row for row in table if row[0] == "tuned")
    assert [cell.split()[0] for cell in tuned[1:]] == [share(36), share(34), share(28)]


def test_shuffles_of_one_context_are_averaged(scores: dict[str, Any]) -> None:
    (grid,) = axis_grids(scores, "order")
    assert grid.names() == ["By rank", "Shuffled"]
    shuffled = grid.rows["base"][1]
    assert shuffled is not None
    assert shuffled["mean"] == pytest.approx((10 + 12 + 6) / 3 / QUESTIONS)


def test_negatives_go_from_easy_to_hard_and_noise_by_its_share(scores: dict[str, Any]) -> None:
    (hardness,), (noise,) = axis_grids(scores, "negatives"), axis_grids(scores, "noise")
    assert hardness.names() == ["Of other questions", "Worst ranked", "Best ranked"]
    assert [one and one["mean"] for one in hardness.rows["base"]] == [30 / 40, 22 / 40, 12 / 40]
    assert noise.names() == ["20 %", "40 %", "80 %"]


def test_crossed_axes_are_in_no_curve_but_in_the_table_of_all_conditions(scores: dict[str, Any]) -> None:
    cell = next(cell for cell in scores["cells"] if cell["variant"] == "noise=0.8")
    crossed = {**cell, "variant": "noise=0.8 position=0.5", "system": "crossed"}
    more = {**scores, "cells": [*scores["cells"], crossed]}
    assert all("crossed" not in grid.rows for axis in ("noise", "position") for grid in axis_grids(more, axis))
    assert "Evidence always shown, noise 0.8, position 0.5" in report_html(more, [], FACTS)


def test_variants_do_not_leak_into_the_accuracy_table(page: Page) -> None:
    rows = [[cell.strip() for cell in row] for row in page.tables[0]["rows"]]
    assert rows[0][1:4] == ["1 passage", "2 passages", "5 passages"]
    base = next(row for row in rows if row[0] == "base")
    assert [cell.split()[0] for cell in base[1:4]] == list(map(share, RIGHT["base"]))


def test_summary_has_a_row_for_every_system_that_was_measured(page: Page, scores: dict[str, Any]) -> None:
    table = page.table("Robustness")
    column = table[0].index("Distraction rate")
    # 39 of 40 are right with gold alone; of those base is right on 8 at five passages.
    base = next(row for row in table if row[0] == "base")
    assert base[column].split()[0] == f"{100 * 31 / 39:.1f}"
    rows = [row[0] for row in table[1:]]
    assert rows == ["Evidence always shown", *SYSTEMS, "Passages as retrieved", *SYSTEMS[:3]]


def test_routing_shows_what_was_answered_from_few(page: Page) -> None:
    shares = page.table("Self-Route: shares")
    assert shares[-1][:3] == ["tuned, routed", "5", "75.0"]
    assert page.table("Self-Route: questions")[-1][2:] == ["27", "3", "6", "4"]


def test_paired_test_counts_won_tied_and_lost(page: Page) -> None:
    row = next(row for row in page.table("Question by question at") if row[0].startswith("tuned \u2212"))
    assert row[3:] == ["28", "12", "0", "< 0.001", "< 0.001"]
    assert [p_text(p) for p in (None, 0.5, 0.0004)] == ["\u2013", "0.500", "< 0.001"]


def test_citations_are_shown_for_the_system_that_cites_only(page: Page) -> None:
    table = page.table("Citations")
    assert {row[0] for row in table[1:] if len(row) > 1} == {"tuned"}
    assert [cell.split()[0] for cell in table[2][2:]] == ["90.0", "80.0", "70.0", "60.0"]


def test_contexts_without_evidence_count_as_abstention_and_not_as_accuracy(page: Page) -> None:
    rows = page.table("Abstention at the largest count")
    assert ["Evidence never shown"] in rows
    assert not [table for table in page.tables if table["caption"].startswith("Evidence never shown: accuracy")]
    misled = page.table("Passages that state another answer")
    assert misled[1] == ["base", "5", "75.0 60.0 to 90.0", misled[1][3]]


def test_coverage_curve_says_where_it_ends(scores: dict[str, Any]) -> None:
    chart = coverage_charts(scores)[0]
    base = next(line for line in chart.lines if line.name == "base")
    # 8 right and 6 declined of 40: 34 are answered, 8 of them rightly, and the surest are the right ones.
    assert base.xs[-1] == pytest.approx(100 * 34 / 40)
    assert base.ys[-1] == pytest.approx(8 / 34, abs=1e-3)
    assert base.ys[0] == 1.0
    assert "24 %" not in chart_alt(chart, False)
    assert "23.5 at 85 %" in chart_alt(chart, False)


def test_cost_is_drawn_with_its_numbers_in_the_text_alternative(scores: dict[str, Any]) -> None:
    tokens, seconds = cost_charts(scores)
    assert "base: 20.0 at 500." in chart_alt(tokens, False)
    assert "tuned, routed: 82.5 at 265." in chart_alt(tokens, False)
    assert seconds.label == "Seconds per answer"


def test_every_figure_has_a_text_alternative(page: Page) -> None:
    labels = [attributes["aria-label"] or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(labels) == [tag for tag, _ in page.tags].count("svg")
    assert all(re.search(r"\d", label) for label in labels)


def test_partial_scores_stamp_every_figure_title_and_table_of_results(tmp_path: Path) -> None:
    partial, rows = scored_further(partial=True)
    write_report(partial, [], tmp_path, facts=FACTS, browser=browser(partial, rows, {}, None, SYSTEMS))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.count(">PARTIAL</text>") == [tag for tag, _ in page.tags].count("svg")
    labels = [attributes["aria-label"] or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert all(label.startswith("PARTIAL. ") for label in labels)
    assert "<title>PARTIAL: " in text
    assert ">PARTIAL</text>" in (tmp_path / "accuracy.svg").read_text(encoding="utf-8")
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**PARTIAL**" in markdown
    results = [table for table in page.tables if table["caption"]]
    assert results
    assert all(table["caption"].startswith("PARTIAL: ") for table in results)
    assert markdown.count("**PARTIAL: ") == markdown.count("\n| --- ") > 5


def test_a_difference_is_clear_only_where_its_test_agrees(scores: dict[str, Any]) -> None:
    """Five questions of five won: the interval has no width, and McNemar's p is 1 / 16."""
    won = {"system": "tuned", "passages": 5, "accuracy": {"mean": 1.0, "low": 1.0, "high": 1.0}, "p": 1 / 16}
    surely = {**won, "system": "other", "p": 1 / 32}
    assert [is_clear(row, scores) for row in (won, surely)] == [False, True]
    assert not is_clear({"accuracy": {"mean": 0.1, "low": 0.0, "high": 0.2}, "p": 0.01}, scores)
    alt = forest_figure(scores, [won, surely], "Difference")["alt"]
    assert "tuned, 5: +100.0 (+100.0 to +100.0), not clear. other, 5: +100.0 (+100.0 to +100.0)." in alt.replace(
        "100.0 to 100.0", "+100.0 to +100.0"
    )


def test_every_number_of_the_summary_is_explained(scores: dict[str, Any]) -> None:
    assert set(SUMMARY) == set(MEASURES)
    table = robustness_table(scores)
    assert table
    note = robustness_note(table)
    assert all(f"{head}: " in note for head in table.columns[1:])
    assert "Net harm: accuracy without any passage less that at the largest count" in note


def test_scores_of_older_versions_still_make_a_page(tmp_path: Path) -> None:
    write_report(old_scores(), [], tmp_path, facts=FACTS)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not [table for table in page.tables if table["caption"].startswith(("Robustness", "Question by", "Self-R"))]
    assert 'id="browser"' not in text
    assert page.tables[0]["rows"][2][1].strip().startswith("75.0")


def test_markdown_has_the_further_sections(tmp_path: Path, scores: dict[str, Any]) -> None:
    write_report(scores, [], tmp_path, facts=FACTS)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for head in ("Robustness", "Question by question", "Where the gold passages stand", "Self-Route", "Citations"):
        assert f"**{head}" in text


def test_browser_shows_questions_on_which_systems_differ(shown: dict[str, Any]) -> None:
    assert shown["total"] == len(shown["questions"]) == 28  # of 40: 8 that all get right, 4 that none does
    for case in shown["questions"]:
        assert len({output["correct"] for output in case["outputs"]}) == 2
        assert case["question"].endswith("?")
        assert case["gold"] == [{"title": "Title 5", "text": "It lies in Orsk. The ferry leaves at noon."}]


def test_browser_is_bounded_and_rare_patterns_come_first(answers: list[dict[str, Any]]) -> None:
    here = [row for row in answers if (row["gold"], row["passages"], row["variant"]) == ("kept", 5, "")]
    chosen, total = choose_disagreements(here, SYSTEMS, count=6, seed=1)
    assert (len(chosen), total) == (6, 28)
    assert [row["system"] for row in chosen[0]] == SYSTEMS
    again, _ = choose_disagreements(here[::-1], SYSTEMS, count=6, seed=1)
    other, _ = choose_disagreements(here, SYSTEMS, count=6, seed=2)
    ids = [[rows[0]["question_id"] for rows in found] for found in (chosen, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_the_only_script_is_ours_and_is_named_by_its_hash(html: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in html
    assert "<script" not in report_html(scored(), [], FACTS)


def test_without_script_the_list_stands_and_the_filters_do_not(page: Page) -> None:
    cases = [attributes for tag, attributes in page.tags if attributes.get("class") == "case"]
    assert len(cases) == 28
    assert all(tag == "details" for tag, attributes in page.tags if attributes.get("class") == "case")
    assert not any("hidden" in attributes for attributes in cases)
    (bar,) = [attributes for _, attributes in page.tags if attributes.get("class") == "filters"]
    assert "hidden" in bar


def test_hostile_answers_stay_text_in_the_browser(scores: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    rows = [{**row, "answer": EVIL, "group": EVIL} for row in answers]
    texts = {(question_id(number), name): EVIL + "!" for number in range(QUESTIONS) for name in SYSTEMS}
    text = report_html(scores, [], FACTS, browser(scores, rows, pools(text=EVIL), lambda _: texts, SYSTEMS))
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_long_outputs_are_cut(scores: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    texts = {(question_id(number), "base"): "x" * 9000 for number in range(QUESTIONS)}
    found = browser(scores, answers, {}, lambda _: texts, SYSTEMS)
    assert max(len(output["output"]) for case in found["questions"] for output in case["outputs"]) < 1600


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_the_darkest_shade_of_a_heat_map_is_readable() -> None:
    # WCAG 2.1 asks for 4.5; a cell is at most 45 % of the first colour over the paper.
    paper, first = (253, 253, 252), [int(SERIES_COLOURS[0][place : place + 2], 16) for place in (1, 3, 5)]
    mixed = "#" + "".join(f"{round(0.45 * a + 0.55 * b):02x}" for a, b in zip(first, paper, strict=True))
    assert (luminance(mixed) + 0.05) / (luminance(INK) + 0.05) > 7


def test_no_two_of_twelve_series_look_the_same_without_colour_alone() -> None:
    marks = [(look(number)["marker"], str(look(number)["linestyle"])) for number in range(12)]
    assert len(set(marks)) == 12


def test_places_are_named_in_words() -> None:
    assert place_name("kept", "") == "Evidence always shown"
    assert place_name("kept", "order=shuffled draw=1") == "Evidence always shown, order shuffled, draw 1"


@pytest.mark.parametrize(
    ("drawn", "intervals", "test"),
    [
        ({}, "95 % bootstrap intervals over questions (200 resamples)", "exact test on won and lost"),
        (
            {"resample": "document", "interval": "bca"},
            "95 % BCa bootstrap intervals over documents, each with all questions about it (200 resamples)",
            "flips all questions about a document at once",
        ),
    ],
)
def test_the_report_says_what_was_drawn_and_tested(
    scores: dict[str, Any], tmp_path: Path, drawn: dict[str, str], intervals: str, test: str
) -> None:
    write_report({**scores, **drawn}, [], tmp_path, facts=FACTS)
    texts = [
        (tmp_path / name).read_text(encoding="utf-8").replace("\u00a0", " ") for name in ("report.html", "report.md")
    ]
    assert all(intervals in text for text in texts)
    assert test in texts[0]
    assert ("McNemar" in texts[0]) == (not drawn)
    assert ("about one document, only larger ones" in texts[0]) == bool(drawn)
