"""Reading what a teacher wrote as JSON into a label, as tolerantly as leaves no doubt. Judges nothing of what it says.

Forgiven: thoughts in front, prose and fences around the object, trailing commas, Python's literals and quotation marks,
numbers as strings, keys in capitals, further keys. Not forgiven: a part that is missing or cut off, a passage judged
two ways. Passages are numbered from 1 in what is read, from 0 in labels; a number may be that of no passage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_builders.labels.prompts import WrittenStyle
from data_builders.records import Evidence, Label, Relevance
from data_builders.templates import without_thoughts

LONGEST = 200_000
"""Characters of an output that are read."""
_TRIES = 300
"""Opening braces that are tried as the beginning of the object."""
_EXPECTED = frozenset({"relevance", "evidence", "analysis", "answer"})
# A string, whose apostrophes may stand inside single quotes unless what follows could end it; a word; a comma too many.
# Apostrophes and escapes in a string are bounded: else a row of apostrophes, each tried as its beginning, takes hours.
_TOKEN = re.compile(
    r'"(?:[^"\\]++|\\.){0,1000}+"'
    r"|'(?:[^'\\\n]++|\\.|'(?!\s*[:,\]}])){0,500}+'(?=\s*[:,\]}])"
    r"|(?<![\w.])(?:True|False|None)(?!\w)"
    r"|,(?=\s*[\]}])",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null", ",": ""}
_YES = frozenset({"yes", "true", "relevant", "1"})
_NO = frozenset({"no", "false", "irrelevant", "not relevant", "0"})
NOTHING = frozenset({"", "null", "none", "n/a"})


@dataclass(frozen=True)
class Parsed:
    """A label, as far as it could be read.

    Attributes:
        label: what was read; empty where nothing was.
        problems: what could not be read, a sentence each, for whoever writes again.
        readable: there was an object with parts of a label at all.
    """

    label: Label
    problems: tuple[str, ...] = ()
    readable: bool = True


def parse_label(output: str, style: WrittenStyle, passages: int, *, truncated: bool = False) -> Parsed:
    """Read an output. Never raises: outputs are untrusted.

    Args:
        output: as it came.
        style: decides which parts there must be.
        passages: how many were shown.
        truncated: it was cut off at the most tokens allowed.
    """
    found = _label_object(without_thoughts(output)[:LONGEST])
    if found is None:
        return Parsed(Label((), (), "", None), (CUT_OFF if truncated else _NO_OBJECT,), readable=False)
    problems: list[str] = []
    relevance = tuple(sorted(_relevance(found, style, problems), key=lambda item: item.passage))
    label = Label(relevance, (), "", _answer(found, problems))
    if style == "self_reasoning":
        label = Label(relevance, tuple(_evidence(found, problems)), _analysis(found, problems), label.answer)
        problems += unjudged(relevance, passages)
    return Parsed(label, tuple(dict.fromkeys(problems)))


CUT_OFF = "It was cut off before its end: write it shorter."
_NO_OBJECT = 'There is no complete JSON object with the keys "relevance" and "answer" in it.'


def _label_object(text: str) -> dict[str, Any] | None:
    """Return the last object that has an answer, else the last with any part of a label; as JSON, else mended."""
    start = text.find("{")
    if start < 0:
        return None
    for variant in (text[start:], _TOKEN.sub(_mended, text[start:])):
        found = list(_objects(variant))
        if found:
            return next((item for item in reversed(found) if "answer" in item), found[-1])
    return None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield every object with a key of a label, outermost first; objects inside one are not looked at."""
    decoder, start, tries = json.JSONDecoder(strict=False), text.find("{"), 0
    while start >= 0 and tries < _TRIES:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = None, start + 1
        named = {str(key).strip().lower(): item for key, item in value.items()} if isinstance(value, dict) else {}
        known = bool(_EXPECTED & set(named))
        if known:
            yield named
        start = text.find("{", end if known else start + 1)


