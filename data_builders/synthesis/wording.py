"""Does a question make sense to a reader who never saw the passage? Patterns for English and Korean; no model.

A question fails that speaks of a text as such ("in the passage above"), or that has a pronoun or a "this" before
anything that could be meant by it. Words that only look like that pass: "the passage of time", "the author of
Dracula", "how long does it take".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TEXT = "text|passage|document|paragraph|excerpt|extract|snippet|context|article|section|chapter|report|source|material"
_PART = f"{_TEXT}|table|figure|diagram|list|page|manual|study|paper|book|story|sentence|statement"
_POINTING = "this|the above|the given|the provided|the preceding|the previous|the aforementioned|the present"
# Not where more is said of it, so that it is a thing of the world: "the passage of the act", "the author Jane Porter".
_NAMED = (
    r"(?!\s+(?:of|by|from|that|which|who|called|titled|entitled|named|on|about|between|through|in)\b"
    r"|\s+[\"'\u201c\d]|\s+(?-i:[A-Z]))"
)

_ENGLISH = (
    rf"\b(?:{_POINTING})\s+(?:\w+\s+)?(?:{_PART})s?\b",
    rf"\b(?:{_PART})s?\s+(?:above|below)\b",
    r"\bthe\s+(?:text|passage|paragraph|excerpt|snippet)\b" + _NAMED,
    rf"\b(?:according to|based on|as per|per|in|from|by)\s+the\s+(?:\w+\s+)?(?:{_TEXT})\b" + _NAMED,
    r"\baccording to\s+(?:the\s+)?(?:information|details|description|author|writer|above)\b" + _NAMED,
    r"\b(?:the|does)\s+(?:author|authors|writer|narrator|speaker)\b" + _NAMED,
    r"\b(?:mentioned|described|discussed|stated|listed|shown|provided|given|outlined)\s+(?:above|below|here|earlier)\b",
    rf"\b(?:mentioned|described|discussed|stated|listed|shown|provided)\s+(?:in|by)\s+the\s+(?:{_PART})\b" + _NAMED,
    r"\b(?:passage|document|text|excerpt|context)\s+(?:number\s+)?(?:\d+|one|two|[AB]\b)",
    r"\b(?:both|two|these|each)\s+(?:passages|texts|documents|excerpts)\b",
)
_KOREAN_TEXT = "글|지문|본문|문서|텍스트|문단|단락|문장|기사|구절|발췌문|자료|내용|논문|보고서|표|그림|책|매뉴얼|설명서"
_KOREAN_PARTICLE = r"(?=[은는이가을를의에도로과와,.?\s]|$)"  # so that 표 is not the beginning of 표현
_KOREAN_START = r"(?<![가-힣])"
_KOREAN = (
    rf"{_KOREAN_START}(?:위|위의|윗|이|본|해당|주어진|제시된|제공된|다음|아래|앞의|앞선|상기)\s(?:{_KOREAN_TEXT}){_KOREAN_PARTICLE}",
    rf"{_KOREAN_START}(?:윗글|이 글|본문|본고|본서)",
    rf"{_KOREAN_START}(?:{_KOREAN_TEXT})에\s(?:따르면|의하면|나온|나오는|언급된|있는|제시된|나타난|명시된|설명된)",
    rf"{_KOREAN_START}(?:{_KOREAN_TEXT})에서\s(?:언급|설명|말하|말한|다루|다룬|제시|소개|서술|묘사|나오|주장|저자|필자|정의)",
    rf"{_KOREAN_START}(?:필자|글쓴이)",
    r"^(?:저자|화자|작성자)(?:는|은|가|이|의)\s",
)
_SPEAKS_OF_A_TEXT = re.compile("|".join(_ENGLISH), re.IGNORECASE)
_SPEAKS_OF_A_TEXT_KOREAN = re.compile("|".join(_KOREAN))

_PRONOUN = re.compile(
    r"\b(?:he|she|it|they|him|them|his|her|hers|its|their|theirs|this|these|those|himself|herself|itself|themselves)\b",
    re.IGNORECASE,
)
_POINTING_WORD = re.compile(r"this|these|those", re.IGNORECASE)
_NEEDS_A_NAME = re.compile(r"him|them|this|these|those", re.IGNORECASE)  # never whom or what is asked for
# "it" that stands for nothing: how long does it take, is it true that, what was it like to
_EMPTY_IT = re.compile(
    r"it\s+(?:(?:usually|normally|typically|generally|still|ever|also)\s+)?(?:takes?|took|costs?|means?|rains?|snows?|"
    r"like\s+to|possible|impossible|true|necessary|legal|illegal|forbidden|allowed|permitted|customary|common|safe|"
    r"important|better|best|easier|cheaper|that)\b",
    re.IGNORECASE,
)
_MEANT = re.compile(r"\b(?:the|a|an|every|each|any|all|some|no|two|three|many|most)\s+\w+|\d", re.IGNORECASE)
_CAPITAL = re.compile(r"(?<!^)(?<![.?!]\s)\b[A-Z]\w*")
_AUXILIARY = "is|are|was|were|did|does|do|has|have|had|can|could|will|would|should|may|might|must"
_BEFORE_IT = "in|on|at|by|for|from|to|of|with|since|until|after|before|under"
# The question word and, where it asks for one of a kind, that kind: "in which year", "how many people".
_OPENING = re.compile(
    rf"(?:(?:{_BEFORE_IT})\s+)?(?:"
    rf"(?:what|which|whose|how\s+(?:many|much|long|old|far|often|high|tall|big|large))\b[^,]*?(?=\b(?:{_AUXILIARY})\b)|"
    r"(?:who|what|which|whose)\b|(?:whom|when|where|why|how)\b)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?:who|what|which|whose|how\s+many)\b", re.IGNORECASE)
_ONLY_AUXILIARY = re.compile(rf"\s*(?:{_AUXILIARY})?\s*", re.IGNORECASE)
_FUNCTION_WORD = re.compile(
    rf"(?:{_BEFORE_IT}|{_AUXILIARY}|and|but|while|as|if|because|although|when|where|why|how)\b", re.IGNORECASE
)
_KOREAN_PRONOUN = re.compile(
    r"(?<![가-힣])(?:그는|그가|그의|그를|그에게|그녀는|그녀가|그녀의|그녀를|그들은|그들이|그들의|그것은|그것이|그것의|그것을|"
    r"이것은|이것이|이것의|이것을|이는|이곳은|이곳이|이곳의|이곳에서|이곳에|그곳은|그곳의|그곳에서|그곳에|이들은|이들의|여기에서|여기서|거기서)"
    r"(?![가-힣])"
)
_KOREAN_POINTING = re.compile(r"^(?:그|이|저|해당)\s(?!씨)[가-힣]+")
_KOREAN_ASKING = re.compile(
    r"^(?:언제|어디|어디서|어디에|어디에서|누가|누구|누구와|누구의|왜|어떻게|무엇을|무엇이|무엇으로|몇|어느|어떤|무슨|처음|"
    r"결국|주로|년에|년도에|해에|명의|개의|번째로|날짜에|이유로|방법으로)$"
)


def needs_its_passage(question: str) -> str:
    """Say what in a question means nothing without the passage it was written for; empty if there is nothing."""
    for pattern in (_SPEAKS_OF_A_TEXT, _SPEAKS_OF_A_TEXT_KOREAN):
        if found := pattern.search(question):
            return f'"{found[0].strip()}" speaks of a text that the reader does not see'
    pronoun = _bare_pronoun(question)
    return f'nothing in the question says what "{pronoun}" stands for' if pronoun else ""


def _bare_pronoun(question: str) -> str:
    """Return the first pronoun if it stands for nothing in the question; what follows it is read no more."""
    for found in _PRONOUN.finditer(question):
        if found[0].lower() == "it" and _EMPTY_IT.match(question, found.start()):
            continue
        return "" if _may_stand(found[0], question[: found.start()]) else found[0]
    return _bare_korean(question)


def _may_stand(pronoun: str, before: str) -> bool:
    """Tell whether the words before a pronoun have something that it may stand for.

    That is a name, a number, "the ..." behind the question word, or what is asked for where that is the subject ("which
    town gave its name"). The kind behind a question word is none: "which year was it built".
    """
    opening = _OPENING.match(before)
    if _POINTING_WORD.fullmatch(pronoun) and "," not in before:
        return bool(_CAPITAL.search(before))  # "the purpose of this device": what stands before it is another thing
    if _CAPITAL.search(before) or _MEANT.search(before[opening.end() :] if opening else before):
        return True
    if opening is None:
        return bool(before.strip()) and not _FUNCTION_WORD.match(before)  # it begins with a name or a noun
    if _ONLY_AUXILIARY.fullmatch(before[opening.end() :]):
        return False
    return bool(_SUBJECT.match(before)) and not _NEEDS_A_NAME.fullmatch(pronoun)


def _bare_korean(question: str) -> str:
    pointing = _KOREAN_POINTING.match(question)
    if pointing:
        return pointing[0]
    pronoun = _KOREAN_PRONOUN.search(question)
    return pronoun[0] if pronoun and _says_nothing(question[: pronoun.start()].split()) else ""


def _says_nothing(words: Iterable[str]) -> bool:
    return all(_KOREAN_ASKING.match(word) for word in words)
