"""Judgements of passages that a writer left out, and how many there are of either kind. Judges no label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data_builders.manifest import Tally
from data_builders.records import Label, Passage, Relevance

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
