"""The same text twice: passages by their normal form, questions by theirs. Near-duplicates are in questions.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from data_builders.hygiene.forms import digest, normal_form, question_form
from data_builders.hygiene.splits import HELD_OUT, Asked
from data_builders.manifest import Tally

Array = np.ndarray[Any, Any]
_BLOCK = 8192
_LARGEST_RUN = 1 << 22


def duplicate_of(texts: Iterable[str], form: Callable[[str], str] = normal_form) -> Iterator[int]:
    """Yield for each text the place (from 0) of the first text with the same `form`, its own if it is the first.

    Streams. A different text stays in memory as 24 bytes (a 128-bit digest and its place), up to 400 MB more while
    tables are merged. Results lag behind the texts by a block.
    """
    seen, place = _Seen(), 0
    stream = iter(texts)
    while block := list(islice(stream, _BLOCK)):
        digests = b"".join(digest(form(text), 16) for text in block)
        yield from seen.first_places(np.frombuffer(digests, np.uint64).reshape(-1, 2), place).tolist()
        place += len(block)


class _Seen:
    """Digests and their places in a few sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[tuple[Array, Array, Array]] = []

    def first_places(self, digests: Array, start: int) -> Array:
        """Return the first place of each digest, numbered from `start`, and remember the new ones.

        A run is searched by the first 64 bits; if the others differ, a text counts as new.
        """
        _, first, back = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        places = first + start
        unique = digests[first]
        for heads, tails, known in self._runs:
            at = np.minimum(np.searchsorted(heads, unique[:, 0]), len(heads) - 1)
            same = (heads[at] == unique[:, 0]) & (tails[at] == unique[:, 1])
            places[same] = known[at[same]]
        new = places >= start
        self._add(unique[new], places[new])
        return places[back.reshape(-1)]

    def _add(self, digests: Array, places: Array) -> None:
        run = (digests[:, 0], digests[:, 1], places)
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]) and len(run[0]) < _LARGEST_RUN:
            older = self._runs.pop()
            heads, tails, known = (np.concatenate(pair) for pair in zip(older, run, strict=True))
            run = (heads, tails, known)
        if len(run[0]):
            order = np.argsort(run[0])
            self._runs.append((run[0][order], run[1][order], run[2][order]))


def repeated_questions(questions: Sequence[Asked], tally: Tally) -> list[bool]:
    """Tell which questions ask again, word for word (`question_form`), what another one asks; count them by reason.

    The one kept is that of test, then of validation, then of train, then one without a split; of these the first.
    """
    order = sorted(range(len(questions)), key=lambda place: (_rank(questions[place].split), place))
    repeated = [False] * len(questions)
    for number, first in enumerate(duplicate_of((questions[place].question for place in order), question_form)):
        if first != number:
            asked, kept = questions[order[number]], questions[order[first]]
            repeated[order[number]] = True
            tally.drop(_reason(asked, kept), sample=asked.id)
    return repeated


def _rank(split: str) -> int:
    order = (*HELD_OUT, "train")
    return order.index(split) if split in order else len(order)


def _reason(asked: Asked, kept: Asked) -> str:
    ours, theirs = ({question_form(answer) for answer in one.answers} for one in (asked, kept))
    agree = ours & theirs or ours == theirs
    what = "questions asked twice" if agree else "questions asked twice with other answers"
    return what if asked.split == kept.split else f"{what}, in two splits"
