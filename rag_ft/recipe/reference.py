"""The settings as Markdown tables for docs/recipe.md, from the settings classes. `python -m` writes them into a file.

Types, defaults, ranges and help come from the JSON Schema, so that page, editor and validation never disagree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from rag_ft.recipe.schema import recipe_schema

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
Schema = Mapping[str, Any]

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
    return "\n".join(_section("", "Top level", schema, schema["$defs"]))


def with_tables(page: str) -> str:
    """Return a page with the current tables between its markers.

    Raises:
        RagFtError: the page lacks a marker.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RagFtError(f"the page needs the lines {BEGIN} and {END}, once each: add them where the tables go.")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{settings_tables()}\n{END}{after}"


def _section(path: str, heading: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """Yield the lines of a section and of the sections inside it; `path` is what its keys begin with."""
    yield from (f"### {heading}", "")
    if "description" in schema and path:
        yield from (schema["description"], "")
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    required = schema.get("required", ()) if path else ("name",)
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field, definitions)
        cells = (f"`{path}{name}`", _type(field, definitions), default, _help(field, definitions))
        yield _line(cells)
    yield ""
    for name, field in schema["properties"].items():
        for title, inner in _inside(f"{path}{name}", field, definitions):
            prefix = f"{path}{name}.N." if "items" in field else f"{path}{name}."
            yield from _section(prefix, title, inner, definitions)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _inside(path: str, field: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield heading and schema of each kind of section that a field may hold."""
    if "items" in field:
        yield from ((f"Each of {title}", inner) for title, inner in _inside(path, field["items"], definitions))
        return
    members = [_resolved(member, definitions) for member in _members(field)]
    sections = [member for member in members if "properties" in member]
    for section in sections:
        kind = section["properties"].get("kind", {}).get("const")
        yield (f"`{path}` with `kind: {kind}`" if kind else f"`{path}`"), section


def _members(field: Schema) -> list[Schema]:
    return list(field.get("anyOf") or field.get("oneOf") or [field])


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    found: Schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _help(field: Schema, definitions: Schema) -> str:
    """Return a field's help; pydantic leaves it to the class where the two say the same."""
    own: str | None = field.get("description")
    return own if own is not None else str(_resolved(field, definitions).get("description", ""))


def _default(field: Schema, definitions: Schema) -> str:
    if "default" not in field:
        return ""
    if len(_members(field)) == 1 and "properties" in _resolved(field, definitions):
        return "see below"
    text = yaml.safe_dump(field["default"], default_flow_style=True, sort_keys=False, width=10_000)
    text = text.removesuffix("...\n").strip()  # what YAML writes behind a lone scalar
    return f"`{text}`"


def _type(field: Schema, definitions: Schema) -> str:
    """Return a type in words, ranges and choices included."""
    members = _members(field)
    if len(members) > 1:
        return " or ".join(dict.fromkeys(_type(member, definitions) for member in members))
    schema = _resolved(members[0], definitions)
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return _list_type(schema, definitions)
    if schema.get("type") == "object":
        return "section" if "properties" in schema else _mapping_type(schema, definitions)
    return " ".join(filter(None, [_NAMES[schema["type"]], _range(schema)]))


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:g}"
    return " and ".join(f"{words} {schema[key]:g}" for key, words in _BOUNDS if key in schema)


def _list_type(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        types = [_type(item, definitions) for item in schema["prefixItems"]]
        return f"list of {len(types)}: {', '.join(dict.fromkeys(types))}"
    entry = _type(schema["items"], definitions)
    return f"list of {entry}, not empty" if schema.get("minItems") else f"list of {entry}"


def _mapping_type(schema: Schema, definitions: Schema) -> str:
    values = schema.get("additionalProperties")
    keys = schema.get("propertyNames")
    of_keys = f" of {_type(keys, definitions)}" if keys else ""
    return f"mapping{of_keys} to {_type(values, definitions)}" if isinstance(values, dict) else "mapping"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    text = with_tables(page.read_text(encoding="utf-8"))
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
