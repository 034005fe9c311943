"""Which questions an evaluation set already holds, by their wording and by their gold passages. Drops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from data_builders.hygiene.forms import digest64, question_form
from data_builders.hygiene.questions import WordSets, near_pairs, word_hash, word_set
from data_builders.hygiene.settings import HygieneSettings
from data_builders.records import Passage, Question, Ranking
from data_builders.text import answer_tokens

Array = np.ndarray[Any, Any]
Record = Passage | Question | Ranking
_BLOCK = 8192
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing modulo 2**64


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of an evaluation set; its texts are not kept.

    Attributes:
        wordings: of every question's `question_form`, sorted.
        words: the word sets of the questions.
        ngrams: of the gold passages, sorted; empty where passages are not compared.
    """

    wordings: Array
    words: WordSets
    ngrams: Array

    @classmethod
    def of(cls, questions: Iterable[str], gold_texts: Iterable[str], settings: HygieneSettings) -> Fingerprints:
        """Hash questions and gold passages, both streamed, in any order.

        8 bytes per question, per different word of a question and per different n-gram stay in memory.
        """
        wordings: list[int] = []

        def sets() -> Iterator[tuple[int, Array]]:
            for place, question in enumerate(questions):
                wordings.append(digest64(question_form(question)))
                yield place, word_set(question)

        words = WordSets.of(sets())
        return cls(np.unique(np.array(wordings, np.uint64)), words, _all_ngrams(gold_texts, settings))

    @classmethod
    def of_source(cls, records: Callable[[], Iterable[Record]], settings: HygieneSettings) -> Fingerprints:
        """Hash the questions of a source and their gold passages; those it puts in `train` are passed over.

        Args:
            records: streams the source; called three times, so that only the ids of gold passages are kept meanwhile.
            settings: what is compared.
        """

        def questions() -> Iterator[Question]:
            return (one for one in records() if isinstance(one, Question) and one.split != "train")

        gold = {name for question in questions() for name in question.gold}
        texts = (one.text for one in records() if isinstance(one, Passage) and one.id in gold)
        return cls.of((question.question for question in questions()), texts if settings.passages else (), settings)

    def contaminated(self, question: str, gold_texts: Sequence[str], settings: HygieneSettings) -> str:
        """Return why a question is contaminated, empty if it is not; `contaminations` does many at once, faster."""
        return next(contaminations([(question, gold_texts)], {"it": self}, settings), "")


def contaminations(
    records: Iterable[tuple[str, Sequence[str]]], against: Mapping[str, Fingerprints], settings: HygieneSettings
) -> Iterator[str]:
    """Yield for each (question, texts of its gold passages) why it has to go, empty if it may stay; in order.

    A reason names the first evaluation set that holds it, in the order of `against`, and the first of: the same
    question, a near-duplicate of one, a gold passage with `settings.ngram` words in a row of one of its gold passages.
    Texts with fewer words are compared whole. Works in blocks of a few thousand, so reasons lag behind the records.
    """
    stream = iter(records)
    while block := list(islice(stream, _BLOCK)):
        reasons = [""] * len(block)
        wordings = np.array([digest64(question_form(question)) for question, _ in block], np.uint64)
        sets = WordSets.of((place, word_set(question)) for place, (question, _) in enumerate(block))
        ngrams = _ngrams_of([texts for _, texts in block], settings)
        for name, known in against.items():
            _note(reasons, _in(wordings, known.wordings), f"the same question is in {name}")
            _note(reasons, _with_partner(sets, known.words, settings, len(block)), f"near-duplicate question in {name}")
            owners = ngrams[0][_in(ngrams[1], known.ngrams)]
            shared = np.bincount(owners, minlength=len(block)) > 0
            _note(reasons, shared, f"gold passage shares {settings.ngram} words with one of {name}")
        yield from reasons


def _note(reasons: list[str], found: Array, reason: str) -> None:
    for place in np.flatnonzero(found).tolist():
        reasons[place] = reasons[place] or reason


def _with_partner(sets: WordSets, known: WordSets, settings: HygieneSettings, count: int) -> Array:
    found = np.zeros(count, bool)
    for here, _ in near_pairs(sets, known, settings.near_duplicate, lambda left, right: ~found[left]):
        found[here] = True
    return found


def _in(values: Array, known: Array) -> Array:
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def _all_ngrams(texts: Iterable[str], settings: HygieneSettings) -> Array:
    """Return the sorted different n-gram hashes of streamed texts."""
    known, stream = np.array([], np.uint64), iter(texts)
    fresh: list[Array] = []
    while block := list(islice(stream, _BLOCK)):
        fresh.append(np.unique(_ngrams_of([[text] for text in block], settings)[1]))
        if sum(map(len, fresh)) > len(known):
            known, fresh = np.unique(np.concatenate([known, *fresh])), []
    return np.unique(np.concatenate([known, *fresh]))


def _ngrams_of(texts: Sequence[Sequence[str]], settings: HygieneSettings) -> tuple[Array, Array]:
    """Return (which entry of `texts`, hash) of every n-gram; a shorter text is one n-gram of its own length."""
    owners: list[Array] = [np.array([], np.int64)]
    hashes: list[Array] = [np.array([], np.uint64)]
    known: dict[str, Array] = {}  # many questions have the same gold passage
    for owner, group in enumerate(texts if settings.passages else ()):
        for text in group:
            if text not in known:
                known[text] = ngram_hashes(answer_tokens(text), settings.ngram)
            hashes.append(known[text])
            owners.append(np.full(len(known[text]), owner))
    return np.concatenate(owners), np.concatenate(hashes)


def ngram_hashes(tokens: Sequence[str], width: int) -> Array:
    """Return a 64-bit hash of every `width` tokens in a row, of all tokens if they are fewer; nothing of no tokens."""
    width = min(width, len(tokens))
    words = np.array([word_hash(token) for token in tokens], np.uint64)
    if not width:
        return words
    rolled = np.full(len(words) - width + 1, width, np.uint64)
    for offset in range(width):
        rolled = rolled * np.uint64(_FACTOR) + words[offset : offset + len(rolled)]
    return rolled
