"""How good each retriever is on a split: recall, precision, answers, overlap. Counts in shards, shares at the end."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from data_builders.manifest import Tally
from data_builders.retrievers import Found

CUTOFFS = (1, 2, 5, 10, 20, 50)
_OVERLAP = 10  # two retrievers are compared by their first ten


def count_quality(found: Mapping[str, Found], gold: set[int], bearing: set[int], tally: Tally) -> None:
    """Add one question's results to the sums kept under `quality` of the tally.

    `found` is what each retriever found, best first; `gold` and `bearing` are positions of passages that are gold and
    that contain an accepted answer. A question without gold counts for answers only.
    """
    sums = tally.counts.setdefault("quality", {"retrievers": {}, "overlap": {}})
    tops = {name: one.positions.tolist() for name, one in found.items()}
    for name, ranked in tops.items():
        _count(sums["retrievers"].setdefault(name, {}), ranked, gold, bearing)
    for one, other in combinations(tops, 2):
        pair = sums["overlap"].setdefault(f"{one} and {other}", {"same": 0, "of": 0})
        pair["same"] += len(set(tops[one][:_OVERLAP]) & set(tops[other][:_OVERLAP]))
        pair["of"] += min(_OVERLAP, max(len(tops[one]), len(tops[other])))


def _count(sums: dict[str, Any], ranked: list[int], gold: set[int], bearing: set[int]) -> None:
    sums["questions"] = sums.get("questions", 0) + 1
    sums["with gold"] = sums.get("with gold", 0) + bool(gold)
    for name in ("all gold", "any gold", "golds", "answers", "bearing", "negatives"):
        sums.setdefault(name, {str(cutoff): 0 for cutoff in CUTOFFS})
    for cutoff in CUTOFFS:
        top, key = ranked[:cutoff], str(cutoff)
        hits = sum(passage in gold for passage in top)
        sums["golds"][key] += hits
        sums["all gold"][key] += bool(gold) and hits == len(gold)
        sums["any gold"][key] += hits > 0
        sums["answers"][key] += any(passage in bearing for passage in top)
        if len(ranked) >= cutoff and ranked[cutoff - 1] not in gold:
            sums["negatives"][key] += 1
            sums["bearing"][key] += ranked[cutoff - 1] in bearing


def quality_report(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Turn sums into what a person reads: shares by cutoff and by rank."""
    report: dict[str, Any] = {name: _shares(one) for name, one in sums["retrievers"].items()}
    for pair, counts in sums["overlap"].items():
        report[f"share of the first {_OVERLAP} in common: {pair}"] = round(counts["same"] / max(1, counts["of"]), 4)
    return report


def _shares(sums: Mapping[str, Any]) -> dict[str, Any]:
    gold, asked = max(1, sums["with gold"]), max(1, sums["questions"])
    return {
        "recall (all gold in the top k)": _by_cutoff(sums["all gold"], gold),
        "any gold in the top k": _by_cutoff(sums["any gold"], gold),
        "precision (gold among the top k)": {
            key: round(value / (gold * int(key)), 4) for key, value in sums["golds"].items()
        },
        "answer in the top k": _by_cutoff(sums["answers"], asked),
        "share of negatives at rank k that bear the answer": {
            key: round(value / max(1, sums["negatives"][key]), 4) for key, value in sums["bearing"].items()
        },
    }


def _by_cutoff(counts: Mapping[str, int], total: int) -> dict[str, float]:
    return {key: round(value / total, 4) for key, value in counts.items()}
