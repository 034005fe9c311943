"""What a person reads when a step is done: counts, tables, what was left out, advice. Counts nothing itself."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_builders.manifest import Tally

WIDTH = 98  # of a line; steps.py puts two spaces before it
_PRINTED = 2  # excerpts of each name; the manifest has the others
_SAMPLE = 40  # characters of an id
_HEADS = {"p5": "5 %", "p95": "95 %"}
_SPELLED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def report_lines(tally: Tally) -> Iterator[str]:
    """Yield the report of a step, a line at a time; nothing that came from a file can move the cursor or set colours.

    Numbers first, then what was left out and why, tables, distributions, examples to read, and what to change.
    """
    rows = {name: count for name, count in tally.rows.items() if not _is_twin(name, tally.rows)}
    numbers = {f"row{'s' * (count != 1)} of {name}": count for name, count in rows.items()}
    numbers |= {name: value for name, value in tally.counts.items() if not isinstance(value, dict)}
    yield from _numbers(numbers)
    if tally.dropped:
        yield "left out"
        yield from _left_out(tally)
    for name, value in tally.counts.items():
        if isinstance(value, dict):
            yield from _section(name, value)
    quantiles = tally.quantiles()
    if quantiles:
        yield from _grid("", quantiles)
    for name, texts in tally.excerpts.items():
        yield f"{name}, for example"
        yield from (line for text in texts[:_PRINTED] for line in _wrapped(printable(text), "- ", "  "))
    for advice in tally.advice:
        yield from _wrapped(advice, "", "  ")


def printable(text: str) -> str:
    """Return a text from outside as it may stand in a terminal, control characters and their kin spelled out.

    Spelled out are all characters of Unicode's groups C (controls, formats such as the bidirectional ones, surrogates,
    unassigned) and line separators, so that no file can move the cursor, set colours or reorder what is read.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _SPELLED else char for char in text
    )


def _is_twin(name: str, rows: Mapping[str, int]) -> bool:
    """Tell whether a file holds the numbers of the table of its name, row by row."""
    return name.endswith(".arrow") and rows.get(f"{name.removesuffix('.arrow')}.parquet") == rows[name]


def _numbers(numbers: Mapping[str, Any], samples: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a line per number that is not 0, numbers first and aligned."""
    shown = {name: _shown(value) for name, value in numbers.items() if value}
    width = max(map(len, shown.values()), default=0)
    for name, value in shown.items():
        yield f"{value:>{width}} {name}{(samples or {}).get(name, '')}"


def _left_out(tally: Tally) -> Iterator[str]:
    """Yield reasons with how many, and as many of the first ids as the line has room for."""
    samples = {}
    for reason in tally.dropped:
        ids = [_short(printable(one)) for one in tally.samples.get(reason, [])]
        room = WIDTH - len(reason) - 12
        fitting = [one for place, one in enumerate(ids) if len(", ".join(ids[: place + 1])) <= room]
        samples[reason] = f": {', '.join(fitting or ids[:1])}" if ids else ""
    yield from (f"  {line}" for line in _numbers(dict(sorted(tally.dropped.items())), samples))


def _short(id_: str) -> str:
    return id_ if len(id_) <= _SAMPLE else f"{id_[: _SAMPLE - 3]}..."


def _section(name: str, value: Mapping[Any, Any]) -> Iterator[str]:
    """Yield numbers by name: rows that share their keys as a table, others in a line."""
    tables = {key: item for key, item in value.items() if isinstance(item, dict)}
    rest = {key: item for key, item in value.items() if key not in tables}
    if tables and all(isinstance(item, dict) for table in tables.values() for item in table.values()):
        for key, table in tables.items():
            yield from _grid(f"{name}: {key}", table)
    elif tables:
        yield from _grid(name, tables)
    if tables:
        yield from (f"  {key}: {_shown(item)}" for key, item in rest.items())
    elif rest:
        pairs = "  ".join(f"{key}:\u00a0{_shown(item)}" for key, item in rest.items())  # a pair stays on its line
        yield from (line.replace("\u00a0", " ") for line in _wrapped(pairs, f"{name}  ", "  "))


def _grid(title: str, rows: Mapping[str, Mapping[Any, Any]]) -> Iterator[str]:
    """Yield rows of numbers as a table: a line of column heads, then the rows, numbers to the right."""
    heads = list(dict.fromkeys(key for row in rows.values() for key in row))
    labels = [f"  {name}" if title else name for name in rows]
    left = max(map(len, [title, *labels]))
    columns = [_column(head, [row.get(head) for row in rows.values()]) for head in heads]
    for number, label in enumerate([title, *labels]):
        yield (label.ljust(left) + "".join(f"  {column[number]}" for column in columns)).rstrip()


def _column(head: Any, values: Sequence[Any]) -> list[str]:
    digits = 2 if head == "mean" else 3
    texts = [_HEADS.get(str(head), str(head)), *("" if value is None else _shown(value, digits) for value in values)]
    width = max(map(len, texts))
    return [text.rjust(width) for text in texts]


def _shown(value: Any, digits: int = 3) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
