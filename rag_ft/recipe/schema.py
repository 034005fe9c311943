"""The JSON Schema of recipes, for editors. Generated from the settings classes."""

from __future__ import annotations

import json
from typing import Any

from rag_ft.recipe.settings import Recipe


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file, `extends` included.

    With `extends` any key may come from the base recipe, so `name` is required only without it.
    """
    schema = Recipe.model_json_schema()
    schema["properties"] = {
        "extends": {"type": "string", "description": "A base recipe: a path relative to this file, or a shipped name."}
    } | schema["properties"]
    schema["if"] = {"required": ["extends"]}
    schema["else"] = {"required": schema.pop("required")}
    _close_mappings(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _close_mappings(schema: Any) -> None:
    """Refuse keys that fit no pattern, as the loader does; pydantic leaves them open."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            _close_mappings(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close_mappings(inner)


def schema_text() -> str:
    """Return the schema as the text of `recipes/schema.json`."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"
