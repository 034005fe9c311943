"""The report in a real browser: the one script it runs, nothing from elsewhere, small screens, colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from demo_browser import NARROW, chromium, opened, worst_contrast
from report_cases import QUESTIONS, RIGHT, pools, scored_further
from test_report import FACTS

from rag_ft.report.disagreements import browser as disagreements
from rag_ft.report.page import write_report

SYSTEMS = ["base", "base + reordering", "tuned", "tuned, routed"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    scores, rows = scored_further()
    write_report(scores, [], folder, facts=FACTS, browser=disagreements(scores, rows, pools(), None, SYSTEMS))
    return (folder / "report.html").as_uri()


def found(page: Any) -> int:
    return int(page.inner_text("#browser .found").split()[0])


def test_questions_are_filtered_by_who_is_right_and_wrong(browser: Any, report: str) -> None:
    with opened(browser, report, "#browser .filters:not([hidden])") as (page, seen):
        everything = found(page)
        page.select_option("#browser [data-filter=right]", label="tuned")
        page.select_option("#browser [data-filter=wrong]", label="base")
        assert found(page) == RIGHT["tuned"][-1] - RIGHT["base"][-1] == 28
        assert page.locator("#browser details.case:visible").count() == 20
        page.click("#browser .more")
        assert page.locator("#browser details.case:visible").count() == 28
        assert not page.is_visible("#browser .more")
        page.select_option("#browser [data-filter=right]", label="base")
        page.select_option("#browser [data-filter=wrong]", label="tuned")
        assert found(page) == 0
        for name in ("right", "wrong"):
            page.select_option(f"#browser [data-filter={name}]", "")
        page.fill("#browser [data-filter=text]", "question 17?")
        assert found(page) == 1
        page.fill("#browser [data-filter=text]", "")
        assert found(page) == everything <= QUESTIONS
        assert (seen.complaints, seen.elsewhere) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_read_on_any_screen_in_light_and_dark(browser: Any, report: str, scheme: str) -> None:
    with opened(browser, report, "h1", viewport=NARROW, color_scheme=scheme) as (page, seen):
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        ratio, text = worst_contrast(page)
        assert ratio >= 4.5, text  # WCAG 2.2, 1.4.3
        assert (seen.complaints, seen.elsewhere) == ([], [])
