"""The settings as Markdown tables for docs/recipe.md, from the settings classes. `python -m` writes them into a file.

Types, defaults, ranges and help come from the JSON Schema, so that page, editor and validation never disagree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from rag_ft.recipe.schema import recipe_schema

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
Schema = Mapping[str, Any]
_FEW = 5  # choices that are joined by "or" alone

_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "`null`",
}
_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "more than"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)


def settings_tables() -> str:
    """Return one table for each section of a recipe, in the order of the classes, as Markdown."""
    schema = recipe_schema()
    return "\n".join(_section("", "Top level", schema, _Page(schema["$defs"])))


@dataclass(frozen=True)
class _Page:
    """The classes by name, and which choices of kinds were shown so far: their names -> heading."""

    definitions: Schema
    shown: dict[tuple[str, ...], str] = field(default_factory=dict)


def with_tables(page: str) -> str:
    """Return a page with the current tables between its markers.

    Raises:
        RagFtError: the page lacks a marker.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RagFtError(f"the page needs the lines {BEGIN} and {END}, once each: add them where the tables go.")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{settings_tables()}\n{END}{after}"


def _section(path: str, heading: str, schema: Schema, page: _Page) -> Iterator[str]:
    """Yield the lines of a section and of the sections inside it; `path` is what its keys begin with."""
    definitions = page.definitions
    yield from (f"### {heading}", "")
    if "description" in schema and path:
        yield from (_one_line(schema["description"]), "")
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    required = schema.get("required", ()) if path else ("name",)
    settings = dict(sorted(schema["properties"].items(), key=lambda item: item[0] != "kind"))  # it decides the others
    for name, setting in settings.items():
        default = "required" if name in required else _default(setting, definitions)
        cells = (f"`{path}{name}`", _type(setting, definitions), default, _help(setting, definitions))
        yield _line(cells)
    yield ""
    of = f" of `kind: {_kind(schema)}`" if _kind(schema) else ""
    for name, setting in settings.items():
        yield from _inside(f"{path}{name}", of, setting, page)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _one_line(text: str) -> str:
    """Return a docstring on one line, as a table needs it."""
    return " ".join(text.split())


def _inside(path: str, of: str, setting: Schema, page: _Page) -> Iterator[str]:
    """Yield the lines of every section that a setting may hold: itself, one of several kinds, or as its entries.

    `of` tells the kind of the section that holds the setting, where it has one.
    """
    heading, prefix, held = f"`{path}`{of}", f"{path}.", setting
    if "items" in setting:
        heading, prefix, held = f"Each of `{path}`{of}", f"{path}.N.", setting["items"]
    elif values := _values(setting):
        heading, prefix, held = f"Each of `{path}`{of}", f"{path}.NAME.", values
    sections = {name: one for name, one in _sections(held, page.definitions) if "properties" in one}
    kinds = {one["properties"]["kind"]["const"]: one for one in sections.values() if _kind(one)}
    if len(kinds) < 2:
        for section in sections.values():
            title = f"{heading} with `kind: {_kind(section)}`" if _kind(section) else heading
            yield from _section(prefix, title, section, page)
        return
    yield from (f"### {heading}", "")
    earlier = page.shown.setdefault(tuple(sections), heading)
    if earlier != heading:
        yield from (f"The same kinds, with the same settings, as {_link(earlier.lower(), earlier)}.", "")
        return
    links = (_link(f"`{kind}`", f"{heading} with `kind: {kind}`") for kind in kinds)
    yield from (f"One of these kinds: {', '.join(links)}.", "")
    for kind, section in kinds.items():
        yield from _section(prefix, f"{heading} with `kind: {kind}`", section, page)


def _link(text: str, heading: str) -> str:
    """Return a link to a heading of the page, by the anchor GitHub gives it."""
    anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return f"[{text}](#{anchor})"


