"""Finds the chunk that holds the evidence of each question. Nothing is guessed from an answer alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from data_builders.documents.chunks import Chunk
from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Question
from data_builders.text import answer_tokens, contains_answer

_LOOKALIKES = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u00ab\u00bb"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2013\u2014\u2212"), "-"),
    **dict.fromkeys(map(ord, "\xad\u200b\u200c\u200d\u2060"), None),
}
_NOT_FOUND = "questions whose evidence was not found in the documents"
_MOST_ALTERNATIVES = 20
_FEWEST_WORDS = 3  # of a quote that is looked up by a word in its middle


@dataclass(frozen=True)
class Wanted:
    """One piece of evidence: a document (empty: any), a page of it (0: any) and a quote (empty: wherever an answer is).

    With an empty quote a document is named.
    """

    document: str = ""
    page: int = 0
    quote: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Asked:
    """A question as its file gives it, and the evidence that is to be found."""

    question: Question
    wanted: tuple[Wanted, ...] = ()


@dataclass
class _Search:
    """What was found so far for one piece of evidence."""

    wanted: Wanted
    question: Question
    folded: str
    passage: str = ""
    quote: str = ""
    score: tuple[int, ...] = ()
    others: list[str] = field(default_factory=list)


class Locator:
    """Takes chunks as they come, then gives the questions with their gold.

    Args:
        asked: the questions.
        documents: names of all files, to find which one a question means.
        folder: name of the folder they are in; a question may begin its path with it.
    """

    def __init__(self, asked: Sequence[Asked], documents: Iterable[str], folder: str = "") -> None:
        self._asked, self._folder = asked, unicodedata.normalize("NFC", folder)
        self._names = set(documents)
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_stem.setdefault(name.rsplit("/", 1)[-1], []).append(name)
        self._searches = [[self._search(one.question, wanted) for wanted in one.wanted] for one in asked]
        self._by_document: dict[str, list[_Search]] = {}
        self._by_word: dict[str, list[_Search]] = {}
        self._short: list[_Search] = []
        for search in (search for searches in self._searches for search in searches):
            self._file(search)

    def see(self, chunks: Iterable[Chunk]) -> None:
        """Look for evidence in the chunks of one document."""
        for chunk in chunks:
            searches = self._by_document.get(chunk.passage.document, [])
            if searches or self._by_word or self._short:
                text = fold(chunk.passage.text)
                anywhere = [found for word in set(text.split()) for found in self._by_word.get(word, ())]
                for search in (*searches, *anywhere, *self._short):
                    _look(search, chunk, text)

    def questions(self, tally: Tally) -> Iterator[Question]:
        """Yield the questions in their order. One whose evidence is not found in whole comes without gold, counted."""
        for one, searches in zip(self._asked, self._searches, strict=True):
            self._count_names(one, tally)
            if not all(search.passage for search in searches):
                tally.count(_NOT_FOUND, 1, one.question.id)
                yield one.question
                continue
            if not searches and one.question.answers:
                tally.count("questions that name no document and no quote", 1, one.question.id)
            yield _with_gold(one.question, searches)

    def _count_names(self, one: Asked, tally: Tally) -> None:
        if any(wanted.document and self._name(wanted.document) not in self._names for wanted in one.wanted):
            tally.count("questions that name a document that is not in the folder", 1, one.question.id)

    def _search(self, question: Question, wanted: Wanted) -> _Search:
        return _Search(replace(wanted, document=self._name(wanted.document)), question, fold(wanted.quote))

    def _name(self, given: str) -> str:
        """Return the file a question means: its path from the folder, or its bare name if only one file has it."""
        name = unicodedata.normalize("NFC", given.replace("\\", "/")).removeprefix("./")
        if name in self._names or given in self._names:
            return name if name in self._names else given
        first, _, below = name.partition("/")
        if first == self._folder and below in self._names:
            return below
        same = self._by_stem.get(name.rsplit("/", 1)[-1], []) if "/" not in name else []
        return same[0] if len(same) == 1 else name

    def _file(self, search: _Search) -> None:
        """Put a search where the chunks that may answer it are looked up."""
        words = search.folded.split()
        if search.wanted.document:
            self._by_document.setdefault(search.wanted.document, []).append(search)
        elif len(words) >= _FEWEST_WORDS:  # the first and the last word of a quote may be cut
            self._by_word.setdefault(max(words[1:-1], key=len), []).append(search)
        elif words:
            self._short.append(search)


def _look(search: _Search, chunk: Chunk, text: str) -> None:
    """Keep a chunk if it holds the evidence better than what was found; of equal ones the first stays."""
    wanted, passage = search.wanted, chunk.passage
    on_page = not wanted.page or chunk.first_page <= wanted.page <= chunk.last_page
    score: tuple[int, ...]
    if search.folded:
        quote = verbatim(passage.text, search.folded) if search.folded in text else ""
        score = (int(on_page),)
        if not quote:
            return
    else:
        quote = ""
        if not on_page or not contains_answer(passage.text, search.question.answers):
            return
        shared = set(answer_tokens(search.question.question)) & set(answer_tokens(passage.text))
        begins_there = passage.page == wanted.page  # else the answer may stand in what it has of another page
        score = (int(contains_answer(passage.text, search.question.answers[:1])), int(begins_there), len(shared))
    if score > search.score:
        if search.passage and quote:
            search.others.append(search.passage)
        search.passage, search.quote, search.score = passage.id, quote, score
    elif quote and len(search.others) < _MOST_ALTERNATIVES:
        search.others.append(passage.id)


def _with_gold(question: Question, searches: Sequence[_Search]) -> Question:
    gold = tuple(dict.fromkeys(search.passage for search in searches))
    others = dict.fromkeys(passage for search in searches for passage in search.others if passage not in gold)
    evidence = tuple(GoldEvidence(s.passage, s.quote, s.wanted.reason) for s in searches if s.quote)
    return replace(question, gold=gold, evidence=tuple(dict.fromkeys(evidence)), alternatives=tuple(others))


def fold(text: str) -> str:
    """Return a text as quotes are compared: NFKC, plain quotation marks and dashes, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_LOOKALIKES).split())


_CLUSTER = re.compile(r"\s+|.(?:[\u0300-\u036f\u1160-\u11ff\u3099\u309a])*", re.S)  # a character and its marks


def verbatim(text: str, folded: str) -> str:
    """Return the part of `text` whose folded form is `folded`; nothing if there is none."""
    letters: list[str] = []
    places: list[tuple[int, int]] = []
    for cluster in _CLUSTER.finditer(text):
        plain = unicodedata.normalize("NFKC", cluster.group()).translate(_LOOKALIKES)
        for letter in " " if not plain.strip() and plain else plain:
            if not letter.isspace() or not letters or letters[-1] != " ":
                letters.append(" " if letter.isspace() else letter)
                places.append(cluster.span())
    start = "".join(letters).find(folded)
    return text[places[start][0] : places[start + len(folded) - 1][1]] if start >= 0 and folded else ""
