"""Marks quotes in the text they come from, as HTML that is safe whatever the text holds. Judges no quote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from data_builders.labels.quotes import place


def marked(text: str, quotes: Iterable[str]) -> Markup:
    """Return a text as HTML in which every quote that stands there word for word is in `<mark>`.

    Args:
        text: of a passage; everything in it is escaped.
        quotes: what to look for. Case, spaces and signs that look alike do not count
            (data_builders/labels/quotes.py); stretches that overlap become one.
    """
    pieces, done = [], 0
    for start, end in _joined([place(quote, text) for quote in quotes]):
        pieces += [escape(text[done:start]), Markup("<mark>{}</mark>").format(text[start:end])]
        done = end
    return Markup("").join([*pieces, escape(text[done:])])


def stands(quote: str, text: str) -> bool:
    """Tell whether a quote stands in a text word for word, as `marked` sees it."""
    start, end = place(quote, text)
    return start < end


def _joined(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the places in their order, overlapping ones as one, those of nothing left out."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(one for one in places if one[0] < one[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
