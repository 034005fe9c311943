"""Counterfactual passages: gold that states the answer of another question in place of its own (RGB, arXiv 2309.01431).

Nothing is written by a model: the answer is replaced where it stands word by word, so a sentence may read oddly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from data_builders.files import seeded
from data_builders.hangul import is_hangul
from data_builders.mentions import restated
from data_builders.records import Pool, PoolPassage
from data_builders.text import answer_tokens, contains_answer, is_unspaced

NO_PLANT = ""
_MARK = "#planted="
_TRIES = 50

Shape = tuple[str, ...]


def shape_of(answer: str) -> Shape:
    """Return what an answer looks like, word by word: digits and how many, capitalised, lower case, or another script.

    "12 May 1990" is ("2 digits", "capital", "4 digits"), "1990년 서울" ("4 digits년", "hangul").
    """
    return tuple(_word_shape(word) for word in answer.split())


def _word_shape(word: str) -> str:
    digits = sum(map(str.isdigit, word))
    if digits:
        return f"{digits} digits{''.join(filter(is_hangul, word))}"
    if is_hangul(word):
        return "hangul"
    if is_unspaced(word):
        return "unspaced"
    return "capital" if word[:1].isupper() else "lower"


@dataclass(frozen=True)
class Plants:
    """The first answers of all questions of a split, by their shape."""

    by_shape: dict[Shape, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, pools: Iterable[Pool]) -> Plants:
        """Gather the answers of pools; those without any give none."""
        found: dict[Shape, dict[str, None]] = {}
        for pool in pools:
            for answer in pool.answers[:1]:
                found.setdefault(shape_of(answer), {})[answer] = None
        return cls({shape: list(answers) for shape, answers in found.items()})

    def plant(self, pool: Pool, seed: int) -> str:
        """Return an answer of another question, of the shape of this one's first; NO_PLANT where there is none.

        It is none that would count as right here, nor holds an accepted answer or stands in one, in the question or in
        the gold passages; and there is a word in it.
        """
        candidates = self.by_shape.get(shape_of(pool.answers[0]), []) if pool.answers else []
        if not candidates:
            return NO_PLANT
        rng = seeded(seed, "counterfactual", pool.id)
        drawn = rng.sample(candidates, min(_TRIES, len(candidates)))
        known = [pool.question, *pool.answers, *(f"{one.title}\n{one.text}" for one in pool.passages if one.is_gold)]
        return next((answer for answer in drawn if _is_other(answer, pool.answers, known)), NO_PLANT)


def _is_other(answer: str, accepted: Sequence[str], known: Iterable[str]) -> bool:
    stands = any(contains_answer(text, [answer]) for text in known)
    return bool(answer_tokens(answer)) and not stands and not contains_answer(answer, accepted)


def altered(passage: PoolPassage, answers: Sequence[str], planted: str) -> PoolPassage:
    """Return a passage whose mentions of accepted answers are `planted`, its id marked; itself where there are none."""
    title, text = (restated(one, answers, planted) for one in (passage.title, passage.text))
    if (title, text) == (passage.title, passage.text):
        return passage
    return replace(passage, id=f"{passage.id}{_MARK}{planted}", title=title, text=text, has_answer=False)


def original_id(passage_id: str) -> str:
    """Return the id that a passage has in its pool, for one that was altered."""
    return passage_id.partition(_MARK)[0]
