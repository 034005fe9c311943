"""What the scores say: who is compared, the headline in words. Knows nothing of tables, HTML, Markdown or figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError

REFERENCES = ("closed_book", "gold_only", "full_document")
WITHOUT_ANSWER = ("absent", "counterfactual")
"""Gold modes whose accuracy is no success: their contexts hold no answer, or another one."""
PARTIAL = "Measured on a part of the questions only (--limit). Not for comparison."
NO_BREAK = "\u00a0"
MINUS = "\u2212"
EN_DASH = "\u2013"
_READING_ORDER = ("kept", "retrieved")
_NEXT_AXIS = re.compile(r" (?=(?:position|order|draw|noise|negatives|retriever)=)")  # a retriever's name has spaces
_ABSENT = {"variant": ""}  # what older scores leave out
_TITLES = {
    "kept": "Evidence always shown",
    "retrieved": "Passages as retrieved",
    "closed_book": "No passages",
    "gold_only": "Gold passages alone",
    "full_document": "Full documents",
    "absent": "Evidence never shown",
    "counterfactual": "Evidence states another answer",
    "all": "All questions",
}


@dataclass(frozen=True)
class Comparison:
    """The two systems the headline is about, at the largest count of one gold mode, over all questions.

    `baseline`, `baseline_cell` and `difference` are None where only one system was evaluated.
    """

    gold: str
    passages: int
    system: str
    cell: Mapping[str, Any]
    baseline: str | None
    baseline_cell: Mapping[str, Any] | None
    difference: Mapping[str, Any] | None


@dataclass(frozen=True)
class Headline:
    """The finding as one sentence made of numbers, and the sentences that put it in context."""

    lead: str
    further: tuple[str, ...]


def read_scores(path: Path) -> dict[str, Any]:
    """Read a scores.json.

    Raises:
        RagFtError: the file is missing or is not the JSON that an evaluation writes.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RagFtError(f"cannot read {path}: {error}. Write it with `rag-ft evaluate RECIPE`.") from error
    if not isinstance(scores, dict) or "cells" not in scores:
        raise RagFtError(f"{path} holds no scores: key `cells` is missing. Write it with `rag-ft evaluate RECIPE`.")
    return scores


def title(name: str) -> str:
    """Return how a gold mode or a group is called on the page (`one_hop` becomes "One hop")."""
    words = name.replace("_", " ").strip()
    return _TITLES.get(name, words[:1].upper() + words[1:])


def find(rows: Iterable[Mapping[str, Any]], **keys: Any) -> Mapping[str, Any] | None:
    """Return the first row whose fields equal `keys`, or None; of the main sweep unless `variant` names another."""
    wanted = {"variant": "", **keys}
    return next((row for row in rows if all(row.get(key, _ABSENT.get(key)) == wanted[key] for key in wanted)), None)


