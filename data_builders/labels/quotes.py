"""Finds a quote in its passage: word for word but for case, spaces and signs that look alike, or nearly so.

A writer that copies a sentence changes its typography: straight quotation marks for curly ones, a hyphen for a dash, a
capital at the beginning, one space for a line break. None of that makes a quote false, and what is kept is the
passage's own stretch (`verbatim`), so nothing of it reaches a label. So texts are compared after NFKC and case folding,
with every quotation mark as one, every dash as one without spaces around it, and without soft hyphens and joiners;
punctuation at the ends of a quote may differ. Diacritics and digits count. What is left out in the middle ("...") is no
stretch. A quote begins and ends where words do.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import numpy.typing as npt

from data_builders.sentences import cuts_word, standing_whole

_QUOTATION = (
    "'\"`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u00ab\u00bb\u2039\u203a"
    "\u300c\u300d\u300e\u300f"
)
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fb"
_SAME = {
    **dict.fromkeys(map(ord, _QUOTATION), "'"),
    **dict.fromkeys(map(ord, _DASHES), "-"),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"), None),
}
_ENDS = " '.,;:!?-\u3002\u3001()[]*"
_CLUSTER = re.compile(r"\s+|.(?:[\u0300-\u036f\u1160-\u11ff\u3099\u309a])*", re.DOTALL)  # a character and its marks


def verbatim(quote: str, text: str, least: float = 1.0) -> str:
    """Return the stretch of `text` that a quote stands for, letter by letter; nothing where there is none.

    Args:
        quote: as it was written.
        text: of the passage.
        least: how like the stretch it must be, as `likeness` has it; below 1 the stretch is widened to whole words.
    """
    start, end = place(quote, text, least)
    return text[start:end]


def place(quote: str, text: str, least: float = 1.0) -> tuple[int, int]:
    """Return where the stretch that `verbatim` returns begins and ends in `text`; (0, 0) where there is none."""
    folded, places = _fold(text)
    wanted, _ = _fold(quote)
    for needle in dict.fromkeys((wanted, wanted.strip(" ."), wanted.strip(_ENDS))):
        start = next(standing_whole(needle, folded), None)
        if start is not None:
            return places[start][0], places[start + len(needle) - 1][1]
    needle = wanted.strip(_ENDS)
    if least >= 1 or not needle or not folded:
        return 0, 0
    edits, start, end = _nearest(needle, folded)
    if edits > (1 - least) * len(needle) + 1e-9 or start == end:
        return 0, 0
    start, end = _widened(folded, start, end)
    return places[start][0], places[end - 1][1]


def likeness(quote: str, text: str) -> float:
    """Return 1 minus the fewest letters to insert, delete or change in a quote, a part of its length.

    It is that of the stretch of `text` most like it (Sellers 1980), both folded; 0 where nothing is like it.
    """
    needle, folded = _fold(quote)[0].strip(_ENDS), _fold(text)[0]
    if not needle or not folded:
        return 0.0
    return max(0.0, 1 - _nearest(needle, folded)[0] / len(needle))


def _fold(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the form in which texts are compared, and for each of its letters what it was made of."""
    letters: list[str] = []
    places: list[tuple[int, int]] = []
    for cluster in _CLUSTER.finditer(text):
        for letter in _plain(cluster.group()):
            if letter == " " and (not letters or letters[-1] in " -"):
                continue
            if letter == "-" and letters and letters[-1] == " ":
                letters.pop()
                places.pop()
            letters.append(letter)
            places.append(cluster.span())
    return "".join(letters), places


def _plain(cluster: str) -> str:
    if cluster.isascii() and cluster.isalnum():
        return cluster.lower()
    if cluster.isspace():
        return " "
    # twice, since case folding can take a text out of NFKC; signs first, since NFKC makes some of them spaces
    folded = unicodedata.normalize("NFKC", cluster.translate(_SAME)).casefold()
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", folded).translate(_SAME))


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    while cuts_word(text, start):
        start -= 1
    while cuts_word(text, end):
        end += 1
    return start, end


def _nearest(needle: str, text: str) -> tuple[int, int, int]:
    """Return the fewest edits between `needle` and a stretch of `text`, and where that stretch begins and ends."""
    row = _edits(needle, text, np.zeros(len(text) + 1, np.int64))
    end = int(row.argmin())
    back = _edits(needle[::-1], text[:end][::-1], np.arange(end + 1))
    return int(row[end]), end - int(back.argmin()), end


def _edits(needle: str, text: str, row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the edits between `needle` and the stretch that ends at each place; `row` prices where it begins."""
    letters, steps = np.array([ord(letter) for letter in text], np.int64), np.arange(len(text) + 1)
    for letter in map(ord, needle):
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        # a letter inserted costs 1 beyond the place before: the running minimum carries that along the row
        row = np.minimum.accumulate(np.concatenate(([row[0] + 1], changed)) - steps) + steps
    return row
