"""The picture of the demo in the README: a real browser, a real adapter and its base, documents invented here.

`python -m benchmarks.demo_picture RUN` starts the demo over a run's adapter, uploads the documents, asks one question
of both models and writes docs/demo.png. The question was picked; how often the adapter is right is told by the report
of its run, not by a picture.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from fpdf import FPDF

DOCUMENTS = {
    "Harrow 40 manual.pdf": (
        "Harrow 40 pump",
        "The Harrow 40 lifts 40 litres a minute to a height of 18 metres. It weighs 31 kilograms and takes 1.1 "
        "kilowatts.",
        "The warranty of the Harrow 40 pump is 24 months and begins on the day of delivery. Seals, filters and other "
        "wear parts are excluded from the warranty.",
        "Change the oil after 500 hours and clean the filter every month. Check the seals before each season.",
    ),
    "Harrow 25 manual.pdf": (
        "Harrow 25 pump",
        "The Harrow 25 lifts 25 litres a minute to a height of 12 metres. It weighs 19 kilograms.",
        "The warranty of the Harrow 25 pump is 12 months and begins on the day of purchase. Keep the invoice.",
        "Change the oil after 300 hours. Do not run the pump dry.",
    ),
    "Service.pdf": (
        "Service",
        "The service answers on weekdays from eight to five. Call before you open the housing: the warranty ends if "
        "others have opened it.",
        "The mill at Aldern was restored in 1987. Its pump stands in the cellar, its turbine in the annex.",
    ),
}
QUESTION = "How long is the warranty of the Harrow 40 pump?"
SIZE = {"width": 1280, "height": 800}


def main(run: str, picture: Path) -> int:
    """Take the picture."""
    from rag_ft.app.demo import Backing, DemoSettings, serving
    from rag_ft.app.embedding import open_embedder
    from rag_ft.app.library import open_library
    from rag_ft.app.settings import LibrarySettings
    from rag_ft.generator import load_generator

    library = LibrarySettings(chunk_tokens=64, overlap_tokens=0)
    embedder = open_embedder(library)
    tuned: Any = load_generator(run)
    backing = Backing(tuned, tuned.without_adapter(), lambda: open_library(None, settings=library, embedder=embedder))
    with tempfile.TemporaryDirectory() as folder, serving(DemoSettings(port=0, passages=6), backing) as address:
        files = [write_pdf(Path(folder) / name, *parts) for name, parts in DOCUMENTS.items()]
        photograph(address, files, picture)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
    return 0


def write_pdf(path: Path, title: str, *pages: str) -> Path:
    """Write a document of one paragraph a page."""
    pdf = FPDF()
    pdf.set_title(title)
    for text in pages:
        pdf.add_page()
        pdf.set_font("helvetica", size=12)
        pdf.multi_cell(0, 7, text)
    pdf.output(str(path))
    return path


def photograph(address: str, files: list[Path], picture: Path) -> None:
    """Upload, ask both models, and take the picture once both have answered."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, locale="en-GB")
        page.set_default_timeout(300_000)
        page.goto(address)
        page.wait_for_selector("#documents .ragft")
        page.set_input_files("#upload input[type=file]", list(map(str, files)))
        page.wait_for_function(f"() => document.querySelectorAll('#documents li').length === {len(files)}")
        page.check("#compare input")
        page.fill("#question textarea", QUESTION)
        page.press("#question textarea", "Enter")
        page.wait_for_function("() => document.querySelectorAll('#turn .notes').length === 2")
        page.wait_for_selector("#passages mark")
        print(*page.locator("#turn .answer").all_inner_texts(), sep="\n")
        page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "docs/demo.png")))
