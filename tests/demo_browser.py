"""Chromium over a page of ours: found or skipped, what it complains of noted, and colours measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

# Every visible text with the contrast of its colour against what lies behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const channels = (text) => {
    const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    c.clearRect(0, 0, 1, 1); c.fillStyle = text; c.fillRect(0, 0, 1, 1);
    const d = c.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) { layers.push(colour); }
      if (colour[3] === 1) { break; }
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const luminance = (c) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (element, colour) => {
    const below = behind(element);
    const [a, b] = [luminance(over(channels(colour), below)), luminance(below)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) { continue; }
    if (['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(element.tagName)) { continue; }
    found.push([ratio(element, getComputedStyle(element).color), text.slice(0, 60)]);
  }
  for (const box of document.querySelectorAll('textarea')) {
    found.push([ratio(box, getComputedStyle(box, '::placeholder').color), 'placeholder']);
    found.push([ratio(box, getComputedStyle(box).color), 'typed']);
  }
  return found;
}"""


@dataclass
class Seen:
    """What a page did that it should not."""

    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser; skip the test, with the reason, where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test in a browser")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian: apt install chromium): pages are not tested in a browser")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root has no sandbox
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, url: str, ready: str = "#documents .ragft", **context: Any) -> Iterator[tuple[Any, Seen]]:
    """Open the page as a visitor of their own, until `ready` is there, and note what it complains of."""
    seen = Seen()
    visit = browser.new_context(**{"viewport": WIDE, "locale": "en-GB", **context})
    visit.set_default_timeout(60_000)
    try:
        page = visit.new_page()
        page.on("console", lambda one: seen.complaints.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on(
            "request",
            lambda one: None if one.url.startswith((url, "data:", "blob:")) else seen.elsewhere.append(one.url),
        )
        page.goto(url)
        page.wait_for_selector(ready)
        yield page, seen
    finally:
        visit.close()


def upload(page: Any, *files: Any) -> None:
    """Choose files and wait until all are read or refused."""
    page.set_input_files("#upload input[type=file]", list(map(str, files)))
    page.wait_for_function(
        "name => { const lines = [...document.querySelectorAll('#reading .line')].map((one) => one.textContent);"
        " return lines.length && lines.at(-1).startsWith(name) && !lines.at(-1).endsWith('...'); }",
        arg=Path(files[-1]).name,
    )


def ask(page: Any, question: str) -> None:
    """Write a question, send it with Enter, and wait for the end of the answer."""
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    answered(page, question)


def answered(page: Any, question: str) -> None:
    """Wait until a question has its answer."""
    page.wait_for_selector(f"#turn h2:has-text({question!r})")
    page.wait_for_selector("#turn .notes, #turn .problem")
    page.wait_for_selector("#turn .writing", state="detached")
    page.wait_for_selector("#question .submit-button")


def worst_contrast(page: Any) -> tuple[float, str]:
    """Return the least contrast of all that is written on the page, and what is written so."""
    ratio, text = min(page.evaluate(CONTRASTS))
    return ratio, text
