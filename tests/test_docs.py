"""README and docs tell the truth: commands parse and run, links resolve, tables and samples are what the code gives."""

import ast
import re
import shlex
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

from data_builders.build import data_paths
from data_builders.records import read_context_rows, read_passages, read_questions
from rag_ft.cli import VERBS, main
from rag_ft.prompting.render import render_target
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.reference import settings_tables, with_tables

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
LIGHT_VERBS = ("recipes", "check", "schema", "doctor")
HEAVY = ("torch", "transformers", "trl", "peft")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page, language):
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def commands():
    """Yield (page, arguments) of every rag-ft command in a bash block; the module for launchers is the verb train."""
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash")).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["rag-ft"]:
                yield page.name, words[1:]
            elif "rag_ft.train" in words:
                yield page.name, ["train", *words[words.index("rag_ft.train") + 1 :]]


def case(value):
    page, arguments = value
    return pytest.param(arguments, id=f"{page}: {' '.join(arguments)}")


COMMANDS = [case(command) for command in dict.fromkeys((page, tuple(words)) for page, words in commands())]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the copies that docs tell to make have been made, and the shipped recipes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "mine.yaml").write_text((ROOT / "recipes/quickstart.yaml").read_text())
    (tmp_path / "quickstart.yaml").write_text((ROOT / "recipes/quickstart.yaml").read_text())
    return tmp_path


def parse(verb, arguments):
    app = typer.Typer(add_completion=False)
    app.command()(import_module(f"rag_ft.cli.{verb}").run)
    return typer.main.get_command(app).make_context(verb, list(arguments)).params


