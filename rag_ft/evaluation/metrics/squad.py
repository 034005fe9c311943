"""Exact match and F1 with the normaliser of SQuAD, to the letter, flaws included: published numbers use it.

Known flaws: "New-York" becomes "newyork", "3.5" becomes "35", curly quotes and accents stay, "A" becomes empty.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
_VERDICTS = ("yes", "no", "noanswer")


def normalize(text: str) -> str:
    """Lower the case, delete ASCII punctuation, blank English articles, collapse white space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DELETE_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals any accepted answer after normalisation, else 0.0."""
    return best(_equal, prediction, answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best harmonic mean of token precision and recall over the accepted answers."""
    return best(_token_f1, prediction, answers)


def f1_hotpot(prediction: str, answers: Sequence[str]) -> float:
    """Return F1 as HotpotQA has it: yes, no and noanswer share nothing with any other answer; empty is never right."""
    return best(_hotpot_f1, prediction, answers)


def best(
    score: Callable[[str, str], float],
    prediction: str,
    answers: Sequence[str],
    normal: Callable[[str], str] = normalize,
) -> float:
    """Score against each answer; answers that normalise to nothing count only where no other is left (SQuAD 2.0)."""
    golds = [gold for gold in map(normal, answers) if gold] or [""]
    return max(score(normal(prediction), gold) for gold in golds)


def overlap_f1(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall over two multisets; 0 where either is empty."""
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def _equal(prediction: str, gold: str) -> float:
    return float(prediction == gold)


def _token_f1(prediction: str, gold: str) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    return overlap_f1(prediction.split(), gold.split())


def _hotpot_f1(prediction: str, gold: str) -> float:
    if prediction != gold and (prediction in _VERDICTS or gold in _VERDICTS):
        return 0.0
    return overlap_f1(prediction.split(), gold.split())
