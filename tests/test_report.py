from __future__ import annotations

import copy
import itertools
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Page
from report_cases import COUNTS, QUESTIONS, pools, predictions, question_id, scored
from scored_cases import cases_of, sampling, sweep

from data_builders.errors import RagFtError
from data_builders.files import write_json
from rag_ft.evaluation.metrics.abstention import abstention
from rag_ft.evaluation.scores import score_cases
from rag_ft.report.examples import choose_examples, is_correct
from rag_ft.report.figures import alt_text, save_figure
from rag_ft.report.findings import groups_of, headline, read_scores
from rag_ft.report.markdown import code_block, escape
from rag_ft.report.page import report_html, split_quotes, write_report
from rag_ft.report.tables import abstention_table, estimate

FACTS = {"recipe": "example", "data": {"contexts": 1200}, "trained": True, "command": "rag-ft run example.yaml"}
EVIL = '<script>alert(1)</script><img src=x onerror=alert(2)> "quoted" | `tick` [a](http://evil.example) {{ 7*7 }}'


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    return scored()


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    evidence = {question_id(n): [("p5", "It lies in Orsk.")] for n in range(QUESTIONS)}
    return choose_examples(predictions(), pools(), evidence, count=10, seed=3)


@pytest.fixture(scope="module")
def page(scores: dict[str, Any], examples: list[dict[str, Any]]) -> Page:
    return Page(report_html(scores, examples, FACTS))


def cell_of(scores: dict[str, Any], **keys: Any) -> dict[str, Any]:
    (found,) = [cell for cell in scores["cells"] if all(cell[key] == value for key, value in keys.items())]
    return found


def as_written(estimate: dict[str, float]) -> str:
    mean, low, high = (f"{100 * estimate[key]:.1f}" for key in ("mean", "low", "high"))
    return f"{mean} {low} to {high}"


