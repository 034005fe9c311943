"""Which columns of an unknown table hold question, answers and passages, judged by their names. For import-check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NAMES = {
    "question": ("question", "query", "input", "prompt", "instruction"),
    "answers": ("answers", "answer", "golden_answers", "possible_answers", "output", "response", "target", "label"),
    "id": ("id", "_id", "question_id", "query_id", "qid"),
    "context": ("context", "contexts", "passages", "passage", "documents", "document", "paragraphs", "text"),
}
_ANSWER_FIELDS = ("text", "value", "aliases", "answer")
_TEXT_FIELDS = ("text", "passage_text", "paragraph_text", "sentences", "contents")
_TITLE_FIELDS = ("title", "wikipedia_title")
_FLAG_FIELDS = ("is_gold", "is_selected", "is_supporting")


def guess_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return `columns` of kind hub for a table with such rows; without a question, nothing could be guessed."""
    found: dict[str, Any] = {}
    for setting, names in _NAMES.items():
        name = next((name for name in names if row.get(name) is not None), None)
        if name is not None:
            found[setting] = name
    if "answers" in found:
        found["answers"] = _answers(row[found["answers"]], found["answers"])
    elif "question" in found:
        found["answers"] = None
    if "context" in found:
        found |= _context(row, found["context"])
    return found


def _answers(value: Any, name: str) -> str | list[str]:
    inner = [f"{name}.{field}" for field in _fields(value, _ANSWER_FIELDS)]
    return inner if len(inner) > 1 else inner[0] if inner else name


def _context(row: dict[str, Any], name: str) -> dict[str, str]:
    value = row[name]
    text = next(_fields(value, _TEXT_FIELDS), None)
    title = next(_fields(value, _TITLE_FIELDS), None)
    flag = next(_fields(value, _FLAG_FIELDS), None)
    outer = next(_fields(row, _TITLE_FIELDS), None) if text is None else None
    found = {"context": f"{name}.{text}" if text else name}
    if title or outer:
        found["title"] = f"{name}.{title}" if title else str(outer)
    return {**found, "is_gold": f"{name}.{flag}"} if flag else found


def _fields(value: Any, names: tuple[str, ...]) -> Iterator[str]:
    """Yield those of `names` that a struct, or the structs of a list, have."""
    first = value[0] if isinstance(value, list) and value else value
    return (name for name in names if isinstance(first, dict) and name in first)
