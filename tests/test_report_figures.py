"""Figures of the report, how numbers are written, and which questions are shown in full."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import QUESTIONS, pools, predictions, question_id, scored

from data_builders.errors import RagFtError
from rag_ft.report.drawing import spread
from rag_ft.report.examples import choose_examples
from rag_ft.report.figures import inline_svg, save_figure
from rag_ft.report.findings import interval, percent, points


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    return scored()


@pytest.fixture(scope="module")
def examples() -> list[dict[str, Any]]:
    evidence = {question_id(n): [("p5", "It lies in Orsk.")] for n in range(QUESTIONS)}
    return choose_examples(predictions(), pools(), evidence, count=10, seed=3)


def test_report_survives_hostile_names_in_the_figure_file(tmp_path: Path) -> None:
    scores = scored()
    for row in (*scores["cells"], *scores["differences"], *scores["drops"], *scores["retention"]):
        row["system"] += " $x^ </text><script>"
    save_figure(scores, tmp_path / "accuracy.svg")
    root = ElementTree.parse(tmp_path / "accuracy.svg").getroot()
    assert not [element for element in root.iter() if element.tag.endswith("script")]


def test_figure_file_keeps_text_as_text_and_names_no_date(tmp_path: Path, scores: dict[str, Any]) -> None:
    save_figure(scores, tmp_path / "accuracy.svg")
    root = ElementTree.parse(tmp_path / "accuracy.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "90 tuned" in texts
    assert "Accuracy at 5: tuned 90 %, base 20 %" in texts
    assert not [element for element in root.iter() if element.tag.endswith("metadata")]


def test_inline_figure_follows_the_colours_of_the_page(scores: dict[str, Any]) -> None:
    svg = inline_svg(scores, "kept")
    assert svg.startswith("<svg")
    assert "var(--ink, #1f2328)" in svg
    assert "#ffffff" not in svg


def test_figure_of_an_unknown_format_is_refused(tmp_path: Path, scores: dict[str, Any]) -> None:
    with pytest.raises(RagFtError, match=r"Name it \.svg or \.png"):
        save_figure(scores, tmp_path / "figure.gif")


def test_figure_without_a_sweep_is_refused(tmp_path: Path, scores: dict[str, Any]) -> None:
    references = {**scores, "cells": [cell for cell in scores["cells"] if cell["gold"] == "gold_only"]}
    with pytest.raises(RagFtError, match=r"evaluation\.passages"):
        save_figure(references, tmp_path / "figure.svg")


@given(st.lists(st.floats(0, 100), max_size=8))
def test_labels_are_spread_without_changing_their_order(values: list[float]) -> None:
    placed = spread(values, 6, 0, 100)
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert all(placed[after] - placed[before] >= 6 - 1e-6 for before, after in itertools.pairwise(order))
    assert all(-1e-6 <= y <= 100 + 1e-6 for y in placed)


def test_labels_far_apart_stay_where_they_are() -> None:
    assert spread([90, 10, 50], 6, 0, 100) == pytest.approx([90, 10, 50])
    assert spread([50, 50], 6, 0, 100) == pytest.approx([47, 53])


@pytest.mark.parametrize(
    ("share", "text"), [(0.8667, "86.7"), (0.0, "0.0"), (-0.0001, "0.0"), (1.0, "100.0"), (-0.125, "\u221212.5")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_points_and_intervals_carry_signs_where_needed() -> None:
    assert [points(0.74, 0), points(-0.03, 0), points(0.0, 0)] == ["+74", "\u22123", "0"]
    assert interval({"low": 0.66, "high": 0.81}, 0, signed=True) == "66 to 81"
    assert interval({"low": -0.03, "high": 0.07}, 0, signed=True) == "\u22123 to +7"


def test_examples_show_losses_as_readily_as_gains() -> None:
    rows = predictions({"base": (30, 20, 8), "tuned": (38, 37, 30)})
    # Questions 0 to 7: both right. Make the tuned system wrong on two of them.
    rows = [
        replace(row, answer="Hald") if row.system == "tuned" and row.question_id in ("q00", "q01") else row
        for row in rows
    ]
    chosen = choose_examples(rows, pools(), {}, count=8, seed=1)
    kinds = Counter((example["kind"], example["kind_questions"]) for example in chosen)
    assert kinds == {("tuned right, base wrong", 22): 3, ("base right, tuned wrong", 2): 2, ("both wrong", 10): 3}


def test_examples_take_what_both_answer_right_last() -> None:
    rows = predictions({"base": (40, 40, 39), "tuned": (40, 40, 40)})
    kinds = Counter(example["kind"] for example in choose_examples(rows, pools(), {}, count=5))
    assert kinds == {"tuned right, base wrong": 1, "both right": 4}


def test_examples_depend_on_the_seed_only() -> None:
    rows, found = predictions(), pools()
    first = [example["question_id"] for example in choose_examples(rows, found, {}, count=6, seed=1)]
    assert first == [example["question_id"] for example in choose_examples(rows[::-1], found, {}, count=6, seed=1)]
    assert first != [example["question_id"] for example in choose_examples(rows, found, {}, count=6, seed=2)]


def test_example_shows_the_largest_count_with_gold_and_quotes(examples: list[dict[str, Any]]) -> None:
    example = examples[0]
    assert [passage["id"] for passage in example["passages"]] == ["p1", "p2", "p3", "p4", "p5"]
    assert [passage["is_gold"] for passage in example["passages"]] == [False] * 4 + [True]
    assert example["passages"][4]["quotes"] == ["It lies in Orsk."]
    assert [(o["system"], o["passages"]) for o in example["outputs"]] == [
        ("base", 5),
        ("base + reordering", 5),
        ("tuned", 5),
    ]


def test_failed_generation_is_shown_as_wrong() -> None:
    rows = [replace(row, failure="time-out", answer=None, output="") for row in predictions({"base": (40, 40, 40)})]
    (example,) = choose_examples(rows, pools(), {}, count=1)
    assert example["outputs"][0]["correct"] is False
    assert example["outputs"][0]["output"] == "Generation failed: time-out"


def test_no_predictions_give_no_examples() -> None:
    assert choose_examples([], {}, {}) == []