def test_page_loads_nothing_from_outside_and_runs_no_script(page: Page, scores: dict[str, Any]) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                assert (value or "").startswith("#")
    text = report_html(scores, [], FACTS)
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_page_has_language_one_main_heading_and_no_duplicate_ids(page: Page) -> None:
    tags = page.tags
    assert dict(tags)["html"]["lang"] == "en"
    assert [tag for tag, _ in tags].count("h1") == 1
    ids = Counter(attributes["id"] for _, attributes in tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    targets = {(value or "")[1:] for _, attributes in tags for name, value in attributes.items() if name == "href"}
    assert targets <= ids.keys()
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


def test_page_headings_never_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_figure_has_a_text_alternative_with_its_numbers(page: Page, scores: dict[str, Any]) -> None:
    labels = [attributes.get("aria-label") or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(labels) == [tag for tag, _ in page.tags].count("svg") == 8  # 2 gold modes x 3 groups, 2 of cost
    assert "tuned: 95.0 at 1, 92.5 at 2, 90.0 at 5." in labels[0]
    assert "base: 75.0 at 1, 50.0 at 2, 20.0 at 5." in labels[0]
    assert "Evidence retrieved: 62.5 at 1, 75.0 at 2, 92.5 at 5." in alt_text(scores, "retrieved")
    assert "Evidence retrieved" not in alt_text(scores, "kept")


@pytest.mark.parametrize(
    ("gold", "caption"), [("kept", "Evidence always shown"), ("retrieved", "Passages as retrieved")]
)
def test_accuracy_table_shows_the_numbers_of_the_scores(
    page: Page, scores: dict[str, Any], gold: str, caption: str
) -> None:
    tables = [table for table in page.tables if table["caption"].startswith(caption)]
    rows = [[cell.strip() for cell in row] for table in tables for row in table["rows"]]
    group, checked = "", 0
    for row in rows:
        if row[0].startswith(("All questions", "One hop", "Two hop")):
            group = {"All": "all", "One": "one_hop", "Two": "two_hop"}[row[0].split()[0]]
        elif row[0] in ("base", "base + reordering", "tuned"):
            at = {"system": row[0], "gold": gold, "group": group}
            for count, text in zip(COUNTS, row[1:], strict=False):
                assert text == as_written(cell_of(scores, passages=count, **at)["accuracy"])
                checked += 1
            (ratio,) = [r["ratio"] for r in scores["retention"] if all(r[key] == value for key, value in at.items())]
            assert row[-1] == f"{ratio:.2f}"
            (drop,) = [r for r in scores["drops"] if all(r[key] == value for key, value in at.items())]
            assert row[-2].split()[0] == f"{100 * drop['accuracy']['mean']:.1f}"
            assert row[-2].endswith(f"best at {drop['best_passages']}")
    assert checked == 3 * 3 * 3  # systems, counts, groups


def test_difference_rows_carry_signs(page: Page) -> None:
    rows = {row[0]: row for row in page.tables[0]["rows"]}
    assert [cell.split()[0] for cell in rows["tuned \u2212 base"][1:4]] == ["+20.0", "+42.5", "+70.0"]
    assert [cell.split()[0] for cell in rows["base + reordering \u2212 base"][1:4]] == ["0.0", "+5.0", "+5.0"]


def test_f1_of_abstaining_is_shown_where_both_kinds_of_questions_are(scores: dict[str, Any]) -> None:
    mixed = copy.deepcopy(scores)
    cell = cell_of(mixed, system="base", gold="kept", passages=5, group="all")
    outcomes = [(True, False)] * 6 + [(True, True)] * 2 + [(False, True)] * 3 + [(False, False)]
    cell["abstention"] = asdict(abstention(outcomes))
    rows = [row for section in abstention_table(mixed, largest_only=True).sections for row in section.rows]
    shown = [[one.text for one in row.cells][-2:] for row in rows]
    assert shown[0] == ["66.7", "80.0"]  # 2 * 3 / (2 * 3 + 2 + 1) and 2 * 6 / (2 * 6 + 2 + 1)
    assert all(pair == ["\u2013", "\u2013"] for pair in shown[1:])


def test_other_tables_show_the_numbers_of_the_scores(page: Page, scores: dict[str, Any]) -> None:
    recall = page.table("Recall at k")
    assert recall[1] == ["All questions (40)", "62.5", "75.0", "92.5"]
    declined = page.table("Abstention at the largest count")
    cell = cell_of(scores, system="base", gold="kept", passages=5, group="all")
    counted = cell["abstention"]
    assert counted["over_refusal"] == cell["over_refused"]["mean"] > cell["over_refused"]["low"]
    assert declined[2][2:4] == [str(counted["answered_answerable"]), str(counted["abstained_answerable"])]
    assert declined[2][-4:] == ["\u2013", as_written(cell["over_refused"]), "\u2013", "\u2013"]
    match = page.table("Other metrics")
    cell = cell_of(scores, system="base", gold="kept", passages=1, group="all")
    heads = {"exact_match": "Exact match", "f1": "F1", "cover_raw": "Raw cover", "cover_output": "Cover, whole output"}
    assert [match[2][match[0].index(head)] for head in heads.values()] == [as_written(cell[key]) for key in heads]
    cost = page.table("Cost")
    assert cost[2] == ["base", "1", "140", "3.0", "0.25", "0"]


def test_headline_states_numbers_and_interval(scores: dict[str, Any]) -> None:
    lead = headline(scores).lead.replace("\u00a0", " ")
    assert lead.startswith(
        "At 5 passages, the evidence always among them, the tuned model answers 90 % of 40 questions, "
        "the base model 20 %: +70 points (95 % interval "
    )
    assert "not distinguishable" not in lead


def test_headline_is_neutral_when_the_interval_includes_zero() -> None:
    lead = headline(scored({"base": (30, 20, 20), "tuned": (30, 20, 20)})).lead
    assert "0 points, not distinguishable from no difference" in lead
    # One question of 40: the interval of the paired difference touches zero.
    assert "not distinguishable" in headline(scored({"base": (30, 20, 20), "tuned": (30, 20, 21)})).lead


def test_headline_is_neutral_where_few_questions_leave_an_interval_without_width() -> None:
    """Five of five won: every resample says +100 points, the exact test p = 0.06."""
    few, more = (
        score_cases(
            cases_of([*sweep("base", {5: "0" * count}), *sweep("tuned", {5: "1" * count})]),
            sampling(),
            run_name="few",
            partial=False,
        )[0]
        for count in (5, 6)
    )
    assert "+100 points, not distinguishable from no difference" in headline(few).lead
    assert "not distinguishable" not in headline(more).lead


def test_a_metric_of_some_answers_says_of_how_many(scores: dict[str, Any]) -> None:
    cell = {**cell_of(scores, system="tuned", passages=5, gold="kept", group="all")}
    assert "n =" not in estimate(scores, cell, "accuracy").note
    cell["false_answer"] = {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 1}
    assert estimate(scores, cell, "false_answer").note.endswith("n = 1")


def test_declining_where_there_is_no_answer_is_right_in_examples_too() -> None:
    row = predictions()[0]
    declined = replace(row, answers=(), abstained=True, answer=None, failure=None)
    assert is_correct(declined)
    assert not is_correct(replace(declined, abstained=False, answer="Rome"))
    assert not is_correct(replace(declined, failure="broke"))


def test_headline_states_a_loss_in_the_same_words() -> None:
    lead = headline(scored({"base": (30, 30, 30), "tuned": (30, 20, 10)})).lead.replace("\u00a0", " ")
    assert (
        "the tuned model answers 25 % of 40 questions, the base model 75 %: \u221250 points (95 % interval \u2212"
        in lead
    )


def test_headline_of_a_single_system_compares_nothing() -> None:
    lead = headline(scored({"base": (30, 20, 10)})).lead.replace("\u00a0", " ")
    assert lead.startswith(
        "At 5 passages, the evidence always among them, the base model answers 25 % of 40 questions (95 %"
    )


def test_headline_rounds_so_that_the_difference_adds_up() -> None:
    # 37 and 15 of 40 are 92.5 % and 37.5 %: as whole numbers they would read 92, 38 and +55.
    pair = headline(scored({"base": (30, 30, 15), "tuned": (30, 30, 37)})).lead.replace("\u00a0", " ")
    shares = [float(number) for number in re.findall(r"([\d.]+) %", pair)[:2]]
    (difference,) = re.findall(r"\+([\d.]+) points", pair)
    assert shares[0] - shares[1] == pytest.approx(float(difference))


def test_partial_evaluation_is_stamped_on_page_and_markdown(tmp_path: Path) -> None:
    for partial in (True, False):
        write_report(scored(partial=partial), [], tmp_path, facts=FACTS)
        assert ("PARTIAL" in (tmp_path / "report.html").read_text(encoding="utf-8")) is partial
        assert ("PARTIAL" in (tmp_path / "report.md").read_text(encoding="utf-8")) is partial


def test_untrusted_text_is_shown_not_run(tmp_path: Path) -> None:
    rows = [replace(row, output=EVIL, answer=EVIL, system=f"{row.system}{EVIL}") for row in predictions()]
    evil_pools = {
        name: replace(pool, question=EVIL, passages=tuple(replace(p, title=EVIL, text=EVIL) for p in pool.passages))
        for name, pool in pools().items()
    }
    evidence = {name: [("p5", "<script>alert(1)</script>")] for name in evil_pools}
    shown = choose_examples(rows, evil_pools, evidence)
    scores = scored()
    for part in ("cells", "differences", "drops", "retention"):
        for row in scores[part]:
            row["system"] += EVIL
            if "baseline" in row:
                row["baseline"] += EVIL
    write_report(scores, shown, tmp_path, facts={EVIL: EVIL, "command": EVIL})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert "{{ 7*7 }}" in "".join(page.texts)
    marked = re.findall(r"<mark>(.*?)</mark>", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert set(marked) == {"&lt;script&gt;alert(1)&lt;/script&gt;"}
    text = re.sub(r"^````*.*?^````*", "", (tmp_path / "report.md").read_text(encoding="utf-8"), flags=re.S | re.M)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)


def test_evidence_quote_is_marked_inside_its_gold_passage(page: Page, scores: dict[str, Any], examples: Any) -> None:
    html = report_html(scores, examples, FACTS)
    assert html.count("<mark>It lies in Orsk.</mark> The ferry leaves at noon.") == len(examples) == 10
    assert html.count('<span class="flag">gold</span>') == 10


@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", max_size=6), max_size=4))
def test_split_quotes_keeps_the_text_and_marks_every_quote(text: str, quotes: list[str]) -> None:
    parts = split_quotes(text, quotes)
    assert "".join(part for part, _ in parts) == text
    assert all(before != after for (_, before), (_, after) in itertools.pairwise(parts))
    for quote in quotes:
        if quote and quote in text:
            assert any(quote in part for part, marked in parts if marked)


def test_report_without_examples_recall_or_references_still_stands(tmp_path: Path) -> None:
    scores = scored(golds=("retrieved",))
    scores["recall"] = []
    scores["cells"] = [cell for cell in scores["cells"] if cell["gold"] == "retrieved"]
    write_report(scores, [], tmp_path, facts={})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not [table for table in page.tables if table["caption"].startswith(("Recall", "Reference"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.svg", "report.html", "report.md"]


def test_markdown_table_has_the_numbers_of_the_scores(tmp_path: Path, scores: dict[str, Any]) -> None:
    write_report(scores, [], tmp_path, facts=FACTS)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    cells = [cell_of(scores, system="tuned", gold="kept", group="all", passages=count)["accuracy"] for count in COUNTS]
    written = [f"{100 * c['mean']:.1f} ({100 * c['low']:.1f} to {100 * c['high']:.1f})" for c in cells]
    assert f"| tuned | {' | '.join(written)} |" in text
    assert "](accuracy.svg)" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M)
    for table in tables:  # every row of a table has as many cells as its head
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_same_scores_give_the_same_bytes(tmp_path: Path, scores: dict[str, Any], examples: Any) -> None:
    for folder in ("a", "b"):
        write_report(scores, examples, tmp_path / folder, facts=FACTS)
        save_figure(scores, tmp_path / folder / "accuracy.png")
    for name in ("accuracy.svg", "accuracy.png", "report.html", "report.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_single_group_is_not_shown_twice(scores: dict[str, Any]) -> None:
    assert groups_of(scores) == ["all", "one_hop", "two_hop"]
    one = {**scores, "cells": [cell for cell in scores["cells"] if cell["group"] != "two_hop"]}
    assert groups_of(one) == ["all"]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"run": "x"}', "{"])
def test_unreadable_scores_name_the_command_that_writes_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RagFtError, match="rag-ft evaluate RECIPE"):
        read_scores(path)


def test_scores_read_back_from_disk_give_the_same_page(tmp_path: Path, scores: dict[str, Any]) -> None:
    write_json(tmp_path / "scores.json", scores)
    assert report_html(read_scores(tmp_path / "scores.json"), [], FACTS) == report_html(scores, [], FACTS)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a | b", r"a \| b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[x](y)", r"\[x\](y)"),
        ("two\nlines", "two lines"),
        (r"back\slash", r"back\\slash"),
        ("2 * 3 * 4", r"2 \* 3 \* 4"),
    ],
)
def test_markdown_escape(text: str, written: str) -> None:
    assert escape(text) == written


def test_code_block_cannot_be_closed_from_inside() -> None:
    assert code_block("```\n# heading").startswith("````\n")
