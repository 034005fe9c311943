"""What a question is shown at a point of the grid: the passages of a condition, best first or where it puts them.

Composing depends on the pools and the seed only. What a condition asks for and a question cannot give (no gold passage
to move, a retriever that found nothing) is told as a reason, so that whoever composes can count it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_builders.contexts import reordered
from data_builders.files import seeded
from data_builders.records import Pool, PoolPassage
from data_builders.text import AnswerMatcher, joined
from rag_ft.evaluation.conditions import Condition, GoldMode, answers_only_gold
from rag_ft.evaluation.counterfactual import NO_PLANT, Plants, altered

Passages = list[PoolPassage]
_TRIES = 40  # draws for each random passage wanted, before a small collection is given up


@dataclass(frozen=True)
class Composed:
    """The passages of a point in the order composed, and the answer planted in them, if any."""

    passages: tuple[PoolPassage, ...]
    planted: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What composing needs beside a question's own pool.

    Attributes:
        seed: of shuffles, random passages and planted answers.
        others: every pool of the split, the question's own among them.
        documents: for `full_document`, by question id: the passages of the documents its gold was cut from.
        plants: answers of other questions that a counterfactual passage may state.
    """

    seed: int = 0
    others: Sequence[Pool] = ()
    documents: Mapping[str, tuple[PoolPassage, ...]] = field(default_factory=dict)
    plants: Plants = field(default_factory=Plants)


@dataclass(frozen=True)
class _Fill:
    """A pool seen for one condition: which passages count as positive, and what fills the context up, best first."""

    pool: Pool
    positives: Passages
    others: Passages


def sweep_context(pool: Pool, count: int, gold: GoldMode) -> Passages:
    """Return the `count` passages of a sweep point, best first.

    `retrieved` is the top of the ranking as it is. `kept` holds every gold passage that fits: those the top lacks
    take its last places. So a sweep's contexts are prefixes of one another but for those last places.
    """
    if gold == "retrieved":
        return _ranked(pool)[:count]
    needed = _gold(pool)[:count]
    names = {passage.id for passage in needed}
    return _merged(pool, needed, [passage for passage in _ranked(pool) if passage.id not in names], count)


def compose(pool: Pool, condition: Condition, around: Surroundings | None = None) -> Composed | str:
    """Return the context of a question under a condition; a text says why this question has none."""
    around = around or Surroundings()
    if condition.gold in _REFERENCES:
        found = _REFERENCES[condition.gold](pool, around)
        return found if isinstance(found, str) else Composed(tuple(found))
    seen = as_ranked_by(pool, condition.retriever) if condition.retriever else pool
    if not _ranked(seen):
        return f"retriever {condition.retriever} found nothing" if condition.retriever else "the pool is empty"
    if condition.gold == "counterfactual":
        return _counterfactual(seen, condition, around)
    chosen = _chosen(seen, condition, around)
    if not chosen:  # without passages the prompt would be another, which does not offer to decline
        return "no passage without an answer is there to be shown"
    shown = _arranged(chosen, pool.id, condition, around.seed)
    return shown if isinstance(shown, str) else Composed(tuple(shown))


def as_ranked_by(pool: Pool, retriever: str) -> Pool:
    """Return a pool as one retriever alone ranked it, with its scores; gold it did not find stands at the end."""
    places = {passage.id: found for passage in pool.passages for found in passage.found if found.retriever == retriever}
    ranked = [
        replace(passage, retriever=retriever, rank=places[passage.id].rank, score=places[passage.id].score)
        for passage in pool.passages
        if passage.id in places
    ]
    missed = [
        replace(passage, retriever="gold", rank=0, score=0.0)
        for passage in pool.passages
        if passage.is_gold and passage.id not in places
    ]
    return replace(pool, passages=(*sorted(ranked, key=lambda passage: passage.rank), *missed))


def bears_answer(passage: PoolPassage) -> bool:
    """Tell whether a passage holds an answer or may: it is gold, contains one, or the guard kept it off negatives."""
    return passage.is_gold or passage.has_answer or bool(passage.guard)


def _ranked(pool: Pool) -> Passages:
    return [passage for passage in pool.passages if passage.rank > 0]


def _gold(pool: Pool) -> Passages:
    return [passage for passage in pool.passages if passage.is_gold]


def _merged(pool: Pool, positives: Passages, fillers: Passages, count: int) -> Passages:
    """Return positives at the places of their ranks and fillers around them; what is not ranked so high comes last."""
    places = {passage.id: place for place, passage in enumerate(_ranked(pool))}
    shown = fillers[: count - len(positives)]
    for passage in sorted(positives, key=lambda one: places.get(one.id, math.inf)):
        shown.insert(min(places.get(passage.id, len(shown)), len(shown)), passage)
    return shown


