"""README.ko.md says what README.md says: the same commands, recipe, code, pictures and numbers."""

import ast
import re
import shlex

import yaml
from test_docs import ROOT, blocks


def lines_of(page, language):
    return [line for text in blocks(page, language) for line in text.splitlines()]


class TestKorean:
    PAGES = (ROOT / "README.md", ROOT / "README.ko.md")

    def test_commands_are_the_same(self):
        english, korean = ([shlex.split(line, comments=True) for line in lines_of(page, "bash")] for page in self.PAGES)
        assert english
        assert korean == english

    def test_recipe_and_code_are_the_same_but_for_comments(self):
        for language, read in (("yaml", yaml.safe_load), ("python", lambda text: ast.dump(ast.parse(text)))):
            english, korean = ([read(text) for text in blocks(page, language)] for page in self.PAGES)
            assert english
            assert korean == english

    def test_results_and_pictures_are_the_same(self):
        english, korean = (page.read_text() for page in self.PAGES)
        for pattern in (r"(\d+ %) \|", r"!\[[^\]]*\]\(([^)]+)\)"):
            assert re.findall(pattern, english)
            assert re.findall(pattern, korean) == re.findall(pattern, english)
        change, low, high = re.search(
            r"passages: ([+-]\d+) points \(95 % interval (-?\d+) to (-?\d+)\)", english
        ).groups()
        assert f"{change}\uc810" in korean  # points
        assert f"{low}~{high}" in korean
