"""Which split a question goes to: groups that share a document, a title or a wording stay together. Drops no text."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_builders.hygiene.forms import normal_form
from data_builders.hygiene.settings import GroupKey, SplitsSettings
from data_builders.manifest import Tally
from data_builders.records import Passage, Question

if TYPE_CHECKING:
    import numpy as np

HELD_OUT = ("test", "validation")  # what training must not see, the stricter first
_WHAT: dict[str, str] = {
    "document": "a gold document",
    "title": "a gold title",
    "question": "a near-duplicate question",
}
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What hygiene needs to know of a question.

    Attributes:
        split: where its source puts it, or empty.
        documents: what its gold passages were cut from, named uniquely over all sources.
        titles: of its gold passages; the entity they are about, as far as a title tells.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    split: str = ""
    documents: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()


def asked(question: Question, gold: Iterable[Passage]) -> Asked:
    """Return what hygiene needs of a question with its gold passages; one without a document is a document itself."""
    passages = tuple(gold)
    documents = {f"{question.source}\x1f{passage.document or passage.id}" for passage in passages}
    titles = {normal_form(passage.title) for passage in passages} - {""}
    ordered = tuple(sorted(documents)), tuple(sorted(titles))
    return Asked(question.id, question.question, question.answers, question.split, *ordered)


def assign_splits(
    questions: Sequence[Asked], settings: SplitsSettings, near_duplicate: float, seed: int, tally: Tally
) -> list[str]:
    """Return the split of every question, empty for those to leave out.

    Questions whose source names a split keep it. The others form groups that share a key of `settings.by`, directly or
    through each other. A group that shares a key with a question of a named split follows it, the strictest if there
    are several (test, validation, train). The other groups are put in the order of a hash of (seed, smallest question
    id); the earliest of them whose sizes add up to the share of the test, or to the nearest number that sizes can add
    up to, are the test, then in the same way validation; train is the rest. A share above 0 gets one group at least,
    train too.
    A training question that then shares a key with a held-out question (both named so by their sources) is left out.

    Args:
        questions: ids unique; the result depends on their order in no way.
        settings: shares and keys.
        near_duplicate: Jaccard similarity of words from which questions count as one.
        seed: of the recipe.
        tally: is told the groups, what followed what, what was left out and what looks wrong.
    """
    keys = list(_keys(questions, settings.by, near_duplicate))
    splits = [question.split for question in questions]
    groups = _groups(keys, [place for place, split in enumerate(splits) if not split])
    named = _strictest(keys, splits)
    free: list[list[int]] = []
    for group in groups:
        touched = {named[key] for place in group for key in keys[place] if key in named}
        split = next((name for name in (*HELD_OUT, "train") if name in touched), "")
        if split:
            tally.count(f"questions that follow {split} of their group", len(group), questions[group[0]].id)
            _put(group, split, splits)
        else:
            free.append(group)
    _count_groups(groups, questions, tally)
    _fill(free, questions, splits, settings, seed)
    _advise(groups, keys, splits, settings, tally)
    return _without_leaks(questions, keys, splits, settings, tally)


def _keys(questions: Sequence[Asked], by: Sequence[GroupKey], near_duplicate: float) -> Iterator[tuple[_Key, ...]]:
    alike: Sequence[int] | np.ndarray = range(len(questions))
    if "question" in by:
        from data_builders.hygiene.questions import near_duplicate_groups

        alike = near_duplicate_groups((question.question for question in questions), near_duplicate)
    for question, group in zip(questions, alike, strict=True):
        found: list[_Key] = [("question", str(group))] if "question" in by else []
        found += [("document", document) for document in question.documents if "document" in by]
        found += [("title", title) for title in question.titles if "title" in by]
        yield tuple(found)


def _groups(keys: list[tuple[_Key, ...]], members: list[int]) -> list[list[int]]:
    """Return the members that share keys, directly or through others, by union-find."""
    parent = {place: place for place in members}
    holder: dict[_Key, int] = {}

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for place in members:
        for key in keys[place]:
            parent[root(place)] = root(holder.setdefault(key, place))
    groups: dict[int, list[int]] = defaultdict(list)
    for place in members:
        groups[root(place)].append(place)
    return list(groups.values())


def _strictest(keys: list[tuple[_Key, ...]], splits: list[str]) -> dict[_Key, str]:
    """Return for each key the strictest split of the questions that have it."""
    found: dict[_Key, str] = {}
    for name in ("train", *reversed(HELD_OUT)):
        for place, split in enumerate(splits):
            if split == name:
                found.update(dict.fromkeys(keys[place], name))
    return found


def _put(group: Iterable[int], split: str, splits: list[str]) -> None:
    for place in group:
        splits[place] = split


def _fill(
    free: list[list[int]], questions: Sequence[Asked], splits: list[str], settings: SplitsSettings, seed: int
) -> None:
    """Give every free group a split; see `assign_splits`."""
    shares = {"test": settings.test, "validation": settings.validation}
    whole = sum(not question.split for question in questions)
    placed = Counter(split for question, split in zip(questions, splits, strict=True) if not question.split)
    left = sorted(free, key=lambda group: _hash(seed, min(questions[place].id for place in group)))
    rest = "train" if sum(shares.values()) < 1 else next(name for name in reversed(HELD_OUT) if shares[name])
    for name in (name for name in HELD_OUT if shares[name] and name != rest):
        chosen = nearest_sum([len(group) for group in left], shares[name] * whole - placed[name])
        for number in chosen:
            _put(left[number], name, splits)
        left = [group for number, group in enumerate(left) if number not in chosen]
    for group in left:
        _put(group, rest, splits)


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1fsplits\x1f{name}".encode("utf-8", "surrogatepass")).digest()


def nearest_sum(sizes: Sequence[int], wanted: float) -> set[int]:
    """Choose numbers of `sizes` that add up as nearly to `wanted` as possible, early ones before late ones.

    One at least is chosen (if `wanted` is above 0) and one at least is left. Sums that can be reached are the bits of
    an integer, so 100,000 sizes take a second.
    """
    if wanted <= 0 or len(sizes) < 2:
        return set()
    goal = max(1, int(wanted + 0.5))
    mask = (1 << min(sum(sizes), int(2 * wanted) + 1)) - 1  # further away than 0 is, or all of them: no use
    reached, last = 1, {0: -1}
    for number, size in enumerate(sizes):
        fresh = (reached << size) & mask & ~reached
        reached |= fresh
        while fresh:
            highest = fresh.bit_length() - 1
            last[highest] = number
            fresh ^= 1 << highest
        if reached >> goal & 1:
            break
    best = min((total for total in last if total), key=lambda total: (abs(total - wanted), -total), default=0)
    chosen = set() if best else {min(range(len(sizes)), key=lambda number: sizes[number])}
    while best:
        chosen.add(last[best])
        best -= sizes[last[best]]
    return chosen


def _without_leaks(
    questions: Sequence[Asked], keys: list[tuple[_Key, ...]], splits: list[str], settings: SplitsSettings, tally: Tally
) -> list[str]:
    """Leave out training questions that share a key with a held-out one; count what validation shares with test."""
    held_out = _strictest(keys, [split if split in HELD_OUT else "" for split in splits])
    kept, leaks = list(splits), 0
    for place, question in enumerate(questions):
        shared = next((key for key in keys[place] if _stricter(held_out.get(key, ""), splits[place])), None)
        if shared is None:
            continue
        what = f"{splits[place]} questions that share {_WHAT[shared[0]]} with {held_out[shared]}"
        leaks += splits[place] == "train"
        if splits[place] == "train" and settings.given == "drop":
            tally.drop(what, sample=question.id)
            kept[place] = ""
        else:
            tally.count(f"{what}, kept", sample=question.id)
    whole = splits.count("train")
    if leaks * 20 > whole and settings.given == "drop":
        tally.advice.append(
            f"{leaks} of {whole} training questions share a group with a held-out question, and their sources put them "
            "in training; they were left out. data.splits.given: keep takes the splits of the sources as they are."
        )
    return kept


def _stricter(one: str, other: str) -> bool:
    return one in HELD_OUT and (other not in HELD_OUT or HELD_OUT.index(one) < HELD_OUT.index(other))


def _count_groups(groups: list[list[int]], questions: Sequence[Asked], tally: Tally) -> None:
    if groups:
        largest = max(groups, key=len)
        tally.count("questions without a split", sum(map(len, groups)))
        tally.count("groups of them", len(groups))
        tally.count("largest group", len(largest), min(questions[place].id for place in largest))


def _advise(
    groups: list[list[int]], keys: list[tuple[_Key, ...]], splits: list[str], settings: SplitsSettings, tally: Tally
) -> None:
    """Say so when a group is larger than a share, and what holds it together."""
    largest = max(groups, key=len, default=[])
    whole = sum(map(len, groups))
    shares = {"test": settings.test, "validation": settings.validation}
    for name, share in shares.items():
        if share and len(largest) > max(1, share * whole):
            (kind, value), amount = Counter(key for place in largest for key in keys[place]).most_common(1)[0]
            got = sum(splits[place] == name for group in groups for place in group)
            shown = "" if kind == "question" else f' "{value.split(chr(31))[-1][:60]}"'
            tally.advice.append(
                f"data.splits.{name}: {share:g} of {whole} questions became {got}, for {len(largest)} of them stay "
                f"together ({amount} share {_WHAT[kind]}{shown}). Take {kind} out of data.splits.by to part them, or "
                "give that source splits of its own."
            )