def _sections(held: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield name and schema of every member of a union; anything else as one member."""
    for member in _members(held):
        yield member.get("$ref", "").rpartition("/")[2], _resolved(member, definitions)


def _kind(section: Schema) -> str | None:
    kind: str | None = section["properties"].get("kind", {}).get("const")
    return kind


def _values(setting: Schema) -> Schema | None:
    """Return the schema of a mapping's values, where its keys are the recipe's own names."""
    for member in _members(setting):
        values = member.get("additionalProperties") or next(iter(member.get("patternProperties", {}).values()), None)
        if isinstance(values, dict):
            return values
    return None


def _members(setting: Schema) -> list[Schema]:
    return list(setting.get("anyOf") or setting.get("oneOf") or [setting])


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    found: Schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _help(setting: Schema, definitions: Schema) -> str:
    """Return a setting's help; pydantic leaves it to the class where the two say the same."""
    own: str | None = setting.get("description")
    return _one_line(own if own is not None else str(_resolved(setting, definitions).get("description", "")))


def _default(setting: Schema, definitions: Schema) -> str:
    if "default" not in setting:
        return ""
    if len(_members(setting)) == 1 and "properties" in _resolved(setting, definitions):
        return "see below"
    default = _told(setting["default"], setting, definitions)
    text = yaml.safe_dump(default, default_flow_style=True, sort_keys=False, width=10_000)
    text = text.removesuffix("...\n").strip()  # what YAML writes behind a lone scalar
    return f"`{text}`"


def _told(value: Any, setting: Schema, definitions: Schema) -> Any:
    """Return a default without what its sections have by default themselves."""
    if isinstance(value, list) and "items" in setting:
        return [_told(item, setting["items"], definitions) for item in value]
    values = _values(setting)
    if isinstance(value, dict) and values is not None:
        return {key: _told(item, values, definitions) for key, item in value.items()}
    sections = [one for _, one in _sections(setting, definitions) if "properties" in one]
    fitting = [one for one in sections if _kind(one) in (None, value.get("kind"))] if isinstance(value, dict) else []
    if not fitting:
        return value
    own = fitting[0]["properties"]
    return {key: item for key, item in value.items() if key == "kind" or item != own[key].get("default", own)}


def _type(setting: Schema, definitions: Schema) -> str:
    """Return a type in words, ranges and choices included."""
    members = _members(setting)
    if len(members) > 1:
        return " or ".join(dict.fromkeys(_type(member, definitions) for member in members))
    schema = _resolved(members[0], definitions)
    if "const" in schema or "enum" in schema:
        return _choices([f"`{choice}`" for choice in schema.get("enum", [schema.get("const")])])
    if schema.get("type") == "array":
        return _list_type(schema, definitions)
    if schema.get("type") == "object":
        return "section" if "properties" in schema else _mapping_type(schema, definitions)
    return " ".join(filter(None, [_NAMES[schema["type"]], _range(schema)]))


def _choices(choices: Sequence[str]) -> str:
    return " or ".join(choices) if len(choices) <= _FEW else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:g}"
    return " and ".join(f"{words} {schema[key]:g}" for key, words in _BOUNDS if key in schema)


def _list_type(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        types = [_type(item, definitions) for item in schema["prefixItems"]]
        return f"list of {len(types)}: {', '.join(dict.fromkeys(types))}"
    entry = _type(schema["items"], definitions)
    return f"list of {_several(entry)} (not empty)" if schema.get("minItems") else f"list of {_several(entry)}"


def _mapping_type(schema: Schema, definitions: Schema) -> str:
    values, keys = _values(schema), schema.get("propertyNames")
    if values is None:
        return "mapping"
    of_keys = " of names" if "patternProperties" in schema else ""
    if keys:
        of_keys = f" of {_type(keys, definitions).replace(' or ', ', ')}"
    return f"mapping{of_keys} to {_several(_type(values, definitions))}"


def _several(entry: str) -> str:
    return "sections" if entry == "section" else entry


if __name__ == "__main__":
    page = Path(sys.argv[1])
    text = with_tables(page.read_text(encoding="utf-8"))
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
