"""Does a text hold an answer? One matcher for the false-negative guard and for cover accuracy. Scores nothing.

Texts are compared as runs of tokens, never inside one: "us" is not in "house", "46" not in "1946". What a token is
depends on the script:

- Words and numbers of scripts with spaces; where the script changes, a new token begins ("1945년", "NASA는").
- Han, kana, Thai, Lao, Khmer and Burmese, which write no spaces: each sign is a token, so an answer matches anywhere.
- Korean: an answer's last word may carry particles (hangul.py): "서울" is in "서울에서는", not "서울대학교".

Accuracy compares the tokens as they are. The guard, where a miss costs more than a false alarm, also compares without
diacritics, without the apostrophes and hyphens of the answer, without what it has in brackets, with ae for ä, and with
initials written either way: U.S. and US.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise

from data_builders.common_words import COMMON_WORDS, FUNCTION_WORDS, UNSPACED_FUNCTION_SIGNS, VERDICTS
from data_builders.hangul import Inflected, is_hangul

Phrase = str | Inflected
"""An answer to look for in a normal form: a plain run of tokens, or one that particles may follow."""

_ARTICLES = {"a", "an", "the"}
_ASCII_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+")  # numbers keep inner points and commas: "3.5" is one token
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))(?<=\d,)")
_SPACED_THOUSANDS = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # soft hyphens, joiners, direction marks
HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = (
    f"\u0e01-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3\u3041-\u309f{_KATAKANA}{_HAN}"
)


def answer_tokens(text: str) -> list[str]:
    """Return case-folded words and numbers without punctuation, thousands separators and English articles.

    Articles stay when nothing else is left, so that the answer "A" does not match every text
    (the trap of the SQuAD normaliser, which makes it empty).
    """
    return _tokens(_canonical(text))


def contains_tokens(tokens: list[str], part: list[str]) -> bool:
    """Tell whether `part` is a contiguous run inside `tokens`. An empty `part` is in nothing."""
    width = len(part)
    if not width:
        return False
    return any(tokens[start : start + width] == part for start in range(len(tokens) - width + 1))


def contains_answer(text: str, answers: Iterable[str]) -> bool:
    """Tell whether any accepted answer stands in `text`, at token borders. This is cover accuracy's notion."""
    inside = _spaced(answer_tokens(text))
    return any(_stands(phrase, inside) for answer in answers if (phrase := _phrase(tuple(answer_tokens(answer)))))


def joined(text: str) -> str:
    """Return the normal form the guard reads: tokens without diacritics, one space before, between and after each.

    It is made once per passage and may be stored; `AnswerMatcher.bears` and `shingles.shingles` take it.
    """
    return _spaced(_tokens(_undressed(_canonical(text))))


