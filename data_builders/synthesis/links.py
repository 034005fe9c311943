"""Pairs of passages for questions of two hops: the rare title of one stands in the other. Asks nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from data_builders.files import seeded
from data_builders.hangul import is_hangul
from data_builders.records import Passage
from data_builders.text import answer_kind, contains_answer, joined

_LONGEST = 8  # tokens of a title that is a name
_REMEMBERED = 8  # passages of one title among which a partner is drawn
_COMMON = 0.05  # share of the passages looked at from which on a title is no rare name
_FEW = 3  # passages that may hold a title, however few were looked at


@dataclass(frozen=True)
class Link:
    """The other passage of a pair, by position, and the name that both speak of."""

    position: int
    name: str


def linked(passages: Sequence[Passage], wanted: Iterable[int], sources: Collection[str], seed: int) -> dict[int, Link]:
    """Return a partner for each wanted position that has one: a passage whose title stands in its text.

    Of several titles the one that the fewest wanted passages hold is taken, of several passages of that title one
    drawn by the seed. A pair is never of one title, of two sources, or of two splits.

    Args:
        passages: the corpus.
        wanted: positions to find partners for.
        sources: names of sources, where they stand before the ids.
        seed: of the recipe.
    """
    titles = _Titles(passages, sources)
    found = {position: list(titles.inside(passages[position])) for position in wanted}
    mentions = Counter(title for names in found.values() for title in names)
    limit = max(_FEW, _COMMON * len(found))
    links = {}
    for position, names in found.items():
        for title in sorted((one for one in names if mentions[one] <= limit), key=lambda one: (mentions[one], one)):
            partner = titles.partner(title, passages[position], seed)
            if partner is not None:
                links[position] = partner
                break
    return links


class _Titles:
    """Titles that can be names, in the normal form of text.py, and the first passages of each."""

    def __init__(self, passages: Sequence[Passage], sources: Collection[str]) -> None:
        self._passages, self._sources = passages, sources
        self._positions: dict[str, list[int]] = {}
        for position, passage in enumerate(passages):
            form = joined(passage.title).strip()
            if not form or form.count(" ") >= _LONGEST or answer_kind(passage.title) != "strong":
                continue
            known = self._positions.setdefault(form, [])
            if len(known) < _REMEMBERED:
                known.append(position)
        self._longest = max((form.count(" ") + 1 for form in self._positions), default=0)

    def inside(self, passage: Passage) -> Iterator[str]:
        """Yield the titles of other passages that stand in the text of this one, each once."""
        own, seen = joined(passage.title), set[str]()
        tokens = joined(passage.text).split()
        for start in range(len(tokens)):
            for stop in range(start + 1, min(start + self._longest, len(tokens)) + 1):
                for form in _readings(tokens[start:stop]):
                    if form in self._positions and form not in seen and not _of_one_name(f" {form} ", own):
                        seen.add(form)
                        if contains_answer(passage.text, [form]):  # what follows a Korean name must be a particle
                            yield form

    def partner(self, title: str, passage: Passage, seed: int) -> Link | None:
        """Return a passage of that title that can be shown beside this one."""
        fitting = [position for position in self._positions[title] if self._fit(passage, self._passages[position])]
        if not fitting:
            return None
        chosen = seeded(seed, "synthesis/partner", passage.split, passage.id).choice(fitting)
        return Link(chosen, self._passages[chosen].title)

    def _fit(self, one: Passage, other: Passage) -> bool:
        if source_of(one.id, self._sources) != source_of(other.id, self._sources) or one.text == other.text:
            return False
        return not one.split or not other.split or one.split == other.split


def _of_one_name(one: str, other: str) -> bool:
    """Tell whether one title stands in the other, as whole words; both with spaces around their tokens."""
    return bool(one.strip() and other.strip()) and (one in other or other in one)


def _readings(tokens: Sequence[str]) -> Iterator[str]:
    """Yield a run of tokens as it stands and, where Korean particles may end it, without its last signs."""
    yield " ".join(tokens)
    last = tokens[-1]
    if is_hangul(last):
        head = "".join(f"{token} " for token in tokens[:-1])
        yield from (head + last[:length] for length in range(2, len(last)))


def source_of(id_: str, sources: Collection[str]) -> str:
    """Return the name of the source that stands before an id; nothing where no names stand before ids."""
    head, colon, _ = id_.partition(":")
    return head if colon and head in sources else ""
