"""Token-bounded answer matching, the same for the false-negative guard and for cover accuracy. Scores nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")  # numbers keep inner points and commas: "3.5" is one token
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ARTICLES = {"a", "an", "the"}


def answer_tokens(text: str) -> list[str]:
    """Return case-folded words and numbers without punctuation, thousands separators and English articles.

    Articles stay when nothing else is left, so that the answer "A" does not match every text
    (the trap of the SQuAD normaliser, which makes it empty).
    """
    tokens = _TOKEN.findall(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold()))
    return [token for token in tokens if token not in _ARTICLES] or tokens


def contains_tokens(tokens: list[str], part: list[str]) -> bool:
    """Tell whether `part` is a contiguous run inside `tokens`. An empty `part` is in nothing."""
    width = len(part)
    if not width:
        return False
    return any(tokens[start : start + width] == part for start in range(len(tokens) - width + 1))


def contains_answer(text: str, answers: Iterable[str]) -> bool:
    """Tell whether any accepted answer stands in `text`, at token borders ("us" is not in "house")."""
    tokens = answer_tokens(text)
    return any(contains_tokens(tokens, answer_tokens(answer)) for answer in answers)
