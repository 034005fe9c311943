"""The demo in a real browser: a PDF is uploaded and asked, its quote marked; by keyboard; in every size and colour."""

import os
import threading
from pathlib import Path

import pytest
from demo_browser import NARROW, WIDE, answered, ask, chromium, opened, upload, worst_contrast
from demo_stub import Quoting, demo
from fpdf import FPDF

pytest.importorskip("gradio", reason="the demo needs gradio: pip install 'rag-ft[demo]'")

from rag_ft.app.demo_words import WORDS

IS_SEEN = """() => {
  const style = getComputedStyle(document.activeElement);
  return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
}"""
QUESTION = "How long is the warranty of the pump?"
QUOTE = "The warranty of the pump is 24 months."
PAGES = (
    "The pump of the mill was built in 1987. " + "It stands in the cellar. " * 40,
    "Seals wear and are excluded. " * 30 + f"{QUOTE} It begins on the day of delivery. " + "Keep the invoice. " * 30,
    "Call the service before you open the housing. " + "It answers on weekdays. " * 40,
)


def write_manual(path):
    pdf = FPDF()
    for text in PAGES:
        pdf.add_page()
        pdf.set_font("helvetica", size=12)
        pdf.multi_cell(0, 7, text)
    pdf.output(str(path))
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def url(browser):
    with demo(base=Quoting(says="Answer: About three years, I believe.")) as address:
        yield address


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    return write_manual(tmp_path_factory.mktemp("manual") / "pump manual.pdf")


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where pictures go: set RAG_FT_SHOTS to look at them."""
    folder = Path(os.environ.get("RAG_FT_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def focused(page):
    return page.evaluate(
        "() => { const e = document.activeElement; return (e.closest('[id]:not([id^=html-])') || e).id; }"
    )


class TestAsking:
    def test_uploaded_pdf_is_asked_its_quote_marked_and_the_base_model_set_beside(self, browser, url, manual, shots):
        with opened(browser, url) as (page, seen):
            upload(page, manual)
            assert page.inner_text("#documents .file") == "pump manual.pdf"
            ask(page, QUESTION)
            (answer,) = page.locator("#turn .answer").all_inner_texts()
            number = page.inner_text("#turn .answer a")
            assert answer == f"{QUOTE} [{number}]"
            assert page.locator("#passages mark").all_inner_texts() == [QUOTE]
            cited = page.locator("#passages details[open]")
            assert cited.count() == 1
            assert cited.get_attribute("id") == f"passage-{number}"
            assert "pump manual.pdf, page 2" in cited.locator("summary").inner_text()
            assert "relevant" in cited.locator("summary").inner_text()
            page.screenshot(path=shots / "one-wide.png")
            page.check("#compare input")
            ask(page, "When was the pump of the mill built?")
            assert page.locator("#turn .reply h3").all_inner_texts() == ["Tuned", "Base"]
            tuned, base = (page.locator("#turn .reply").nth(number).bounding_box() for number in (0, 1))
            assert tuned["y"] == base["y"]
            assert tuned["x"] + tuned["width"] <= base["x"]
            assert page.inner_text("#past h2") == QUESTION
            page.screenshot(path=shots / "two-wide.png")
            page.set_viewport_size(NARROW)
            assert page.locator("#turn .reply").nth(1).bounding_box()["y"] > tuned["y"]
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
            page.locator("#turn h2").scroll_into_view_if_needed()
            page.screenshot(path=shots / "two-narrow.png")
            page.screenshot(path=shots / "two-narrow-all.png", full_page=True)
            assert seen.complaints == []
            assert seen.elsewhere == []

    def test_bad_file_gets_its_sentence_and_the_next_is_read(self, browser, url, manual, tmp_path):
        (tmp_path / "letter.docx").write_bytes(b"PK\x03\x04")
        (tmp_path / "cut.pdf").write_bytes(manual.read_bytes()[:300])
        with opened(browser, url) as (page, seen):
            upload(page, tmp_path / "letter.docx", tmp_path / "cut.pdf", manual)
            lines = page.locator("#reading .line").all_inner_texts()
            assert lines[0].startswith("letter.docx is of a kind that is not read.")
            assert lines[1].startswith("cut.pdf: ")
            assert page.locator("#documents .file").all_inner_texts() == ["pump manual.pdf"]
            assert seen.complaints == []

    def test_another_visitor_sees_nothing_of_it(self, browser, url, manual):
        with opened(browser, url) as (first, _), opened(browser, url) as (second, _):
            upload(first, manual)
            ask(first, QUESTION)
            second.reload()
            second.wait_for_selector("#documents .ragft")
            assert "pump" not in second.inner_text("body")
            second.fill("#question textarea", QUESTION)
            second.press("#question textarea", "Enter")
            second.wait_for_selector(f"#status:has-text({WORDS['en']['nothing_to_ask']!r})")

    def test_answer_that_takes_too_long_can_be_stopped(self, browser, manual):
        class Endless(Quoting):
            def stream(self, question, passages):
                yield from ["more "] * 20
                assert go_on.wait(timeout=60)
                yield from ["never shown "] * 200

        go_on = threading.Event()
        with demo(Endless()) as address, opened(browser, address) as (page, _):
            upload(page, manual)
            page.fill("#question textarea", QUESTION)
            page.press("#question textarea", "Enter")
            page.wait_for_selector("#turn .writing:has-text('more')")
            page.check("#page-language input[value=ko]")
            page.wait_for_selector(f"#question .stop-button:has-text({WORDS['ko']['stop']!r})")
            page.click("#question .stop-button")
            page.wait_for_selector(f"#turn .problem:has-text({WORDS['ko']['stopped']!r})")
            page.wait_for_selector("#question .submit-button")
            go_on.set()
            page.check("#page-language input[value=en]")
            page.wait_for_selector(f"#turn .problem:has-text({WORDS['en']['stopped']!r})")

    def test_html_of_a_document_stays_text_in_the_browser(self, browser, url, tmp_path):
        evil = "The cat is black <img src=x onerror=\"document.title='owned'\"><b>and bold</b> ${1+1} {{1+1}}."
        (tmp_path / "evil.txt").write_text(evil)
        with opened(browser, url) as (page, seen):
            upload(page, tmp_path / "evil.txt")
            ask(page, "What colour is the cat <img src=x onerror=alert(1)>")
            assert evil in page.inner_text("#passages .text")
            assert page.locator("#turn img, #passages img, #passages b").count() == 0
            assert page.title() != "owned"
            assert seen.complaints == []


class TestKeyboard:
    def test_everything_is_reached_by_tab_and_a_question_is_sent_by_enter(self, browser, url, manual):
        with opened(browser, url) as (page, _):
            upload(page, manual)
            reached = [""]
            while reached[-1] != "forget" and len(reached) < 9:
                page.keyboard.press("Tab")
                reached += [focused(page)] if focused(page) != reached[-1] else []
            wanted = ["page-language", "upload", "question", "compare", "route", "answer-language", "forget"]
            assert reached[1:] == wanted
            while focused(page) != "question":
                page.keyboard.press("Shift+Tab")
            page.keyboard.press("Shift+Tab")  # from the button to the box
            page.keyboard.type(QUESTION)
            page.keyboard.press("Enter")
            answered(page, QUESTION)
            assert focused(page) == "question"
            page.keyboard.press("Tab")
            assert focused(page) == "question"
            for _ in range(2):  # back over the question to the last passage
                page.keyboard.press("Shift+Tab")
            last = page.locator("#passages details").last
            assert focused(page) == last.get_attribute("id")
            was_open = last.get_attribute("open") is not None
            page.keyboard.press("Enter")
            assert (last.get_attribute("open") is not None) != was_open

    def test_mark_of_the_answer_leads_to_its_passage(self, browser, url, manual):
        with opened(browser, url, viewport={"width": 1280, "height": 400}) as (page, _):
            upload(page, manual)
            ask(page, QUESTION)
            page.focus("#turn .answer a")
            page.keyboard.press("Enter")
            number = page.inner_text("#turn .answer a")
            page.wait_for_function("hash => location.hash === hash", arg=f"#passage-{number}")
            top = page.locator(f"#passage-{number}").bounding_box()["y"]
            assert 0 <= top < 200

    def test_what_has_the_focus_is_seen_to(self, browser, url):
        with opened(browser, url) as (page, _):
            for _ in range(8):
                page.keyboard.press("Tab")
                assert page.evaluate(IS_SEEN), focused(page)

    def test_buttons_and_boxes_have_names(self, browser, url):
        with opened(browser, url) as (page, _):
            names = page.evaluate(
                """() => [...document.querySelectorAll('button, input:not([type=file]), textarea, a')]
                .filter((e) => e.checkVisibility())
                .map((e) => [e.outerHTML.slice(0, 80), (e.ariaLabel || e.textContent
                  || [...(e.labels || [])].map((one) => one.textContent).join(' ')).trim()])"""
            )
            assert names
            assert [html for html, name in names if not name] == []


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("language", ["en-GB", "ko-KR"])
    def test_every_text_has_a_contrast_of_at_least_4_5(self, browser, url, manual, shots, scheme, language):
        with opened(browser, url, color_scheme=scheme, locale=language) as (page, _):
            assert worst_contrast(page)[0] >= 4.5, worst_contrast(page)
            page.screenshot(path=shots / f"empty-{scheme}-{language}.png")
            upload(page, manual)
            page.check("#compare input")
            ask(page, QUESTION)
            page.locator("#turn summary").first.click()
            assert worst_contrast(page)[0] >= 4.5, worst_contrast(page)
            page.screenshot(path=shots / f"asked-{scheme}-{language}.png")
            ask(page, "Who sails to the moon?")
            assert worst_contrast(page)[0] >= 4.5, worst_contrast(page)

    @pytest.mark.parametrize("size", [WIDE, NARROW, {"width": 320, "height": 640}], ids=lambda size: str(size["width"]))
    def test_nothing_is_wider_than_the_window(self, browser, url, size, tmp_path):
        (tmp_path / f"{'long_name_' * 12}.txt").write_text(f"The word is {'x' * 300}.")
        with opened(browser, url, viewport=size) as (page, _):
            upload(page, tmp_path / f"{'long_name_' * 12}.txt")
            ask(page, f"What is the word {'y' * 200}?")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

    def test_page_is_korean_for_a_korean_browser_and_english_at_a_click(self, browser, url):
        with opened(browser, url, locale="ko-KR") as (page, _):
            assert page.inner_text("#head h1") == WORDS["ko"]["title"]
            assert WORDS["ko"]["ask"] in page.inner_text("#question")
            page.check("#page-language input[value=en]")
            page.wait_for_selector(f"#head h1:has-text({WORDS['en']['title']!r})")
            page.wait_for_selector(f"#compare:has-text({WORDS['en']['compare']!r})")
