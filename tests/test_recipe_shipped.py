"""The recipes that come with rag-ft, found by name, and the schema for editors."""

import json
from pathlib import Path

import pytest

from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.schema import recipe_schema, schema_text
from rag_ft.recipe.shipped import shipped_folder, shipped_recipes

ROOT = Path(__file__).parents[1]


class TestShipped:
    @pytest.mark.parametrize("name", shipped_recipes())
    def test_every_shipped_recipe_loads_by_name(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        overrides = [] if not name.startswith("base/") else ["name=x"]
        assert load_recipe(name, overrides).name

    @pytest.mark.parametrize("path", shipped_recipes().values(), ids=str)
    def test_every_shipped_recipe_points_at_the_schema_and_is_short(self, path):
        lines = path.read_text(encoding="utf-8").splitlines()
        prefix = "# yaml-language-server: $schema="
        assert lines[0].startswith(prefix)
        assert (path.parent / lines[0].removeprefix(prefix)).resolve() == (shipped_folder() / "schema.json").resolve()
        assert len(lines) <= 40

    def test_every_folder_of_recipes_is_in_the_wheel(self):
        packaging = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for folder in {path.parent for path in shipped_recipes().values()} | {shipped_folder()}:
            assert f'"{folder.relative_to(ROOT).as_posix()}/*.yaml"' in packaging


class TestSchema:
    def test_the_committed_schema_is_up_to_date(self):
        committed = (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8")
        assert committed == schema_text(), "run: rag-ft schema -o recipes/schema.json"

    @pytest.mark.parametrize(
        ("recipe", "valid"),
        [
            ({"name": "x"}, True),
            ({"extends": "base.yaml"}, True),
            ({"seed": 1}, False),
            ({"name": "x", "seeed": 1}, False),
            ({"name": "x", "training": {"epochs": "three"}}, False),
            ({"name": "x", "data": {"sources": {"own": {"kind": "jsonl", "path": {"train": ["a"]}}}}}, True),
            ({"name": "x", "data": {"sources": {"own": {"kind": "jsonl", "path": {"trian": ["a"]}}}}}, False),
            ({"name": "x", "data": {"sources": {"own": {"kind": "jsnl", "path": "a"}}}}, False),
            ({"name": "x", "data": {"sources": {"my own": {"kind": "jsonl", "path": "a"}}}}, False),
            ({"name": "x", "data": {"sources": {}}}, False),
            ({"name": "x", "data": {"retrievers": [{"kind": "dense", "model": "m"}]}}, True),
            ({"name": "x", "data": {"retrievers": [{"kind": "dense"}]}}, False),
            ({"name": "x", "data": {"contexts": {"passages": {"kind": "range", "low": 1, "high": 2}}}}, True),
        ],
    )
    def test_it_judges_as_the_loader_does(self, recipe, valid):
        jsonschema = pytest.importorskip("jsonschema")
        validator = jsonschema.Draft202012Validator(recipe_schema())
        assert validator.is_valid(recipe) is valid

    def test_every_setting_has_a_help_text(self):
        schema = json.loads(schema_text())
        owners = [("recipe", schema), *schema["$defs"].items()]
        fields = [(f"{owner}.{key}", field) for owner, of in owners for key, field in of.get("properties", {}).items()]
        helpless = [name for name, field in fields if not self.help_of(field, schema["$defs"])]
        assert helpless == []

    def help_of(self, field, classes):
        return field.get("description") or classes[field["$ref"].rpartition("/")[2]]["description"]
