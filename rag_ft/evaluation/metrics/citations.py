"""What an output says of its passages, against the annotated gold among those shown: citations, quotes, judgements.

A citation is a passage that the output rests on: in style self_reasoning each one it quotes as evidence and each [n]
in its analysis, in style reasoning each one it names with a reason. The numbers of passages that are not there count
as wrong citations. Style answer cites nothing, and where each passage had a prompt of its own no number says which one
is meant, so nothing here applies to them.
"""

from __future__ import annotations

import re
import unicodedata

from data_builders.sentences import standing_whole
from rag_ft.evaluation.cases import Case
from rag_ft.prompting.parse import cited_numbers

_DRESSED = {"\u2018\u2019\u201a\u201b\u2032\u00b4`": "'", "\u201c\u201d\u201e\u201f\u2033": '"'}
_DRESSED |= {"\u2010\u2011\u2012\u2013\u2014\u2212": "-", "\u00ad\u200b\u200c\u200d\u2060\ufeff": ""}
_PLAIN = str.maketrans({sign: plain for signs, plain in _DRESSED.items() for sign in signs})
_SPACE = re.compile(r"\s+")


def cited_passages(case: Case) -> list[int]:
    """Return the distinct passages an output cites, counted from 1, in the order they are first cited."""
    if case.style == "reasoning":
        return list(dict.fromkeys(named.passage for named in case.parsed.relevance))
    quoted = [quote.passage for quote in case.parsed.evidence]
    return list(dict.fromkeys([*quoted, *cited_numbers(case.parsed.analysis)]))


def citation_precision(case: Case) -> float | None:
    """Return the share of cited passages that are gold or an alternative to it.

    None where nothing is cited or the output abstains.
    """
    cited = cited_passages(case) if _cites(case) else []
    right = _gold(case) | {number for number, one in enumerate(case.shown, start=1) if one.is_alternative}
    return len(right.intersection(cited)) / len(cited) if cited else None


def citation_recall(case: Case) -> float | None:
    """Return the share of the gold passages shown that are cited; None without gold or where the output abstains.

    A failed generation cites nothing: 0.
    """
    gold = _gold(case) if _cites(case) else set()
    return len(gold.intersection(cited_passages(case))) / len(gold) if gold else None


def quote_verbatim(case: Case) -> float | None:
    """Return the share of quotes that stand word for word in the passage they cite; None where nothing is quoted.

    White space, Unicode forms (NFKC), typographic quotation marks and dashes do not matter; case, punctuation and
    what was left out do, and so does where words end ("180" does not stand in "1801"), but in scripts that write none
    apart or bind endings to them. An empty quote stands nowhere, and nothing stands in a passage that was not shown.
    """
    quotes = case.parsed.evidence if case.style == "self_reasoning" and case.names_passages else ()
    texts = {number: plain(f"{one.title}\n{one.text}") for number, one in enumerate(case.shown, start=1)}
    found = [any(True for _ in standing_whole(plain(one.quote), texts.get(one.passage, ""))) for one in quotes]
    return sum(found) / len(found) if found else None


def relevance_f1(case: Case) -> float | None:
    """Return F1 of the passages judged relevant against the gold passages shown.

    An alternative to gold is left out, as is a passage that holds an accepted answer without being gold, since nobody
    annotated whether it supports the answer; one that is not there is a wrong judgement. Of several judgements of a
    passage the first counts. Where no gold is shown, judging none relevant is 1, judging nothing at all 0.
    """
    if not case.names_passages:
        return None
    judged = {one.passage: one.relevant for one in reversed(case.parsed.relevance)}
    gold = _gold(case)
    unclear = {
        number
        for number, one in enumerate(case.shown, start=1)
        if one.is_alternative or (one.has_answer and not one.is_gold)
    }
    relevant = {number for number, positive in judged.items() if positive} - unclear
    if not gold and not relevant:
        said_none = bool(judged) or (case.style == "reasoning" and case.parsed.well_formed)
        return float(said_none and case.prediction.failure is None)
    return 2 * len(gold & relevant) / (len(gold) + len(relevant))


def plain(text: str) -> str:
    """Return a text with one space for white space, plain quotation marks and dashes, nothing invisible."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text.translate(_PLAIN))).strip()


def _cites(case: Case) -> bool:
    return case.names_passages and not case.parsed.abstained


def _gold(case: Case) -> set[int]:
    return {number for number, one in enumerate(case.shown, start=1) if one.is_gold}
