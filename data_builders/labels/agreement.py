"""Does an answer agree with an accepted one? Cover accuracy's notion, without the ways to be right by accident.

An answer agrees where an accepted one stands in it as whole words (`text.contains_answer`): what evaluation would count
as right, so a longer answer passes, and a date in another order does not unless it is an alias. Beyond that it must not
deny the answer ("Lyon, not Paris" is not Paris), offer it beside another ("Paris or Lyon", "1889/1890"), multiply it
("7 million" is not 7), or hold it as one of several small numbers ("between 10 and 12"). A verdict such as yes or no
has to open the answer, alone of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from data_builders.text import answer_kind, answer_tokens, contains_answer

_DENIALS = {"not", "never", "neither", "nor", "except", "unlike", "without", "nicht", "kein", "keine"}
_DENYING_PAIRS = {("rather", "than"), ("instead", "of"), ("other", "than")}
_DENIED_AFTER = ("아니", "아닌", "이아니", "가아니")
_DENIED_BY = {"not", "wrong", "incorrect", "false"}
_CHOICES = {"or", "oder", "또는", "혹은"}
_MAGNITUDES = {"hundred", "thousand", "million", "billion", "trillion", "dozen", "천", "만", "억", "조"}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_YEAR = re.compile(r"(?:1\d|20)\d\d")
_SMALL = re.compile(r"(?!(?:1\d|20)\d\d$)\d+(?:[.,]\d+)*")  # years beside a number are no second one


def agrees(answer: str, accepted: Sequence[str]) -> bool:
    """Tell whether an answer agrees with any accepted one."""
    said = answer_tokens(answer)
    return any(_agrees(answer, said, one, accepted) for one in accepted)


def _agrees(answer: str, said: Sequence[str], one: str, accepted: Sequence[str]) -> bool:
    wanted = answer_tokens(one)
    if not wanted or said == wanted:
        return bool(wanted)
    kind = answer_kind(one)
    if kind == "unjudgeable":
        return _opens_with(said, wanted)
    if not contains_answer(answer, [one]):
        return False
    places = [place for place in _places(said, one, len(wanted)) if _is_meant(said, *place, accepted)]
    if kind == "weak" and _NUMBER.fullmatch(wanted[0]):
        return bool(places) and sum(map(bool, map(_SMALL.fullmatch, said))) == 1
    return bool(places)


def _opens_with(said: Sequence[str], verdict: Sequence[str]) -> bool:
    """Tell whether a verdict opens the answer and no other one follows within two words ("Yes and no")."""
    rest = said[len(verdict) : len(verdict) + 2]
    others = [token for token in rest if answer_kind(token) == "unjudgeable" and [token] != list(verdict)]
    # "no information" tells that nothing is known; "no, they are not" is a verdict
    hedged = list(verdict) == ["no"] and rest[:1] and rest[0] in {"information", "answer", "passage", "mention", "data"}
    return list(said[: len(verdict)]) == list(verdict) and not others and not hedged


def _places(said: Sequence[str], one: str, width: int) -> Iterator[tuple[int, int]]:
    """Yield where an accepted answer stands among the tokens; its last Korean word may carry particles."""
    for start in range(len(said) - width + 1):
        if contains_answer(" ".join(said[start : start + width]), [one]):
            yield start, start + width


def _is_meant(said: Sequence[str], start: int, end: int, accepted: Sequence[str]) -> bool:
    before, after = said[max(0, start - 2) : start], said[end : end + 2]
    if _DENIALS & set(before) or tuple(before) in _DENYING_PAIRS or "".join(after[:1]).startswith(_DENIED_AFTER):
        return False
    if _shortened_not(said[max(0, start - 3) : start]) or _shortened_not(after):
        return False
    if (after[:1] in (["is"], ["was"]) and set(after[1:]) & _DENIED_BY) or "".join(after[:1]) in _MAGNITUDES:
        return False
    if _beside_another_year(said, start, end, accepted):
        return False
    others = [said[end + 1 :] if after[:1] and after[0] in _CHOICES else None]
    others.append(said[: start - 1] if before and before[-1] in _CHOICES else None)
    return all(other is None or contains_answer(" ".join(other), accepted) for other in others)


def _shortened_not(tokens: Sequence[str]) -> bool:
    """Tell whether tokens hold an "isn't", which is two of them."""
    return any(one.endswith("n") and two == "t" for one, two in pairwise(tokens))


def _beside_another_year(said: Sequence[str], start: int, end: int, accepted: Sequence[str]) -> bool:
    """Tell whether a year touches another one that is not accepted: "1889/1890", "1889-1890"."""
    if end - start != 1 or not _YEAR.fullmatch(said[start]):
        return False
    beside = [*said[max(0, start - 1) : start], *said[end : end + 1]]
    return any(_YEAR.fullmatch(one) and not contains_answer(one, accepted) for one in beside)
