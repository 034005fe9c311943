"""BM25 over title and text, with the scores of bm25s. Knows nothing of pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.corpus import Corpus
from data_builders.progress import Progress
from data_builders.retrievers import Found, Query
from data_builders.retrievers.postings import Array, Postings, PostingsWriter, Weigh, idf
from data_builders.retrievers.settings import Bm25Settings
from data_builders.retrievers.words import Analysis, analysis

_CHUNK = 8192  # passages counted at once; the index does not depend on it
_REMEMBERED = 1 << 17  # words of queries whose terms are remembered


class Bm25:
    """Lucene's BM25 (Kamphuis et al. 2020, "accurate"). Passages that share no term with the query are not returned.

    The scores are those of bm25s, which builds its index in Python objects; here the memory of a build is flat and the
    index stays on disk. Ties go to the passage that comes first, so that every machine ranks alike.
    """

    parallel = True

    def __init__(self, settings: Bm25Settings) -> None:
        self._settings = settings

    def index_settings(self) -> dict[str, Any]:
        """Return all that the index depends on: how text becomes terms, and the constants of the scores."""
        return {"language": self._settings.language, "k1": self._settings.k1, "b": self._settings.b}

    def build(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        """Write the index of `corpus` into `folder`; what an interrupted build left there is written over.

        Raises:
            RagFtError: the library that the language needs is not installed.
        """
        language = analysis(self._settings.language)
        terms = _Terms(language)
        with PostingsWriter(folder) as postings, Progress("passages", len(corpus), report) as progress:
            for start in range(0, len(corpus), _CHUNK):
                stop = min(start + _CHUNK, len(corpus))
                postings.add(*_numbers(language.split(corpus.texts(start, stop)), terms))
                progress.advance(stop - start)
            postings.finish(list(terms.known), self._weighing)

    def open(self, corpus: Corpus, folder: Path) -> None:
        """Map the index."""
        language = analysis(self._settings.language)
        postings = Postings(folder, len(corpus))
        self._split, self._rank = language.split, postings.rank
        self._number = lru_cache(_REMEMBERED)(lambda word: _number(word, language, postings))

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return, per query, at most `depth` passages that share a term with it."""
        return [self._find(words, depth) for words in self._split(query.text for query in queries)]

    def _find(self, words: list[str], depth: int) -> Found:
        numbers = [number for number in map(self._number, words) if number >= 0]
        return Found(*self._rank(numbers, depth)) if numbers else Found(np.zeros(0, np.int32), np.zeros(0, np.float32))

    def _weighing(self, found_in: Array, lengths: Array) -> Weigh:
        """Return what scores a term in a passage: idf x tf / (tf + k1 x (1 - b + b x length / mean length))."""
        k1, b = self._settings.k1, self._settings.b
        rarity = idf(found_in, len(lengths))
        mean = lengths.mean() if lengths.any() else 1.0
        slowness = k1 * ((1 - b) + b * lengths / mean)
        return lambda terms, passages, times: rarity[terms] * (times / (slowness[passages] + times))


class _Terms(dict[str, int]):
    """Word -> the number of its term, -1 for a word that does not count; a word is analysed when it is first met.

    A dictionary that fills itself, because looking words up is most of the work and this is done without a call.
    """

    def __init__(self, language: Analysis) -> None:
        self.known: dict[str, int] = {}
        self._term = language.term

    def __missing__(self, word: str) -> int:
        term = self._term(word)
        self[word] = self.known.setdefault(term, len(self.known)) if term else -1
        return self[word]


def _numbers(texts: Iterable[list[str]], terms: _Terms) -> tuple[Array, Array]:
    """Return the terms of all texts as numbers, one after another, and how many each text has."""
    words = list(texts)
    numbers = np.fromiter(map(terms.__getitem__, chain.from_iterable(words)), np.int32)
    owners = np.repeat(np.arange(len(words)), [len(one) for one in words])
    counts = numbers >= 0
    return numbers[counts], np.bincount(owners[counts], minlength=len(words))


def _number(word: str, language: Analysis, postings: Postings) -> int:
    term = language.term(word)
    return postings.number(term) if term else -1
