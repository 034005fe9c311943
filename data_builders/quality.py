"""How good each retriever is on a split: recall, precision, answers, overlap. Counts in shards, shares at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from data_builders.manifest import Tally
from data_builders.retrievers import Found

CUTOFFS = (1, 2, 5, 10, 20, 50)
MERGED = "merged"  # what the one ranking out of several is called beside them
_ALL = "all"  # everything that was found, however deep
_OVERLAP = 10  # two retrievers are compared by their first ten
_RECALL = "recall (all gold in the top k)"
_FINE = 0.9  # of the questions: below it the report says what to change
_REMEDY = "Raise data.depth, set the language of your passages in data.retrievers, or add a dense retriever."


@dataclass(frozen=True)
class Relevant:
    """What is known of a question's passages, by position.

    Attributes:
        gold: those that are needed.
        spared: gold and its alternatives: never negatives, whatever they hold.
        bearing: those that contain an accepted answer.
    """

    gold: set[int]
    spared: set[int]
    bearing: set[int]


def count_quality(found: Mapping[str, Found], merged: Sequence[int], known: Relevant, tally: Tally) -> None:
    """Add one question's results to the sums kept under `quality` of the tally.

    `found` is what each retriever found and `merged` the one ranking out of several, best first. A question without
    gold counts for answers only.
    """
    sums = tally.counts.setdefault("quality", {"retrievers": {}, "overlap": {}})
    tops = {name: one.positions.tolist() for name, one in found.items()}
    rankings = [*tops.items()]
    if len(tops) > 1:
        rankings.append((MERGED if MERGED not in tops else f"{MERGED} (all)", merged))
    for name, ranked in rankings:
        _count(sums["retrievers"].setdefault(name, {}), ranked, known)
    for one, other in combinations(tops, 2):
        pair = sums["overlap"].setdefault(f"{one} and {other}", {"same": 0, "of": 0})
        pair["same"] += len(set(tops[one][:_OVERLAP]) & set(tops[other][:_OVERLAP]))
        pair["of"] += min(_OVERLAP, max(len(tops[one]), len(tops[other])))


def _count(sums: dict[str, Any], ranked: Sequence[int], known: Relevant) -> None:
    gold, bearing = known.gold, known.bearing
    sums["questions"] = sums.get("questions", 0) + 1
    sums["with gold"] = sums.get("with gold", 0) + bool(gold)
    for name in ("all gold", "any gold", "golds", "answers", "bearing", "negatives", "reached"):
        sums.setdefault(name, dict.fromkeys((*map(str, CUTOFFS), _ALL), 0))
    for key, top in [*((str(cutoff), ranked[:cutoff]) for cutoff in CUTOFFS), (_ALL, ranked)]:
        hits = sum(passage in gold for passage in top)
        sums["golds"][key] += hits
        sums["all gold"][key] += bool(gold) and hits == len(gold)
        sums["any gold"][key] += hits > 0
        sums["answers"][key] += any(passage in bearing for passage in top)
    for cutoff in CUTOFFS:
        if len(ranked) >= cutoff:
            last, key = ranked[cutoff - 1], str(cutoff)
            sums["reached"][key] += 1
            sums["negatives"][key] += last not in known.spared
            sums["bearing"][key] += last not in known.spared and last in bearing


def quality_report(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Turn sums into what a person reads: shares by cutoff and by rank, as deep as the rankings go."""
    report: dict[str, Any] = {name: _shares(one) for name, one in sums["retrievers"].items()}
    for pair, counts in sums["overlap"].items():
        report[f"share of the first {_OVERLAP} in common: {pair}"] = round(counts["same"] / max(1, counts["of"]), 4)
    return report


def advise_on_recall(report: Mapping[str, Any], split: str, tally: Tally) -> None:
    """Say what to change where the best retriever misses gold of many questions; the remedy stands once, at the end."""
    found = {name: one[_RECALL][_ALL] for name, one in report.items() if isinstance(one, dict)}
    best = max(found, key=lambda name: found[name])
    if found[best] < _FINE:
        missed = f"{best} does not find all gold passages of {100 * (1 - found[best]):.0f} % of the {split} questions."
        tally.advice[:] = [*(line for line in tally.advice if line != _REMEDY), missed, _REMEDY]


def _shares(sums: Mapping[str, Any]) -> dict[str, Any]:
    gold, asked = max(1, sums["with gold"]), max(1, sums["questions"])
    reached = [str(cutoff) for cutoff in CUTOFFS if sums["reached"][str(cutoff)]]

    def shares(counts: Mapping[str, int], total: int) -> dict[str, float]:
        return {key: round(counts[key] / total, 4) for key in (*reached, _ALL)}

    return {
        _RECALL: shares(sums["all gold"], gold),
        "any gold in the top k": shares(sums["any gold"], gold),
        "precision (gold among the top k)": {key: round(sums["golds"][key] / (gold * int(key)), 4) for key in reached},
        "answer in the top k": shares(sums["answers"], asked),
        "share of negatives at rank k that bear the answer": {
            key: round(sums["bearing"][key] / max(1, sums["negatives"][key]), 4) for key in reached
        },
    }