@dataclass(frozen=True)
class AnswerMatcher:
    """Tells which passages bear an answer to one question: what the false-negative guard goes by.

    Not every answer can be judged by looking for it, so there are four kinds:

    - strong: where it stands, the passage bears the answer.
    - weak: a single letter or sign, a number below 100, one very common word. It stands in many passages by accident,
      so it counts only where at least half of the question's content words stand as well.
    - unjudgeable: yes, no, true, false, supports, refutes, in several languages. Such a passage does not contain its
      verdict, and one with the word does not give it: the guard leaves these answers out.
    - empty: nothing is left of it without punctuation. It is in no text.

    Content words are the question's distinct words that are no function words. One is shared if a token of the passage
    begins with its first five letters (Korean: two syllables); a shorter one stands as a whole; in scripts without
    spaces, pairs of neighbouring Han or katakana signs take the place of words. Without content words a weak answer
    counts wherever it stands.

    Attributes:
        strong: plain phrases, each enough by itself.
        inflected: the same, where particles may follow.
        weak: phrases that need the question's words beside them.
        words: what to look for in place of the question's content words.
        kinds: how many of the answers given are of each kind.
    """

    strong: tuple[str, ...] = ()
    inflected: tuple[Inflected, ...] = ()
    weak: tuple[Phrase, ...] = ()
    words: tuple[str, ...] = ()
    kinds: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, answers: Iterable[str], question: str = "") -> AnswerMatcher:
        """Prepare the answers to a question; spellings that come to the same are looked for once."""
        found: dict[str, dict[Phrase, None]] = {"strong": {}, "weak": {}}
        kinds: Counter[str] = Counter()
        for answer in answers:
            kind = answer_kind(answer)
            kinds[kind] += 1
            for spelling in _spellings(answer) if kind in found else ():
                if phrase := _phrase(tuple(joined(spelling).split())):
                    found["weak" if "weak" in (kind, answer_kind(spelling)) else "strong"][phrase] = None
        plain = tuple(phrase for phrase in found["strong"] if isinstance(phrase, str))
        inflected = tuple(phrase for phrase in found["strong"] if not isinstance(phrase, str))
        weak = tuple(found["weak"])
        return cls(plain, inflected, weak, _content_words(question) if weak else (), kinds)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look for: no answer, or none that a passage could be judged by."""
        return not (self.strong or self.inflected or self.weak)

    def bears(self, joined_text: str) -> bool:
        """Tell whether a passage, given as `joined` makes it, bears an answer."""
        for phrase in self.strong:  # a loop, not any(): this runs for every hit of every question
            if phrase in joined_text:
                return True
        if self.inflected and any(phrase.stands(joined_text) for phrase in self.inflected):
            return True
        return bool(self.weak) and any(_stands(one, joined_text) for one in self.weak) and self._is_about(joined_text)

    def _is_about(self, joined_text: str) -> bool:
        return 2 * sum(word in joined_text for word in self.words) >= len(self.words)


def answer_kind(answer: str) -> str:
    """Return strong, weak, unjudgeable or empty; `AnswerMatcher` says what they mean."""
    tokens = answer_tokens(answer)
    if not tokens:
        return "empty"
    if " ".join(tokens) in _verdicts():
        return "unjudgeable"
    first = tokens[0]
    weak = len(tokens) == 1 and (len(first) == 1 or first in COMMON_WORDS or _BELOW_100.fullmatch(first) is not None)
    return "weak" if weak else "strong"


_BELOW_100 = re.compile(r"0*\d{1,2}(?:[.,]\d+)?")


@cache
def _verdicts() -> frozenset[str]:
    return frozenset(" ".join(answer_tokens(verdict)) for verdict in VERDICTS)


def _canonical(text: str) -> str:
    if text.isascii():
        text = text.lower()
    else:
        text = _INVISIBLE.sub("", _SPACED_THOUSANDS.sub("", text))
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _THOUSANDS.sub("", text)


def _tokens(canonical: str) -> list[str]:
    pattern = _ASCII_TOKEN if canonical.isascii() else _any_token()
    tokens = pattern.findall(canonical)
    return [token for token in tokens if token not in _ARTICLES] or tokens


@cache
def _any_token() -> re.Pattern[str]:
    """Return the pattern of tokens in any script. Marks above and below letters, such as vowels of Hindi, join them."""
    marks = "".join(chr(code) for code in range(0x300, 0x1B00) if unicodedata.category(chr(code)) in {"Mn", "Mc"})
    marks = re.sub(f"[{UNSPACED}]", "", marks)
    letters = rf"[^\W\d_{UNSPACED}{HANGUL}]"
    return re.compile(rf"\d+(?:[.,]\d+)*|(?:{letters}++[{marks}]*+)++|[{HANGUL}]+|[{UNSPACED}]")


def _undressed(canonical: str) -> str:
    """Take diacritics off Latin, Greek and Cyrillic letters, and vowel points off Hebrew and Arabic ones."""
    return canonical if canonical.isascii() else _dressed_signs().sub(lambda found: _bare(found[0]), canonical)


@cache
def _dressed_signs() -> re.Pattern[str]:
    signs = (chr(code) for code in (*range(0xC0, 0x700), *range(0x1E00, 0x2000)))
    return re.compile(f"[{''.join(sign for sign in signs if _bare(sign) != sign)}]")


@lru_cache(maxsize=1 << 12)
def _bare(sign: str) -> str:
    if sign in _LETTERS_WITH_STROKES:
        return _LETTERS_WITH_STROKES[sign]
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 1:
        return _POINTS.sub("", sign)
    return parts[0] if _POINTS.fullmatch(parts[1:]) else sign


_POINTS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]+")
_LETTERS_WITH_STROKES = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"}


def _spaced(tokens: Sequence[str]) -> str:
    return f" {' '.join(tokens)} "


def _spellings(answer: str) -> tuple[str, ...]:
    """Return every way the guard looks for an answer, as it is given first; each once."""
    found = (
        answer,
        _INNER_SIGNS.sub("", answer),
        _spelt_out(answer),
        _BRACKETS.sub(" ", answer),
        _INITIALS.sub(lambda run: "".join(filter(str.isalpha, run[0])), answer),  # U.S. is US, J. K. is JK
        _ACRONYM.sub(lambda run: " ".join(run[0]), answer),  # and the other way round
    )
    return tuple(dict.fromkeys(found))


_BRACKETS = re.compile(r"\([^()]*\)|\[[^][]*\]")
_INITIALS = re.compile(r"\b[^\W\d_](?:\.\s?[^\W\d_]\b)+\.?")
_ACRONYM = re.compile(r"\b[A-Z]{2,4}\b")
_INNER_SIGNS = re.compile("(?<=[^\\W\\d_])['\u2019\u02bc\u2010\u2011-](?=[^\\W\\d_])")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


def _spelt_out(answer: str) -> str:
    return answer if answer.isascii() else unicodedata.normalize("NFC", answer).translate(_UMLAUTS)


@lru_cache(maxsize=1 << 14)
def _phrase(tokens: tuple[str, ...]) -> Phrase | None:
    if not tokens or not is_hangul(tokens[-1]):
        return _spaced(tokens) if tokens else None
    return Inflected.of(tokens)


def _stands(phrase: Phrase, joined_text: str) -> bool:
    return phrase in joined_text if isinstance(phrase, str) else phrase.stands(joined_text)


def _content_words(question: str) -> tuple[str, ...]:
    tokens = joined(question).split()
    words = [_beginning(token) for token in tokens if token not in _function_words() and not is_unspaced(token)]
    pairs = [_spaced(pair) for pair in pairwise(tokens) if all(map(_carries_meaning, pair))]
    return tuple(dict.fromkeys([*words, *pairs]))


def _beginning(token: str) -> str:
    kept = 2 if is_hangul(token) else 5
    return f" {token[:kept]}" if len(token) >= kept else f" {token} "


@cache
def _function_words() -> frozenset[str]:
    return frozenset(token for word in FUNCTION_WORDS for token in joined(word).split()) | _ARTICLES


def is_unspaced(token: str) -> bool:
    """Tell whether a token begins with a sign of a script that writes no spaces."""
    return re.match(f"[{UNSPACED}]", token) is not None


def _carries_meaning(token: str) -> bool:
    return re.match(f"[{_KATAKANA}{_HAN}]", token) is not None and token not in UNSPACED_FUNCTION_SIGNS
