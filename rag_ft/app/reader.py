"""The process that reads files nobody vouches for: `python -P -m rag_ft.app.reader LIMITS`, started by reading.py.

It takes a line of JSON for each file (`path`, `name`) and answers with lines of JSON: one before each page (`page`),
and at last what was found (`passages`, `problems`). It ends when its input does, wherever it is.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from data_builders.documents.ocr import SKIPPED
from data_builders.documents.parts import Report, UnreadableError, clean
from data_builders.documents.read import chunk_document, read_document
from data_builders.sources.documents_settings import DocumentsSettings
from rag_ft.app.settings import LibrarySettings

NO_TEXT = "has no text"
_SENTENCES = {
    "files without any text": NO_TEXT,
    "PDF files that need a password": "needs a password: save it without one",
    "PDF files that are broken": "is no PDF that can be read: it is broken, cut short or of another kind",
    "files that are not text": "is no text",
    "files that cannot be opened": "cannot be opened: check its permissions",
    "files nested too deep": "is nested too deep to be read",
    "PDF pages that could not be read": "{count} of its pages could not be read",
    SKIPPED: "{count} of its pages are pictures and were not read: {ocr}",
}
_BEGINNINGS = (
    (b"%PDF-", "a PDF file", ".pdf"),
    (b"PK\x03\x04", "a zip file (such as .docx)", ""),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office file", ""),
    (b"\x1f\x8b", "a gzip file", ""),
    (b"\x7fELF", "a program", ""),
)


def documents_settings(settings: LibrarySettings) -> DocumentsSettings:
    """Return the settings of a library as the reader of documents takes them. Every passage with a word is kept."""
    return DocumentsSettings(
        kind="documents",
        path="",
        chunk_tokens=settings.chunk_tokens,
        overlap_tokens=settings.overlap_tokens,
        ocr=settings.ocr,
        ocr_languages=settings.ocr_languages,
        ocr_dpi=settings.ocr_dpi,
        min_words=1,
    )


def read(path: Path, name: str, settings: LibrarySettings, at_page: Callable[[int], None]) -> dict[str, Any]:
    """Read one file.

    Returns:
        Its `passages`, as lists of id, title, text, page and where pages begin in it; its `problems`, as sentences.
    """
    if problem := _refused_unread(path):
        return _refused(problem)

    def watch(number: int, pages: int) -> None:
        if pages > settings.max_pages:
            raise UnreadableError(
                f"has {pages:,} pages, more than max_pages={settings.max_pages}: set max_pages={pages} to read it"
            )
        at_page(number)

    own = documents_settings(settings)
    document = read_document(path, name, own, watch)
    chunks, _ = chunk_document(document, own, frozenset())
    if len(chunks) > settings.max_passages:
        return _refused(
            f"gives {len(chunks):,} passages, more than max_passages={settings.max_passages}: "
            f"set max_passages={len(chunks)} to read it"
        )
    passages = [
        [one.passage.id, _title(one.passage.title), one.passage.text, one.passage.page, one.pages] for one in chunks
    ]
    problems = list(_problems(document.report))
    return {"passages": passages, "problems": problems or ([] if passages else [NO_TEXT])}


def _refused(problem: str) -> dict[str, Any]:
    return {"passages": [], "problems": [problem]}


def _refused_unread(path: Path) -> str:
    """Return what is wrong with a file by its size and first bytes, for what would read as broken text or PDF."""
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError:
        return _SENTENCES["files that cannot be opened"]
    if not start:
        return "is empty"
    for beginning, kind, suffix in _BEGINNINGS:
        if start.startswith(beginning) and path.suffix.lower() != suffix:
            hint = f": rename it to end in {suffix}" if suffix else ": save it as PDF, text, Markdown or HTML"
            return f"is {kind}, whatever its name says{hint}"
    return ""


def _problems(report: Report) -> Iterator[str]:
    """Yield what was left out of a file. That it has no text need not be said where it is said why."""
    reasons = [reason for reason, count in report.dropped.items() if count]
    for reason in reasons:
        if len(reasons) == 1 or _SENTENCES.get(reason) != NO_TEXT:
            sentence = _SENTENCES.get(reason, reason)
            yield sentence.replace("{count}", f"{report.dropped[reason]:,}").replace("{ocr}", report.ocr_problem)


def _title(title: str) -> str:
    return " ".join(clean(title).split())[:300]


def main() -> None:
    """Answer requests until the input ends."""
    settings = LibrarySettings.model_validate_json(sys.argv[1])
    _limit_memory(settings.memory_megabytes)
    for name in ("pdf", "ocr", "html", "plain"):  # while nobody counts the seconds of a file
        import_module(f"data_builders.documents.{name}")
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not break an answer

    def say(answer: dict[str, Any]) -> None:
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()

    requests = _requests()
    say({"ready": True})
    while True:
        asked = json.loads(requests.get())
        try:
            found = read(Path(asked["path"]), asked["name"], settings, lambda page: say({"page": page}))
        except MemoryError:
            found = _refused(memory_problem(settings))
        except Exception as error:  # whatever a file leads to, the next one is read
            found = _refused(f"cannot be read ({type(error).__name__})")
        say({**found, "megabytes": _most_megabytes()})


def memory_problem(settings: LibrarySettings) -> str:
    """Return what is said of a file that does not fit the memory."""
    most = settings.memory_megabytes
    return f"needs more than {most:,} MB of memory: set memory_megabytes={2 * most} if you trust it"


def _requests() -> queue.SimpleQueue[str]:
    """Take lines from the input as they come, and end the process with it: nobody waits for it any more."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def take() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=take, daemon=True).start()
    return lines


def _most_megabytes() -> int:
    """Return how much memory this process has had at most; 0 where that is not known."""
    try:  # not resource.getrusage: it begins with what the parent had
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _limit_memory(megabytes: int) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
