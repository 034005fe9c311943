"""Text into the terms a sparse index counts: lower case, stop words and stems of a language, Korean morphemes.

Counts nothing and ranks nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from data_builders.errors import RagFtError

# One-letter words and digits count: the usual pattern of two or more characters loses the 7 of "Route 7".
_WORD = re.compile(r"\w+")
# Before lower-casing: the dotted and dotless i of Turkish; Arabic vowel signs and the lengthening stroke, which would
# cut words in two.
_SIGNS: dict[str, dict[int, str | None]] = {
    "turkish": {ord("İ"): "i", ord("I"): "\u0131"},
    "arabic": {**dict.fromkeys(range(0x064B, 0x0653)), 0x0670: None, 0x0640: None},
}
_STOP_WORDS = {  # the names of the lists in bm25s; it has none for arabic, finnish, hungarian and romanian
    "danish": "STOPWORDS_DANISH",
    "dutch": "STOPWORDS_DUTCH",
    "english": "STOPWORDS_EN",
    "french": "STOPWORDS_FRENCH",
    "german": "STOPWORDS_GERMAN",
    "italian": "STOPWORDS_ITALIAN",
    "norwegian": "STOPWORDS_NORWEGIAN",
    "portuguese": "STOPWORDS_PORTUGUESE",
    "russian": "STOPWORDS_RUSSIAN",
    "spanish": "STOPWORDS_SPANISH",
    "swedish": "STOPWORDS_SWEDISH",
    "turkish": "STOPWORDS_TURKISH",
}
_FOLDED = {"english"}  # where accents stand in names only, and who asks leaves them out: "gomez" finds "Gómez"
# Sejong tags of what carries content: nouns, numerals, roots, digits, Latin and Chinese letters, and what could not be
# analysed. Pronouns and bound nouns (것, 수) are left out, as stop words are elsewhere.
_CONTENT = {"NNG", "NNP", "NR", "XR", "SN", "SL", "SH", "UN", "W_SERIAL", "W_URL", "W_EMAIL", "W_HASHTAG", "W_MENTION"}
_VERBS = {"VV", "VA"}


@dataclass(frozen=True)
class Analysis:
    """How a language's text becomes terms.

    Attributes:
        split: turns texts into the words of each, in order and with repeats.
        term: what a word counts as; empty if it does not count. Depends on the word alone, so it may be remembered.
    """

    split: Callable[[Iterable[str]], Iterator[list[str]]]
    term: Callable[[str], str]


def analysis(language: str) -> Analysis:
    """Return the analysis of a language of `Bm25Settings`; `none` keeps every word as it is, in lower case.

    Raises:
        RagFtError: the language is korean and kiwipiepy is not installed.
    """
    if language == "korean":
        return Analysis(_morphemes(), str)
    signs, folded = _SIGNS.get(language), language in _FOLDED
    return Analysis(lambda texts: (_words(text, signs, folded) for text in texts), _stemmed(language))


def _words(text: str, signs: dict[int, str | None] | None, folded: bool) -> list[str]:
    whole = unicodedata.normalize("NFKC", text)  # letters with loose accents, and the ligatures of PDF files
    words = _WORD.findall((whole.translate(signs) if signs else whole).lower())
    return words if whole.isascii() or not folded else [_without_accents(word) for word in words]


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    return "".join(sign for sign in unicodedata.normalize("NFKD", word) if not unicodedata.combining(sign))


def _stemmed(language: str) -> Callable[[str], str]:
    if language == "none":
        return str
    import Stemmer
    from bm25s import stopwords

    stemmer = Stemmer.Stemmer(language, 0)  # without a cache of its own: words are remembered by the caller
    stop = frozenset(getattr(stopwords, _STOP_WORDS[language]) if language in _STOP_WORDS else ())
    return lambda word: "" if word in stop else stemmer.stemWord(word)


def _morphemes() -> Callable[[Iterable[str]], Iterator[list[str]]]:
    try:
        from kiwipiepy import Kiwi  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise RagFtError(
            'language: korean needs kiwipiepy, which is not installed: pip install "rag-ft[korean]", '
            "or take language: none, which matches words with their particles only."
        ) from error
    kiwi = Kiwi()

    def split(texts: Iterable[str]) -> Iterator[list[str]]:
        normal = [unicodedata.normalize("NFKC", text) for text in texts]
        for text, tokens in zip(normal, kiwi.tokenize(normal), strict=True):
            yield [term for token in tokens if (term := _content(token))] + list(_names(text, tokens))

    return split


def _names(text: str, tokens: Iterable[Any]) -> Iterator[str]:
    """Yield words of several morphemes as a whole, without their particles.

    A name that the dictionary does not know is cut otherwise in every sentence; as a whole it is the same in all.
    """
    for _, word in groupby(tokens, key=lambda token: (token.sent_position, token.word_position)):
        stem = list(takewhile(lambda token: not token.tag.startswith("J"), word))
        if len(stem) > 1 and not any(token.tag[0] in "VES" for token in stem):
            yield text[stem[0].start : stem[-1].end].lower()


def _content(token: Any) -> str:
    """Return a morpheme as a term: verbs as the dictionary has them, apart from nouns of the same sound."""
    tag = token.tag.partition("-")[0]  # VV-I and VV-R are irregular and regular verbs
    return f"{token.form}다" if tag in _VERBS else token.form.lower() if tag in _CONTENT else ""
