"""ROUGE-L: longest common subsequence of tokens, F measure with equal weights (Lin 2004), best over the answers.

The same number as `rougeL`, no stemming, of the package rouge-score, by whose tokens it goes (runs of a-z and 0-9);
a test compares the two. That package is not used itself since it wants nltk (14 MB, two seconds to import), and gives
0 to every text in another script: here an answer that holds other letters or digits is compared by the tokens of cover
accuracy. The package `rouge` (LongBench, FlashRAG) cuts at spaces and gives other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_builders.text import answer_tokens

_TOKEN = re.compile(r"[a-z0-9]+")


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Return the best ROUGE-L over the accepted answers; an empty prediction is 0."""
    return max((_rouge_l(prediction, answer) for answer in answers), default=0.0)


def _rouge_l(prediction: str, answer: str) -> float:
    latin = not any(sign.isalnum() for sign in answer if not sign.isascii())
    predicted, wanted = (
        _TOKEN.findall(text.lower()) if latin else answer_tokens(text) for text in (prediction, answer)
    )
    common = _common_subsequence(predicted, wanted)
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by dynamic programming over one row."""
    row = [0] * (len(other) + 1)
    for token in one:
        diagonal = 0
        for place, candidate in enumerate(other, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if token == candidate else max(row[place], row[place - 1])
    return row[-1]
