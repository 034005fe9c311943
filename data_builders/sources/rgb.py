"""RGB (Chen et al. 2024): news questions with positive, negative and counterfactual passages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice, product, zip_longest
from pathlib import Path
from typing import Any, Literal

from data_builders.records import Passage, Question
from data_builders.sources.passage_rows import Listed, ids_of, passage_of, question_text, ranking_of, text_at
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, shown, text_of

_MOST_ANSWERS = 24  # ways to say an answer of several parts; three parts of five aliases would make 125


class RgbSettings(FileSettings):
    """The robustness benchmark RGB; reports keep integration and counterfactual questions apart."""

    kind: Literal["rgb"]
    """en.json, en_int.json, en_fact.json and their Chinese kin: one JSON object a line."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield a row's passages, its question and their order: positive, counterfactual, negative.

    Every positive passage answers alone, so the first is gold and the others are alternatives. Where the answer has
    several parts (integration), `positive` has a list for each, and the first of each list is needed.
    """
    groups = _groups(row)
    wrong, negative = _passages(row, "positive_wrong"), _passages(row, "negative")
    positive = [passage for turn in zip_longest(*groups) for passage in turn if passage is not None]
    passages = list(dict.fromkeys([*positive, *wrong, *negative]))
    yield from passages
    id_ = f"{Path(place.file).name.partition('.')[0]}-{text_of(row, 'id')}"  # the files of RGB all count from 0
    gold = ids_of(group[0] for group in groups)
    yield Question(
        id=id_,
        question=question_text(row, "query"),
        answers=spoken_answers(_parts(row)),
        gold=gold,
        source=place.source,
        group="integration" if _nested(row) else "counterfactual" if wrong else "",
        alternatives=tuple(name for name in ids_of(positive) if name not in gold),
    )
    yield from ranking_of(id_, [Listed(passage) for passage in passages])


def _parts(row: dict[str, Any]) -> list[list[str]]:
    """Return the parts of the answer, all of them required, each with its aliases, as RGB's own scoring reads them."""
    answer = row.get("answer")
    if answer is None:
        raise BadRow("answer", "is missing")
    parts = []
    for number, part in enumerate(answer if isinstance(answer, list) else [answer]):
        key = f"answer.{number}"
        aliases = [text_at(alias, key).strip() for alias in (part if isinstance(part, list) else [part])]
        parts.append(list(dict.fromkeys(filter(None, aliases))))
        if not parts[-1]:
            raise BadRow(key, "is empty")
    if not parts:
        raise BadRow("answer", "is empty")
    return parts


def spoken_answers(parts: list[list[str]]) -> tuple[str, ...]:
    """Return whole answers of all `parts`, which are lists of aliases: "a, b" in every spelling, then "a and b"."""
    with_commas = (", ".join(chosen) for chosen in product(*parts))
    with_and = (" and ".join(filter(None, (", ".join(chosen[:-1]), chosen[-1]))) for chosen in product(*parts))
    half = _MOST_ANSWERS // 2 if len(parts) > 1 else None
    return tuple(dict.fromkeys(chain(islice(with_commas, half), islice(with_and, half))))


def _nested(row: dict[str, Any]) -> bool:
    positive = row.get("positive")
    return isinstance(positive, list) and any(isinstance(group, list) for group in positive)


def _groups(row: dict[str, Any]) -> list[list[Passage]]:
    """Return the positive passages as lists: one for each part of the answer, or one for all of it."""
    if not _nested(row):
        passages = _passages(row, "positive", required=True)
        return [passages] if passages else []
    groups = [_texts(group, f"positive.{number}") for number, group in enumerate(row["positive"])]
    empty = next((number for number, group in enumerate(groups) if not group), None)
    if empty is not None:
        raise BadRow(f"positive.{empty}", "is empty")
    return groups


def _passages(row: dict[str, Any], field: str, required: bool = False) -> list[Passage]:
    if row.get(field) is None:
        if required:
            raise BadRow(field, "is missing")
        return []
    return _texts(row[field], field)


def _texts(value: Any, key: str) -> list[Passage]:
    if not isinstance(value, list):
        raise BadRow(key, f"is {shown(value)}, not a list of passages")
    texts = (text_at(text, f"{key}.{number}") for number, text in enumerate(value))
    return list(dict.fromkeys(passage_of("", text) for text in texts))


RGB = Format(
    kind="rgb",
    example={
        "id": 0,
        "query": "When was the Aldern bridge opened?",
        "answer": [["1932", "in 1932"]],
        "positive": ["The Aldern bridge was opened in 1932."],
        "negative": ["Aldern lies on the Ruhne."],
    },
    parse=parse,
)
