"""Exact match and F1 for Korean, as the evaluation of KorQuAD 1.0 (arXiv 1909.07005) has them.

They stand beside the SQuAD metrics and do not replace them where answers are Korean: a column whose definition
changes from row to row could be compared with nothing published. Particles are written onto Korean words, so tokens
between spaces rarely agree; KorQuAD therefore compares characters, as a multiset, spaces left out.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from data_builders.hangul import is_hangul
from rag_ft.evaluation.metrics.squad import best, overlap_f1

# Quotation marks, brackets and titles' marks become spaces before the rest of ASCII punctuation is deleted.
_BLANKED = str.maketrans(dict.fromkeys("'\"()<>\u300a\u300b\u3008\u3009\u2018\u2019", " "))
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_korean(text: str) -> str:
    """Blank quotation marks and brackets, lower the case, delete ASCII punctuation, collapse white space."""
    return " ".join(text.translate(_BLANKED).lower().translate(_DELETE_PUNCTUATION).split())


def exact_match_korean(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals any accepted answer after KorQuAD's normalisation, else 0.0."""
    return best(lambda one, gold: float(one == gold), prediction, answers, normalize_korean)


def f1_korean(prediction: str, answers: Sequence[str]) -> float:
    """Return the best harmonic mean of character precision and recall; empty is never right."""
    return best(
        lambda one, gold: overlap_f1("".join(one.split()), "".join(gold.split())),
        prediction,
        answers,
        normalize_korean,
    )


def holds_hangul(texts: Iterable[str]) -> bool:
    """Tell whether any text holds a Korean letter."""
    return any(is_hangul(sign) for text in texts for sign in text)
