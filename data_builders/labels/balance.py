"""Judgements that a writer left out, how many there are of either kind, and labels of one kind that are too many.

Judges no label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from math import floor

from data_builders.files import seeded
from data_builders.manifest import Tally
from data_builders.records import ContextQuestion, ContextRow, Label, Passage, Relevance

_ROUNDING = 1e-9
_FAR = 0.1
"""How far the share of abstentions kept may be from that asked for before the report says so."""


def with_all_judged(label: Label, passages: Sequence[Passage]) -> Label:
    """Return a label that judges every shown passage once, in their order: those left out are not relevant."""
    told = {item.passage: item for item in reversed(label.relevance)}
    judged = (told.get(index) or _passed_over(index, passage) for index, passage in enumerate(passages))
    return replace(label, relevance=tuple(judged))


def _passed_over(index: int, passage: Passage) -> Relevance:
    about = passage.title.strip() or "something else"
    return Relevance(index, False, f"It is about {about} and does not answer the question.")


def count_judgements(label: Label, tally: Tally) -> None:
    """Count both kinds of judgement, which training needs: what matters, and what only looks as if it did."""
    for item in label.relevance:
        tally.count(f"passages judged {'relevant' if item.relevant else 'irrelevant'}")


@dataclass(frozen=True)
class Surplus:
    """Labels of which gates let through too many, and how many of them may stay."""

    abstaining: bool
    most: int


def surplus(asked: tuple[int, int], kept: tuple[int, int], bound: float) -> Surplus | None:
    """Find what gates have brought out of balance: how often a model is taught to abstain.

    Args:
        asked: labels wanted of contexts with evidence, and without.
        kept: those let through.
        bound: how far the share of abstentions kept may be from that asked for.

    Returns:
        None where it is within the bound, or where one kind is missing altogether, so that nothing can balance it.
    """
    if not all(asked) or not all(kept):
        return None
    wanted, found = asked[1] / sum(asked), kept[1] / sum(kept)
    if abs(found - wanted) <= bound:
        return None
    share = wanted + bound if found > wanted else max(wanted - bound, 0.0)
    if found > wanted:
        return Surplus(True, floor(kept[0] * share / (1 - share) + _ROUNDING)) if share < 1 else None
    return Surplus(False, floor(kept[1] * (1 - share) / share + _ROUNDING)) if share else None


def balanced(read: Callable[[], Iterable[ContextRow]], found: Surplus, seed: int, tally: Tally) -> Iterator[ContextRow]:
    """Yield rows without the questions that are too many, drawn by seed, row and question; count them.

    Args:
        read: gives the labelled rows from the first; it is called twice.
        found: which kind is too many.
        seed: of the build.
        tally: takes what is left out.
    """
    drawn = nsmallest(
        found.most, (_lot(row, one, seed) for row in read() for one in row.questions if _is_of(found, one))
    )
    last = drawn[-1] if drawn else (-1.0, "", "")
    kind = "abstentions" if found.abstaining else "answers"
    for row in read():
        stays = tuple(one for one in row.questions if not _is_of(found, one) or _lot(row, one, seed) <= last)
        if len(stays) < len(row.questions):
            gone = len(row.questions) - len(stays)
            tally.drop(f"{kind} that would outweigh the others (data.labels.balance)", gone, row.id)
        if stays:
            yield replace(row, questions=stays)


def _is_of(found: Surplus, asked: ContextQuestion) -> bool:
    """Tell whether a question has a written label of the kind that is too many."""
    written = asked.label is not None and asked.label_source != "gold"
    return written and asked.label is not None and (asked.label.answer is None) is found.abstaining


def _lot(row: ContextRow, asked: ContextQuestion, seed: int) -> tuple[float, str, str]:
    return seeded(seed, "labels balance", row.id, asked.id).random(), row.id, asked.id


def advise_on_balance(asked: tuple[int, int], kept: tuple[int, int], tally: Tally) -> None:
    """Say where gates have changed how often a model is taught to abstain.

    Args:
        asked: labels wanted of contexts with evidence, and without.
        kept: those kept.
        tally: takes the advice.
    """
    if not all(map(sum, (asked, kept))):
        return
    before, after = asked[1] / sum(asked), kept[1] / sum(kept)
    if abs(after - before) > _FAR:
        tally.advice.append(
            f"{before:.0%} of the labels asked for were to abstain, and {after:.0%} of those kept do: the model would "
            "learn to decline more or less often than you set with contexts.gold_probability. "
            "data.labels.rejected=gold keeps the balance."
        )
