"""Questions over one's own documents, in the terminal and in the browser. Trains and measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_builders.records import Passage


@dataclass(frozen=True)
class Found:
    """A passage of a library that a question found.

    Attributes:
        passage: as the generator is shown it.
        file: path of its document below the folder, with `/`.
        page: the page it begins on, counted from 1; None where the document has none.
        score: cosine similarity of question and passage.
        pages: (offset into its text, page) wherever a page begins; empty where that is not known.
    """

    passage: Passage
    file: str
    page: int | None
    score: float
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Added:
    """What became of the files a library was given.

    Attributes:
        read: files that were read, new or changed.
        unchanged: files that were there already and not read again.
        removed: files that are gone, with their passages.
        refused: files that were left out, and why, one sentence each without a path of this machine.
        passages: passages the library holds now.
    """

    read: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    passages: int


class Library(Protocol):
    """Documents that can be asked. What one collection holds, no search in another finds."""

    def update(self, documents: Path) -> Added:
        """Make the library hold what a file or folder holds: only files whose content changed are read again."""
        ...

    def search(self, question: str, k: int) -> list[Found]:
        """Return the best `k` passages, best first."""
        ...
