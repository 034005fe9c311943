"""One question over a library of documents: passages found, put in order, answered. Prints nothing."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from data_builders.contexts import reordered
from data_builders.errors import RagFtError
from data_builders.labels.quotes import place
from data_builders.records import Passage
from rag_ft.app import Added, Found, Library
from rag_ft.app.highlight import stands
from rag_ft.generator import Answer, Generator

Order = Literal["reordered", "retrieved"]
Item = TypeVar("Item")

_ORDERS: dict[str, Callable[[Sequence[Item]], list[Item]]] = {"retrieved": list, "reordered": reordered}


@dataclass(frozen=True)
class Sought:
    """What a library has for a question.

    Attributes:
        question: as it was asked.
        shown: the passages found, in the order in which the generator is shown them.
        added: what became of the documents.
        update_seconds: for reading what is new.
        search_seconds: for finding the passages.
    """

    question: str
    shown: tuple[Found, ...]
    added: Added
    update_seconds: float
    search_seconds: float

    @property
    def passages(self) -> list[Passage]:
        """The passages, as the generator takes them."""
        return [found.passage for found in self.shown]


def seek(library: Library, documents: Path, question: str, k: int, order: Order) -> Sought:
    """Bring a library up to date and find passages for a question.

    Args:
        library: to search.
        documents: file or folder that it is to hold.
        question: to find passages for.
        k: how many.
        order: `reordered` puts the best at both ends (arXiv 2410.05983, algorithm 2); `retrieved` has the best first.

    Raises:
        RagFtError: there are no such documents.
    """
    began = time.perf_counter()
    added = library.update(documents)
    updated = time.perf_counter()
    found = library.search(question, k)
    searched = time.perf_counter()
    return Sought(question, tuple(_ORDERS[order](found)), added, updated - began, searched - updated)


def answer(generator: Generator, sought: Sought) -> Answer | None:
    """Answer from the passages found; None where there are none, since then nothing would be cited.

    Raises:
        RagFtError: the passages do not fit the model, or the server has no answer.
    """
    if not sought.shown:
        return None
    try:
        return generator.answer(sought.question, sought.passages)
    except RagFtError as error:
        if "passages fit" not in str(error):
            raise
        raise RagFtError(f"{error} Here that is --passages, which is {len(sought.shown)}.") from error


def is_answered(answered: Answer | None) -> bool:
    """Tell whether there is an answer: neither abstention nor silence."""
    return answered is not None and answered.answer is not None


def citation_stands(sought: Sought, passage: int, quote: str) -> bool:
    """Tell whether a quote stands, word for word, in the passage that it is said to come from."""
    return 1 <= passage <= len(sought.shown) and stands(quote, sought.shown[passage - 1].passage.text)


def pages_of(found: Found) -> tuple[int, int] | None:
    """Return the first and the last page of a passage; None where its document has no pages."""
    if found.page is None:
        return None
    return (found.pages[0][1], found.pages[-1][1]) if found.pages else (found.page, found.page)


def page_of(found: Found, quote: str) -> int | None:
    """Return the page on which a quote begins: the passage's own where the quote does not stand in it."""
    start, end = place(quote, found.passage.text)
    number = bisect_right(found.pages, start, key=lambda begins: begins[0]) - 1
    return found.pages[number][1] if start < end and number >= 0 else found.page
