"""BM25 through bm25s, with ties broken by position so that every machine ranks alike. Knows nothing of pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
import Stemmer
from bm25s.tokenization import Tokenized

from data_builders.records import Passage
from data_builders.retrievers import Bm25Settings

_WORD = r"(?u)\b\w+\b"  # one-letter words and digits count: bm25s' own pattern loses the 7 of "Route 7"


class Bm25:
    """Lucene's BM25 over title and text. Passages that share no term with the query are not returned."""

    def __init__(self, settings: Bm25Settings) -> None:
        self._settings = settings
        self._stemmer = None if settings.stemmer == "none" else Stemmer.Stemmer(settings.stemmer)
        self._bm25: Any = None

    def index(self, passages: Sequence[Passage]) -> None:
        """Build the index in memory. A corpus without a single word is searched in vain, not an error."""
        texts = [f"{passage.title} {passage.text}" for passage in passages]
        tokens: Tokenized = self._tokens(texts, ids=True)
        self._bm25 = None
        if any(tokens.ids):
            self._bm25 = bm25s.BM25(k1=self._settings.k1, b=self._settings.b, method="lucene")
            self._bm25.index(tokens, show_progress=False)

    def search(self, queries: list[str], depth: int) -> list[list[tuple[int, float]]]:
        """Rank the corpus for each query: at most `depth` (position, score), best first."""
        return [self._search_one(words, depth) for words in self._tokens(queries, ids=False)]

    def _search_one(self, words: list[str], depth: int) -> list[tuple[int, float]]:
        known = self._bm25.get_tokens_ids(words) if self._bm25 else []
        if not known:
            return []
        scores = self._bm25.get_scores_from_ids(known)
        best = _best(scores, depth)
        return [(int(position), float(scores[position])) for position in best]

    def _tokens(self, texts: list[str], ids: bool) -> Any:
        if not texts:
            return Tokenized(ids=[], vocab={}) if ids else []
        words = self._settings.stopwords
        return bm25s.tokenize(
            texts,
            token_pattern=_WORD,
            stopwords=[] if words == "none" else words,
            stemmer=self._stemmer,
            return_ids=ids,
            show_progress=False,
        )


def _best(scores: np.ndarray[Any, Any], depth: int) -> np.ndarray[Any, Any]:
    """Return the positions of the `depth` highest positive scores; equal scores keep the order of the corpus.

    bm25s' own top-k leaves ties to numpy's partition, which differs between processors.
    """
    if len(scores) > depth:
        threshold = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        above = np.flatnonzero(scores > threshold)
        ties = np.flatnonzero(scores == threshold)[: depth - len(above)]
        chosen = np.concatenate([above, ties])
    else:
        chosen = np.arange(len(scores))
    chosen = chosen[scores[chosen] > 0]
    return chosen[np.lexsort((chosen, -scores[chosen]))]