class TestCommands:
    @pytest.mark.parametrize("arguments", COMMANDS)
    def test_command_in_docs_parses_and_its_recipe_and_overrides_load(self, arguments, folder):
        verb, *rest = arguments
        assert verb in VERBS
        values = parse(verb, rest)
        if "recipe" in values:
            load_recipe(values["recipe"], values["overrides"] or ())

    @pytest.mark.parametrize(
        "arguments", [one for one in COMMANDS if one.values[0][0] in LIGHT_VERBS and "-o" not in one.values[0]]
    )
    def test_light_command_in_docs_succeeds(self, arguments, folder, capsys):
        for copy in ("quickstart.yaml", "mine.yaml"):
            if arguments[:2] == ("recipes", "copy"):
                (folder / copy).unlink()
        assert main(arguments) == 0
        assert capsys.readouterr().out

    def test_pages_name_every_verb(self):
        named = {arguments[0] for _, arguments in commands()}
        assert named == set(VERBS)

    def test_make_targets_in_docs_exist(self):
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        text = "\n".join(page.read_text() for page in PAGES)
        named = set(re.findall(r"^make (\w+)", text, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", text))
        assert named
        assert named <= targets


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_relative_links_and_anchors_resolve(self, page):
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if link.startswith("http"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_recipe_in_docs_loads(self, page, tmp_path):
        for number, text in enumerate(blocks(page, "yaml")):
            file = tmp_path / f"{number}.yaml"
            file.write_text(text)
            assert load_recipe(file).name

    def test_settings_tables_are_those_of_the_classes(self):
        page = (ROOT / "docs/recipe.md").read_text()
        assert with_tables(page) == page, "run: python -m rag_ft.recipe.reference docs/recipe.md"

    def test_settings_tables_have_a_line_for_a_nested_a_listed_and_a_discriminated_setting(self):
        lines = settings_tables().splitlines()
        assert (
            "| `model.lora.rank` | whole number at least 1 | `16` "
            "| Rank of the update; higher learns more and takes more memory. |"
        ) in lines
        assert "| `evaluation.systems.N.weights` | `base` or `tuned` | required |" in settings_tables()
        assert "### `data.contexts.passages` with `kind: range`" in lines

    def test_the_messages_shown_for_a_broken_recipe_are_those_it_gets(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        Path("mine.yaml").write_text("name: mine\ntrainnig:\n  epochs: 2\nevaluation:\n  passages: [1, 5, 2]\n")
        assert main(["check", "mine.yaml"]) == 2
        shown = next(text for text in blocks(ROOT / "docs/recipe.md", "text") if "mistakes" in text)
        assert capsys.readouterr().err == f"error: {shown}"


def anchors(page):
    """Return the anchors GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


class TestDataSample:
    """docs/data.md shows what the steps write for its sample recipe, word for word."""

    @pytest.fixture(scope="class")
    def sample(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("sample")
        (folder / "sample.yaml").write_text(blocks(ROOT / "docs/data.md", "yaml")[0])
        command = [sys.executable, "-m", "rag_ft", "build", "sample.yaml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return data_paths(folder / "runs/sample/data"), done.stdout, blocks(ROOT / "docs/data.md", "text")

    def test_report_lines_are_those_of_the_build(self, sample):
        _, output, shown = sample
        report = next(text for text in shown if text.startswith("source: building"))
        printed = [part.strip() for line in output.splitlines() for part in (line, *line.split("; "))]
        for line in report.splitlines():
            assert line.strip() in printed

    def test_passages_and_questions_exist(self, sample):
        paths, _, shown = sample
        written = {passage.text for passage in read_passages(paths.passages["train"])}
        written |= {question.question for question in read_questions(paths.questions["train"])}
        found = [line for text in shown for line in text.splitlines() if line in written]
        assert len(found) == 5  # two passages, a question of each hop count, the question that is labelled

    def test_labels_are_those_of_one_context_in_each_style(self, sample):
        paths, _, shown = sample
        asked = next(text for text in shown if text.startswith("From which year")).strip()
        rows = read_context_rows(paths.labels["train"])
        row = next(row for row in rows if any(question.question == asked for question in row.questions))
        label = next(question.label for question in row.questions if question.question == asked)
        absent = next(question.label for question in row.questions if not question.answerable)
        for style in ("answer", "reasoning", "self_reasoning"):
            assert rendered(label, style) in shown
        assert rendered(absent, "reasoning") in shown


def rendered(label, style):
    return "".join(span.text for span in render_target(label, PromptSettings(style=style))) + "\n"


class TestRecipes:
    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_recipe_loads_is_short_and_says_how_to_run_it(self, path):
        text = path.read_text()
        assert load_recipe(path)
        assert len(text.splitlines()) <= 30
        comments = text.splitlines()[: next(i for i, line in enumerate(text.splitlines()) if line[:1] != "#")]
        assert f"#   rag-ft run {path.relative_to(ROOT)}" in comments

    def test_schema_beside_the_recipes_is_that_of_the_classes(self, folder):
        assert main(["schema", "-o", "schema.json"]) == 0
        assert (folder / "schema.json").read_text() == (ROOT / "recipes/schema.json").read_text()


FOUNDATION = {f"data_builders.{name}" for name in ("errors", "files", "records", "settings", "text")}


def room(module):
    """Return the room of a module, as docs/architecture.md calls it."""
    parts = module.split(".")
    if parts[0] == "data_builders":
        return "foundation" if module in FOUNDATION else module
    return "settings" if parts[-1] == "settings" else ".".join(parts[:2])


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            package = (ROOT / node.module.replace(".", "/")).is_dir()
            yield from (f"{node.module}.{alias.name}" if package else node.module for alias in node.names)


def real_module(name):
    """Cut what is no module (a class imported from a package) off a dotted name."""
    path = ROOT / name.replace(".", "/")
    return name if path.is_dir() or path.with_suffix(".py").is_file() else name.rpartition(".")[0]


def doors_of_the_code():
    doors = {}
    for path in (ROOT / "rag_ft").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        names = {
            real_module(name) for name in imports_of(path) if name.partition(".")[0] in ("rag_ft", "data_builders")
        }
        found = {room(name) for name in names - {"rag_ft"}} - {room(module)}  # the package itself is its version
        if found:
            doors.setdefault(room(module), set()).update(found)
    return doors


def doors_of_the_page():
    table = (ROOT / "docs/architecture.md").read_text().split("<!-- doors:begin -->")[1].split("<!-- doors:end -->")[0]
    rows = [line.strip("| ").replace("`", "").split("|") for line in table.strip().splitlines()[2:]]
    return {name.strip(): {item.strip() for item in imports.split(",")} for name, imports in rows}


class TestDoors:
    def test_rooms_import_what_the_architecture_page_says(self):
        assert doors_of_the_code() == doors_of_the_page()

    def test_there_is_no_cycle_between_rooms(self):
        assert list(TopologicalSorter(doors_of_the_page()).static_order())

    def test_data_builders_import_nothing_of_rag_ft(self):
        for path in (ROOT / "data_builders").rglob("*.py"):
            assert not [name for name in imports_of(path) if name.partition(".")[0] == "rag_ft"], path

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["check", "quickstart"], ["recipes", "list"], ["schema"]], ids=" ".join
    )
    def test_light_verbs_import_nothing_heavy(self, arguments):
        script = (
            f"import sys; from rag_ft.cli import main; main({arguments!r}); sys.stderr.write(' '.join(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert not {name.partition(".")[0] for name in done.stderr.split()} & set(HEAVY)

    def test_settings_modules_load_without_anything_heavy(self):
        names = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "rag_ft").rglob("settings.py")
        ]
        script = f"import sys, importlib; [importlib.import_module(name) for name in {names!r}]; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        assert not {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY)


def test_no_page_holds_a_machine_path():
    for page in PAGES:
        assert not re.search(r"/(home|work|root|Users)/", page.read_text()), page


def test_shipped_recipe_in_readme_has_no_more_lines_than_a_screen_takes():
    recipe = blocks(ROOT / "README.md", "yaml")[0]
    assert len(recipe.splitlines()) <= 14
    assert yaml.safe_load(recipe)["name"]