def _mended(token: re.Match[str]) -> str:
    """Return a token as JSON has it."""
    text = token.group()
    if text[0] != "'":
        return _WORDS.get(text, text)
    inside = re.sub(r"\\'", "'", text[1:-1])
    return '"' + re.sub(r'(?<!\\)"', r"\\" + '"', inside) + '"'


def _relevance(found: dict[str, Any], style: WrittenStyle, problems: list[str]) -> Iterator[Relevance]:
    """Yield one judgement for each passage that is judged."""
    seen: dict[int, bool] = {}
    for item in _items(found, "relevance", problems):
        number, reason = _number(item.get("passage")), _text(item.get("reason"))
        relevant = _verdict(item.get("relevant", True if style == "reasoning" else None))
        if number is None:
            problems.append('An entry of "relevance" has no passage number.')
        elif relevant is None:
            problems.append(f'"relevance" does not say true or false of passage {number}.')
        elif not reason:
            problems.append(f'"relevance" gives no reason for passage {number}.')
        elif number not in seen:
            seen[number] = relevant
            yield Relevance(number - 1, relevant, reason)
        elif seen[number] != relevant:
            problems.append(f'"relevance" judges passage {number} twice, and differently.')


def unjudged(relevance: tuple[Relevance, ...], passages: int) -> list[str]:
    """Return what to say about passages that no judgement names."""
    judged = {item.passage + 1 for item in relevance}
    missing = [str(number) for number in range(1, passages + 1) if number not in judged]
    return [f'"relevance" has no entry for passage {", ".join(missing)}.'] if missing else []


def _evidence(found: dict[str, Any], problems: list[str]) -> Iterator[Evidence]:
    if found.get("evidence") in (None, "none") and "answer" in found and _answer(found, []) is None:
        return  # an abstention has none
    for item in _items(found, "evidence", problems):
        number, quote, reason = _number(item.get("passage")), _text(item.get("quote")), _text(item.get("reason"))
        if number is None:
            problems.append('An entry of "evidence" has no passage number.')
        elif not quote:
            problems.append(f'"evidence" quotes nothing of passage {number}.')
        elif not reason:
            problems.append(f'"evidence" gives no reason for its quote of passage {number}.')
        else:
            yield Evidence(number - 1, quote, reason)


def _analysis(found: dict[str, Any], problems: list[str]) -> str:
    analysis = _text(found.get("analysis"))
    if not analysis:
        problems.append('There is no "analysis".')
    return analysis


def _answer(found: dict[str, Any], problems: list[str]) -> str | None:
    """Return the answer; None where the writer abstains."""
    answer = found.get("answer")
    if "answer" not in found:
        problems.append('There is no "answer": write null where the passages do not answer.')
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if answer is not None and not isinstance(answer, str | int | float):
        problems.append('"answer" is neither a text nor null.')
        return None
    text = "" if answer is None else _text(str(answer))
    return None if text.lower() in NOTHING else text


def _items(found: dict[str, Any], name: str, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a list, their keys in small letters; passage numbers may be the keys of an object."""
    entries = found.get(name)
    if isinstance(entries, dict):
        entries = [{"passage": key, **item} if isinstance(item, dict) else item for key, item in entries.items()]
    if not isinstance(entries, list):
        problems.append(f'"{name}" is no list.' if name in found else f'There is no "{name}".')
        return
    for entry in entries:
        if isinstance(entry, dict):
            yield {str(key).strip().lower(): item for key, item in entry.items()}
        else:
            problems.append(f'An entry of "{name}" is no object.')


def _number(value: Any) -> int | None:
    """Return a passage number: 2, "2", "[2]", "passage 2"; None where there is none, or more than one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    numbers = re.findall(r"-?\d+", str(value))
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) <= 6 else None


def _verdict(value: Any) -> bool | None:
    word = str(value).strip().rstrip(".").lower()
    return True if word in _YES else False if word in _NO else None


def _text(value: Any) -> str:
    """Return a text without halves of surrogate pairs, which JSON can hold and no file."""
    return value.strip().encode("utf-8", "replace").decode() if isinstance(value, str) else ""
