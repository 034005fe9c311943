"""A library of 200 PDF files: what reading them takes, what finding passages takes, and what one file more costs."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fpdf import FPDF

from benchmarks.results_file import write_result
from rag_ft.app import Added
from rag_ft.app.embedding import default_embedder, open_embedder
from rag_ft.app.library import open_library
from rag_ft.app.settings import LibrarySettings

FILES = 200
ROUNDS = 2
PLACES = ["Aldern", "Berin", "Corvo", "Dunmor", "Elsted", "Farrow", "Gondal", "Hest", "Islay", "Jarrow"]
THINGS = ["lighthouse", "harbour", "foundry", "mill", "ferry", "school", "bridge", "market", "theatre", "railway"]
PROSE = [
    "The council of the town kept a register of what was spent on the works, and it is complete.",
    "Visitors reached the place on foot, since the road over the hill was opened much later.",
    "Nobody knows any more who drew the plans, which were lost when the archive burnt down.",
    "In winter the snow lay so deep that letters were brought over the frozen bay.",
    "A school was held in the upper room until the new building was ready.",
]


def write_page(path: Path, number: int) -> str:
    """Write a PDF of one full page about one thing in one place; return a question it answers."""
    place, thing = PLACES[number % 10], THINGS[number // 10 % 10]
    name = f"{place} {'old' if number < 100 else 'new'} {thing}"
    year, rng = 1700 + number, random.Random(number)
    pdf = FPDF()
    pdf.set_title(f"The {name}")
    pdf.add_page()
    pdf.set_font("helvetica", "", 11)
    for part in range(8):
        told = " ".join(rng.sample(PROSE, 4))
        fact = f"The {name} was opened in {year} by the engineer number {number}. " if part == 3 else ""
        pdf.multi_cell(0, 6, f"{fact}{told}", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(3)
    pdf.output(str(path))
    return f"In which year was the {name} opened?"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def main() -> None:
    """Measure and write benchmarks/results/asking.json."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch, "docs"), Path(scratch, "library")
        folder.mkdir()
        questions = [write_page(folder / f"{number:03}.pdf", number) for number in range(FILES)]
        loading, embedder = timed(lambda: open_embedder(LibrarySettings()))
        with open_library(store, embedder=embedder) as library:
            reading, first = timed(lambda: library.update(folder))
        opening, library = timed(lambda: open_library(store, embedder=embedder))
        with library:
            unchanged, again = timed(lambda: library.update(folder))
            library.search(questions[0], 10)
            seconds, right, cpu = [], 0, time.process_time()
            for number, question in list(enumerate(questions)) * ROUNDS:
                took, found = timed(lambda asked=question: library.search(asked, 10))
                seconds.append(took)
                right += f"{number:03}.pdf" in {one.file for one in found}
            cpu = (time.process_time() - cpu) / len(seconds)
            write_page(folder / "new.pdf", 777)
            adding, added = timed(lambda: library.update(folder))
        assert (len(first.read), len(again.read), again.refused) == (FILES, 0, ())
        write_result(
            "asking",
            numbers_of(first, added, seconds, right)
            | {
                "processor time of finding them (ms)": round(1000 * cpu, 1),
                "loading the embedder (s)": round(loading, 2),
                "reading and embedding 200 PDF files (s)": round(reading, 1),
                "opening the library (s)": round(opening, 2),
                "update with nothing new (s)": round(unchanged, 2),
                "update with one PDF more (s)": round(adding, 2),
                "embedder": default_embedder(),
                "others at work (load average)": round(os.getloadavg()[0], 1),
            },
            "python -m benchmarks.asking",
        )


def numbers_of(first: Added, added: Added, seconds: list[float], right: int) -> dict[str, Any]:
    """Return what was found, and how fast."""
    return {
        "PDF files": len(first.read),
        "passages": first.passages,
        "questions": len(seconds),
        "finding 10 passages, median (ms)": round(1000 * float(np.median(seconds)), 1),
        "finding 10 passages, 95th percentile (ms)": round(1000 * float(np.quantile(seconds, 0.95)), 1),
        "the right file among them (%)": round(100 * right / len(seconds), 1),
        "files read for one PDF more": len(added.read),
    }


if __name__ == "__main__":
    main()
