"""Text and Markdown files become blocks and tables, their lines as they are. Renders nothing."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from data_builders.documents.parts import Block, Part, Report, Row, Table, UnreadableError, clean

_CONTROLS = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")  # without escape, which starts a terminal's colours
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEADING = re.compile(r"^ {0,3}#{1,6}(?:[ \t]+(?P<text>.*?))?(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})")
_RULE = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")


def decode(data: bytes, report: Report, declared: str | None = None) -> str:
    """Return the text of a file: by its byte order mark, as UTF-8, as it declares, as Korean or Western Windows text.

    Raises:
        UnreadableError: it is no text.
    """
    mark = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    names = [mark] if mark else ["utf-8", *([declared] if declared else []), *(["cp949"] if _is_korean(data) else [])]
    text, name = next(_decoded(data, names), (data.decode("cp1252", "replace"), "cp1252"))
    if "\x00" in text or _is_noise(text):
        raise UnreadableError("files that are not text")
    report.counts[f"files read as {name}"] += name not in ("utf-8", "utf-8-sig")
    return clean(text)


def _is_noise(text: str) -> bool:
    """Tell whether more than a fiftieth of a text are controls that no text has: bytes of something else."""
    return len(_CONTROLS.findall(text)) > max(len(text) // 50, 2)


def _decoded(data: bytes, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield data.decode(name), name.lower()
        except (UnicodeError, LookupError):  # a name that a page invents, or codecs that are not of text
            continue


def _is_korean(data: bytes) -> bool:
    """Tell whether bytes that are not UTF-8 read as Korean: most letters beyond ASCII are then Hangul."""
    try:
        beyond = [letter for letter in data.decode("cp949") if letter > "\x7f"]
    except UnicodeDecodeError:
        return False
    return sum("\uac00" <= letter <= "\ud7a3" for letter in beyond) > len(beyond) / 2


def text_parts(text: str) -> tuple[str, tuple[Part, ...]]:
    """Return no title and the paragraphs of a plain text, which empty lines divide."""
    return "", tuple(Block(part.strip("\n")) for part in re.split(r"\n[ \t]*\n", text) if part.strip())


def markdown_parts(text: str) -> tuple[str, tuple[Part, ...]]:
    """Return the title of a Markdown text (front matter or first heading) and its blocks and tables."""
    title, text = _front_matter(text)
    parts = tuple(_markdown_blocks(text.split("\n")))
    headings = (part for part in parts if isinstance(part, Block) and part.kind == "heading")
    first = next(headings, None)
    found = _HEADING.match(first.text) if first else None
    return title or ((found.group("text") or "").strip() if found else ""), parts


def _front_matter(text: str) -> tuple[str, str]:
    """Take YAML between two lines of dashes off the beginning; return the title it gives and the rest."""
    match = re.match(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|$)", text, re.S)
    if not match:
        return "", text
    import yaml

    try:
        fields = yaml.safe_load(match.group(1))
    except (yaml.YAMLError, ValueError, RecursionError):
        return "", text
    if not isinstance(fields, dict):
        return "", text
    title = fields.get("title")
    return " ".join(title.split()) if isinstance(title, str) else "", text[match.end() :]


def _markdown_blocks(lines: list[str]) -> Iterator[Part]:
    place, held = 0, list[str]()
    while place < len(lines):
        stop, part = _special(lines, place)
        if part is None and lines[place].strip():
            held.append(lines[place])
        elif held:
            yield Block("\n".join(held))
            held = []
        if part is not None:
            yield part
        place = stop
    if held:
        yield Block("\n".join(held))


def _special(lines: list[str], place: int) -> tuple[int, Part | None]:
    """Return where the heading, code or table at `place` ends, and it; None if a line of text stands there."""
    line = lines[place]
    if _HEADING.match(line):
        return place + 1, Block(line.strip(), "heading")
    if fence := _FENCE.match(line):
        mark = fence.group("fence")
        close = re.compile(rf"^ {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
        stop = next((n for n in range(place + 1, len(lines)) if close.match(lines[n])), len(lines) - 1) + 1
        return stop, Block("\n".join(lines[place:stop]), "code")
    if "|" in line and place + 2 < len(lines) and _RULE.match(lines[place + 1]) and "|" in lines[place + 2]:
        return _table(lines, place)
    return place + 1, None


def _table(lines: list[str], place: int) -> tuple[int, Part | None]:
    header = _cells(lines[place])
    if len(_cells(lines[place + 1])) != len(header):
        return place + 1, None
    stop = place + 2
    while stop < len(lines) and "|" in lines[stop]:
        stop += 1
    rows = (_cells(line)[: len(header)] for line in lines[place + 2 : stop])
    return stop, Table(header, tuple(Row(row + ("",) * (len(header) - len(row))) for row in rows), (header,))


def _cells(line: str) -> tuple[str, ...]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return tuple(cell.strip() for cell in _CELL_BORDER.split(inner))
