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


def normalize(text: str) -> str:
    """Lower the case, delete ASCII punctuation, blank English articles, collapse white space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DELETE_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals any accepted answer after normalisation, else 0.0."""
    return _best(_equal, prediction, answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best harmonic mean of token precision and recall over the accepted answers."""
    return _best(_token_f1, prediction, answers)


def _best(score: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """Score against each answer; answers that normalise to nothing count only where no other is left (SQuAD 2.0)."""
    golds = [gold for gold in map(normalize, answers) if gold] or [""]
    return max(score(normalize(prediction), gold) for gold in golds)


def _equal(prediction: str, gold: str) -> float:
    return float(prediction == gold)


def _token_f1(prediction: str, gold: str) -> float:
    predicted, wanted = prediction.split(), gold.split()
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted))