def main_sweep(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows at which no axis but gold and count was moved. Rows of older scores name no variant."""
    return [row for row in rows if not row.get("variant")]


def axes_of(variant: str) -> dict[str, str]:
    """Read the other axes of a row: `position=0.5 order=shuffled` becomes two names with their values as text."""
    return dict(part.split("=", 1) for part in _NEXT_AXIS.split(variant)) if variant else {}


def systems_of(scores: Mapping[str, Any]) -> list[str]:
    """Return the systems in the order they were scored."""
    return list(dict.fromkeys(cell["system"] for cell in scores["cells"]))


def groups_of(scores: Mapping[str, Any]) -> list[str]:
    """Return the groups, `all` first. A single group besides `all` says the same as `all` and is left out."""
    names = [name for name in dict.fromkeys(cell["group"] for cell in scores["cells"]) if name != "all"]
    return ["all", *names] if len(names) != 1 else ["all"]


def gold_modes(scores: Mapping[str, Any]) -> list[str]:
    """Return the gold modes of the main sweep, in reading order; references are not among them."""
    found = list(dict.fromkeys(cell["gold"] for cell in main_sweep(scores["cells"])))
    return [gold for gold in _READING_ORDER if gold in found] + [
        gold for gold in found if gold not in _READING_ORDER + REFERENCES + WITHOUT_ANSWER
    ]


def counts_of(scores: Mapping[str, Any], gold: str) -> list[int]:
    """Return the passage counts of one gold mode, ascending."""
    return sorted({cell["passages"] for cell in main_sweep(scores["cells"]) if cell["gold"] == gold})


def main_systems(scores: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the system the page is about and what it is compared with.

    That is `tuned` where a system has this name, else the last one that is compared; its baseline stands in the scores.
    """
    names = systems_of(scores)
    pairs = {row["system"]: row["baseline"] for row in scores["differences"]}
    compared = [name for name in names if name in pairs]
    system = "tuned" if "tuned" in names else next(reversed(compared or names), None)
    return system, pairs.get(system) if system else None


def by_importance(scores: Mapping[str, Any]) -> list[str]:
    """Return the systems, the headline system and its baseline first: a system has this number in every figure."""
    system, baseline = main_systems(scores)
    return sorted(systems_of(scores), key=lambda name: (name != system, name != baseline))


def headline_point(scores: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the gold mode the page is about and its largest count; None where nothing was swept."""
    golds = gold_modes(scores)
    return (golds[0], counts_of(scores, golds[0])[-1]) if golds else None


def comparison(scores: Mapping[str, Any], gold: str) -> Comparison | None:
    """Return the headline pair at the largest count of `gold`, or None where it was not scored."""
    counts, (system, baseline) = counts_of(scores, gold), main_systems(scores)
    if not counts or system is None:
        return None
    at = {"gold": gold, "passages": counts[-1], "group": "all"}
    cell = find(scores["cells"], system=system, **at)
    if cell is None:
        return None
    other = find(scores["cells"], system=baseline, **at) if baseline else None
    difference = find(scores["differences"], system=system, baseline=baseline, **at) if other else None
    return Comparison(gold, counts[-1], system, cell, baseline if other else None, other, difference)


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as a number of percent, without the sign: 0.8667 becomes "86.7"."""
    return f"{round(100 * share, decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def points(share: float, decimals: int = 1) -> str:
    """Return a difference of shares as signed percentage points: 0.74 becomes "+74.0"."""
    number = percent(share, decimals)
    return number if number.startswith(MINUS) or float(number) == 0 else f"+{number}"


def interval(estimate: Mapping[str, float], decimals: int = 1, signed: bool = False) -> str:
    """Return an interval as "81.3 to 91.3"; with `signed`, numbers carry a sign unless it lies above zero."""
    write = points if signed and estimate["low"] <= 0 else percent
    return f"{write(estimate['low'], decimals)} to {write(estimate['high'], decimals)}"


def level(scores: Mapping[str, Any]) -> str:
    """Return the level of the intervals as "95 %"."""
    return f"{100 * scores['confidence']:g}{NO_BREAK}%"


def intervals_text(scores: Mapping[str, Any]) -> str:
    """Return how the intervals were made: "95 % bootstrap intervals over questions (5,000 resamples)"."""
    kind = "BCa bootstrap" if scores.get("interval") == "bca" else "bootstrap"
    drawn = "documents, each with all questions about it" if by_document(scores) else "questions"
    return f"{level(scores)} {kind} intervals over {drawn} ({scores['resamples']:,} resamples)"


def tested_by(scores: Mapping[str, Any]) -> str:
    """Return the name of the test behind the p values."""
    if by_document(scores):
        return "a sign-flip test on won and lost that flips all questions about a document at once"
    return "McNemar\u2019s exact test on won and lost"


def by_document(scores: Mapping[str, Any]) -> bool:
    """Tell whether documents were drawn and tested, not single questions."""
    return bool(scores.get("resample") == "document")


def called(system: str) -> str:
    """Return how a sentence names a system."""
    return f"the {system} model" if system in ("base", "tuned") else f"\u201c{system}\u201d"


def headline(scores: Mapping[str, Any]) -> Headline:
    """Return what was found, in numbers. The words are the same whether the result is good, bad or unclear."""
    pairs = [pair for gold in gold_modes(scores) if (pair := comparison(scores, gold))]
    if not pairs:
        return Headline("No answers have been scored yet.", ())
    lead = _sentence(pairs[0], scores)
    further = [_sentence(pair, scores) for pair in pairs[1:]]
    further += [text for text in (_drop_sentence(pairs[0], scores), _closed_book_sentence(pairs[0], scores)) if text]
    return Headline(lead, tuple(further))


def _sentence(pair: Comparison, scores: Mapping[str, Any]) -> str:
    decimals = _decimals(pair)
    where = {"kept": ", the evidence always among them,", "retrieved": " as retrieved,"}.get(pair.gold, ",")
    noun = "passage" if pair.passages == 1 else "passages"
    first = _answers(pair.system, pair.cell, decimals, f" of {pair.cell['n']} questions")
    text = f"At {pair.passages}{NO_BREAK}{noun}{where} {first}"
    if pair.baseline_cell is None or pair.baseline is None:
        return f"{text} ({level(scores)} interval {interval(pair.cell['accuracy'], decimals)})."
    n = pair.baseline_cell["n"]
    share = percent(pair.baseline_cell["accuracy"]["mean"], decimals)
    other = "" if n == pair.cell["n"] else f" of {n}"
    text = f"{text}, {called(pair.baseline)} {share}{NO_BREAK}%{other}"
    if pair.difference is None:
        return f"{text}."
    return f"{text}: {_difference(pair.difference, decimals, scores)}."


def is_clear(difference: Mapping[str, Any], scores: Mapping[str, Any]) -> bool:
    """Tell whether the interval of a paired difference lies clear of 0 and its test, where it has one, agrees.

    An interval alone is not enough: that of three questions out of three won has no width.
    """
    bounds = difference["accuracy"]
    return not bounds["low"] <= 0 <= bounds["high"] and difference.get("p", 0) < 1 - scores["confidence"]


def _answers(system: str, cell: Mapping[str, Any], decimals: int, of: str) -> str:
    return f"{called(system)} answers {percent(cell['accuracy']['mean'], decimals)}{NO_BREAK}%{of}"


def _decimals(pair: Comparison) -> int:
    """Whole numbers, unless the rounded shares would not add up to the rounded difference."""
    if pair.baseline_cell is None or pair.difference is None:
        return 0
    means = [row["accuracy"]["mean"] for row in (pair.cell, pair.baseline_cell, pair.difference)]
    shares = [round(100 * mean) for mean in means]
    return 0 if shares[0] - shares[1] == shares[2] else 1


def _difference(row: Mapping[str, Any], decimals: int, scores: Mapping[str, Any]) -> str:
    estimate = row["accuracy"]
    number = points(estimate["mean"], decimals)
    size = f"{number} {'point' if number in ('+1', f'{MINUS}1') else 'points'}"
    bounds = f"({level(scores)} interval {interval(estimate, decimals, signed=True)})"
    return f"{size} {bounds}" if is_clear(row, scores) else f"{size}, not distinguishable from no difference {bounds}"


def _drop_sentence(pair: Comparison, scores: Mapping[str, Any]) -> str:
    losses = [
        f"{called(name)} loses {percent(drop['accuracy']['mean'])} points ({interval(drop['accuracy'])})"
        for name in (pair.system, pair.baseline)
        if name and (drop := find(scores["drops"], system=name, gold=pair.gold, group="all"))
    ]
    row = find(scores["drops"], system=pair.system, gold=pair.gold, group="all") or {}
    against = row.get("minus_baseline")
    more = f"; the difference is {_difference({'accuracy': against}, 1, scores)}" if against and len(losses) > 1 else ""
    return f"From its best passage count to {pair.passages}, {' and '.join(losses)}{more}." if losses else ""


def _closed_book_sentence(pair: Comparison, scores: Mapping[str, Any]) -> str:
    cell = find(scores["cells"], system=pair.system, gold="closed_book", group="all")
    return f"Without any passage {_answers(pair.system, cell, 1, '')} of them." if cell else ""


def fact_text(value: Any) -> str:
    """Return one fact as text: numbers with thousands separators, lists with commas, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(fact_text, value))
    return EN_DASH if value is None else str(value)