def _chosen(pool: Pool, condition: Condition, around: Surroundings) -> Passages:
    """Return the passages of a condition, positives at their ranks."""
    count, clean = condition.passages, answers_only_gold(condition.gold, condition.position, condition.noise)
    if condition.negatives == "ranked" and not clean:
        return sweep_context(pool, count, condition.gold)
    fill = _Fill(pool, _positives(pool, condition), _negatives(pool, condition, around))
    if condition.noise is None:
        return _merged(pool, fill.positives[:count], fill.others, count)
    # where positives are too few, noise takes their places, as in RGB
    positives = count - noise_of(count, condition.noise)
    return _merged(pool, fill.positives[:positives], fill.others, count)


def noise_of(count: int, share: float) -> int:
    """Return how many of `count` passages are to hold no answer: ceil(n * rate) in RGB."""
    return math.ceil(round(count * share, 6))


def _positives(pool: Pool, condition: Condition) -> Passages:
    if condition.gold == "absent":
        return []
    if condition.noise is None:
        return _gold(pool)
    return [*_gold(pool), *(one for one in _ranked(pool) if one.has_answer and not one.is_gold)]


def _negatives(pool: Pool, condition: Condition, around: Surroundings) -> Passages:
    """Return passages without an answer, in the order in which they fill a context up."""
    if condition.negatives == "random":
        return random_passages(pool, condition.passages, around)
    own = [passage for passage in _ranked(pool) if not bears_answer(passage)]
    return own[::-1] if condition.negatives == "weak" else own


def random_passages(pool: Pool, count: int, around: Surroundings) -> Passages:
    """Return up to `count` passages of other questions' pools that hold no accepted answer of this question.

    Fewer passages are the first of more, so that a sweep's contexts begin alike. No retriever ranked them for this
    question: their rank is 0, their score that of the pool's last, which is the most it can have been.
    """
    others = [other for other in around.others if other.id != pool.id and other.passages]
    if not others:
        return []
    rng = seeded(around.seed, "random passages", pool.id)
    matcher = AnswerMatcher.of(pool.answers, pool.question)
    taken, found = {passage.id for passage in pool.passages}, Passages()
    lowest = min((passage.score for passage in _ranked(pool)), default=0.0)
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        passage = rng.choice(rng.choice(others).passages)
        if passage.id not in taken and not matcher.bears(joined(f"{passage.title}\n{passage.text}")):
            taken.add(passage.id)
            # what it was to its own question, it is not to this one
            clean = replace(passage, is_gold=False, has_answer=False, guard="", found=())
            found.append(replace(clean, retriever="random", rank=0, score=lowest))
    return found


def _counterfactual(pool: Pool, condition: Condition, around: Surroundings) -> Composed | str:
    """Compose as with gold kept, among passages without an answer; then the gold states another one.

    All gold passages are looked at, shown or not: a question that has this at one count has it at every larger one.
    """
    gold, matcher = _gold(pool), AnswerMatcher.of(pool.answers, "")
    if not gold:
        return "the pool names no gold passage"
    if matcher.is_empty:
        return "no passage could state its accepted answers (there is none, or yes or no)"
    planted = around.plants.plant(pool, around.seed)
    if planted is NO_PLANT:
        return "no answer of another question is of like shape"
    changed = {passage.id: altered(passage, pool.answers, planted) for passage in gold}
    if any(matcher.bears(joined(f"{one.title}\n{one.text}")) for one in changed.values()):
        return "a gold passage states an accepted answer in other words, too"
    gold = gold[: condition.passages]
    if all(changed[passage.id].text == passage.text for passage in gold):
        return "no gold passage states an accepted answer in so many words"
    chosen = _merged(pool, gold, _negatives(pool, condition, around), condition.passages)
    shown = _arranged([changed.get(one.id, one) for one in chosen], pool.id, condition, around.seed)
    return shown if isinstance(shown, str) else Composed(tuple(shown), planted)


def _arranged(passages: Passages, question_id: str, condition: Condition, seed: int) -> Passages | str:
    """Return passages in the order of the condition, gold where it is put; a text where there is none to put."""
    if condition.order == "reordered":
        passages = reordered(passages)
    elif condition.order == "shuffled":
        passages = list(passages)
        seeded(seed, "shuffle", question_id, condition.draw).shuffle(passages)
    if condition.position is None:
        return passages
    gold = [passage for passage in passages if passage.is_gold]
    others = [passage for passage in passages if not passage.is_gold]
    place = math.floor(condition.position * len(others) + 0.5)
    return [*others[:place], *gold, *others[place:]] if gold else "no gold passage is shown that could be moved"


def _gold_only(pool: Pool, around: Surroundings) -> Passages | str:
    return _gold(pool) or "the pool names no gold passage"


def _full_document(pool: Pool, around: Surroundings) -> Passages | str:
    return list(around.documents.get(pool.id, ())) or "no document is named that its gold was cut from"


_REFERENCES: dict[str, Callable[[Pool, Surroundings], Passages | str]] = {
    "closed_book": lambda pool, around: [],
    "gold_only": _gold_only,
    "full_document": _full_document,
}
