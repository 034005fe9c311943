"""From a row of any table to passages and a question, by the columns a recipe names. Loads no data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from data_builders.errors import RagFtError
from data_builders.records import Passage, Question
from data_builders.settings import Settings
from data_builders.sources.rows import BadRow, Place, SourceRecord, hashed_id, shown, text_of, texts_of

Columns = str | Annotated[tuple[str, ...], Field(min_length=1)]


class HubColumns(Settings):
    """Which columns hold what; dots lead into structs and lists: `answers.text`, `context.sentences`."""

    question: str = "question"
    """The question's text."""
    answers: Columns | None = "answers"
    """Accepted answers, a text or texts; several columns are joined, the first one first; null: the data has none."""
    id: str | None = None
    """The question's id; null makes one of its text."""
    context: Columns | None = None
    """Its passages: a text, a list of texts, or a list of lists of sentences."""
    title: str | None = None
    """Titles of the passages: one for all, or as many as there are passages."""
    gold: str | None = None
    """Which passages are gold: their numbers from 0, their texts or their titles; null: a single passage is."""
    is_gold: str | None = None
    """Instead of `gold`: true or false (1 or 0) for every passage."""
    group: str | None = None
    """The slice of the data a question is reported under."""


def parse_columns(columns: HubColumns, row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the passages and the question of one row.

    Raises:
        RagFtError: a column is not there.
        BadRow: a value is not what its setting needs; the field is named as the recipe names it.
    """
    passages = _passages(columns, row)
    yield from dict.fromkeys(passages)
    text = _text(row, columns.question)
    if not text.strip():
        raise BadRow(columns.question, "is empty")
    answers = _texts(row, columns.answers)
    answerable = columns.answers is None or bool(answers)
    yield Question(
        id=_text(row, columns.id) if columns.id else hashed_id("q", text, *answers),
        question=text,
        answers=answers,
        gold=tuple(passages[number].id for number in _gold(columns, row, passages)) if answerable else (),
        source=place.source,
        group=_text(row, columns.group) if columns.group else "",
    )


def value_at(row: dict[str, Any], path: str) -> Any:
    """Return what stands at a dotted path; in a list, what stands there in each item.

    Raises:
        RagFtError: there is no such column or field; the message lists those there are.
    """
    return row[path] if path in row else _inside(row, path.split("."), path)


def _inside(value: Any, steps: list[str], path: str) -> Any:
    if not steps or value is None:
        return value
    if isinstance(value, list):
        return [_inside(item, steps, path) for item in value]
    if not isinstance(value, dict) or steps[0] not in value:
        there = (
            f"only {', '.join(map(str, value))}"
            if isinstance(value, dict)
            else f"a value without fields: {shown(value)}"
        )
        raise RagFtError(
            f"there is no column {path}: where {steps[0]} should be, there is {there[:300]}. "
            "Name the columns under data.sources.<name>.columns; dots lead into structs and lists (answers.text)."
        )
    return _inside(value[steps[0]], steps[1:], path)


def _text(row: dict[str, Any], path: str) -> str:
    return text_of({path: value_at(row, path)}, path)


def _texts(row: dict[str, Any], paths: Columns | None) -> tuple[str, ...]:
    """Return the texts of one or several columns, each once; null, empty texts and empty lists are none.

    A true or false answer (BoolQ) is yes or no.
    """
    found: dict[str, None] = {}
    for path in (paths,) if isinstance(paths, str) else paths or ():
        flat = [item for item in _flat(value_at(row, path)) if item is not None and item != ""]
        _refuse_fields(flat, path)
        flat = [("no", "yes")[item] if isinstance(item, bool) else item for item in flat]
        found |= dict.fromkeys(texts_of({path: flat}, path))
    return tuple(found)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _passages(columns: HubColumns, row: dict[str, Any]) -> list[Passage]:
    paths = (columns.context,) if isinstance(columns.context, str) else columns.context or ()
    texts = [text for path in paths for text in _contexts(value_at(row, path), path)]
    titles = _titles(columns.title, row, len(texts))
    pairs = zip(titles, texts, strict=True)
    return [Passage(hashed_id("p", title, text), title, text, document=title) for title, text in pairs]


def _contexts(value: Any, path: str) -> list[str]:
    """Return passages; each may be a list of sentences."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    _refuse_fields(items, path)
    passages = [" ".join(part.strip() for part in item) if _is_texts(item) else item for item in items]
    return [text_of({path: passage}, path) for passage in passages]


def _refuse_fields(items: list[Any], path: str) -> None:
    if items and isinstance(items[0], dict):
        raise BadRow(path, f"has fields: name the one with the text, for example {path}.{next(iter(items[0]), 'text')}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _titles(path: str | None, row: dict[str, Any], count: int) -> list[str]:
    if path is None:
        return [""] * count
    value = value_at(row, path)
    titles = value if isinstance(value, list) else [value] * count
    if len(titles) != count:
        raise BadRow(path, f"has {len(titles)} titles for {count} passages")
    return ["" if title is None else text_of({path: title}, path) for title in titles]


def _gold(columns: HubColumns, row: dict[str, Any], passages: list[Passage]) -> list[int]:
    """Return the numbers of the gold passages, in the order they are named."""
    if columns.is_gold:
        return _flagged(list(_flat(value_at(row, columns.is_gold))), columns.is_gold, len(passages))
    if not columns.gold:
        return [0] if len(passages) == 1 else []
    named = [item for item in _flat(value_at(row, columns.gold)) if item is not None]
    return list(dict.fromkeys(number for item in named for number in _named(item, columns.gold, passages)))


def _flagged(flags: list[Any], path: str, count: int) -> list[int]:
    if len(flags) != count or any(flag not in (True, False) for flag in flags):
        raise BadRow(path, f"is {shown(flags)}, not true or false for each of {count} passages")
    return [number for number, flag in enumerate(flags) if flag]


def _named(item: Any, path: str, passages: list[Passage]) -> list[int]:
    if isinstance(item, str):
        found = [n for n, passage in enumerate(passages) if passage.text == item]
        found = found or [n for n, passage in enumerate(passages) if passage.title == item]
    else:
        whole = isinstance(item, int) and not isinstance(item, bool)
        found = [item] if whole and 0 <= item < len(passages) else []
    if not found:
        raise BadRow(path, f"names {shown(item)}, which is no number, text or title of its {len(passages)} passages")
    return found
