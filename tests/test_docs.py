"""README and docs tell the truth: commands parse and run, links resolve, tables and samples are what the code gives."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

from benchmarks.tables import TABLES, with_table
from data_builders.build import build_data
from data_builders.data_settings import DataSettings
from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.paths import data_paths
from data_builders.sources import beir, documents, hub, jsonl
from data_builders.sources.files import CORPORA, FORMATS
from data_builders.sources.rows import parsed_rows
from data_builders.step_report import report_lines
from data_builders.tables import read_context_rows, read_questions
from rag_ft.cli import VERBS, main
from rag_ft.prompting.render import render_target
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.reference import settings_tables, with_tables
from rag_ft.recipe.schema import recipe_schema

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
LIGHT_VERBS = ("recipes", "check", "import-check", "schema", "doctor")
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
    """A folder in which the copies that docs tell to make have been made, the shipped recipes and a file of data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for recipe in RECIPES:
        (tmp_path / recipe.name).write_text(recipe.read_text())
    (tmp_path / "mine.yaml").write_text((ROOT / "recipes/quickstart.yaml").read_text())
    for file in ("dev.json", "FILE"):
        (tmp_path / file).write_text(json.dumps({"data": [FORMATS["squad"].example]}))
    return tmp_path


def parse(verb, arguments):
    app = typer.Typer(add_completion=False)
    app.command()(import_module(f"rag_ft.cli.{verb.replace('-', '_')}").run)
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
        if arguments[:2] == ("recipes", "copy"):
            for copy in folder.glob("*.yaml"):
                copy.unlink()
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
        assert "| `evaluation.systems.N.strategy` | `concatenate`, `reorder`, " in settings_tables()
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
        return folder, done.stdout, blocks(ROOT / "docs/data.md", "text")

    def test_report_lines_are_those_of_the_build(self, sample):
        _, output, shown = sample
        reports = [text for text in shown if text.startswith(("  ", "clean: "))]
        assert len(reports) == 4  # of clean, quality, guard and contexts
        for report in reports:
            assert without_seconds(report) in without_seconds(output)

    def test_questions_exist(self, sample):
        folder, _, shown = sample
        written = {question.question for question in read_questions(paths_of(folder).questions["train"])}
        found = [line for text in shown for line in text.splitlines() if line in written]
        assert len(found) == 3  # one of each hop count, and the one that is labelled

    def test_labels_are_those_of_one_context_in_each_style(self, sample):
        folder, _, shown = sample
        asked = next(text for text in shown if text.startswith("From which year")).strip()
        rows = read_context_rows(paths_of(folder).labels["train"])
        row = next(row for row in rows if any(question.question == asked for question in row.questions))
        label = next(question.label for question in row.questions if question.question == asked)
        absent = next(question.label for question in row.questions if not question.answerable)
        for style in ("answer", "reasoning", "self_reasoning"):
            assert rendered(label, style) in shown
        assert rendered(absent, "reasoning") in shown

    def test_run_file_of_another_engine_is_written_and_read_as_shown(self, sample, monkeypatch):
        folder, *_ = sample
        monkeypatch.chdir(folder)
        (script,) = blocks(ROOT / "docs/data.md", "python")
        subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
        recipe = next(text for text in blocks(ROOT / "docs/data.md", "yaml") if "trec_run" in text)
        settings = load_recipe(write(folder / "run.yaml", recipe)).data
        build_data(settings, 1, folder / "with_run", report=lambda line: None)
        counts = json.loads((folder / "with_run/pools/manifest.json").read_text())["counts"]["retrieval of train"]
        assert {"bm25", "overlap"} <= set(counts)
        assert counts["overlap"]["any gold in the top k"]["20"] > 0.7  # so its ids were understood


def paths_of(folder):
    return data_paths(folder / "runs/sample/data")


def without_seconds(report):
    return re.sub(r"done in [\d.]+ s", "done", report)


def write(file, text):
    file.write_text(text)
    return file


def rendered(label, style):
    return "".join(span.text for span in render_target(label, PromptSettings(style=style))) + "\n"


class TestRecipes:
    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_recipe_loads_is_short_and_says_how_to_run_it(self, path):
        text = path.read_text()
        base = path.parent.name == "base"  # not run by itself, so that it needs no name
        assert load_recipe(path, ["name=x"] if base else [])
        assert len(text.splitlines()) <= 36
        comments = text.splitlines()[: next(i for i, line in enumerate(text.splitlines()) if line[:1] != "#")]
        name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        told = [line.removeprefix("#   ").split()[:3] for line in comments if line.startswith("#   ")]
        wanted = [["rag-ft", verb, how] for verb in ("run", "train") for how in (name, f"recipes/{name}.yaml")]
        assert base or any(command in wanted for command in told)

    def test_schema_beside_the_recipes_is_that_of_the_classes(self, folder):
        assert main(["schema", "-o", "schema.json"]) == 0
        assert (folder / "schema.json").read_text() == (ROOT / "recipes/schema.json").read_text()


SOURCES_PAGE, DATA_PAGE = ROOT / "docs/sources.md", ROOT / "docs/data.md"
FORMATS_OF = {
    "jsonl": [jsonl.QUESTIONS, jsonl.PASSAGES],
    "beir": [beir.CORPUS, beir.QUERIES, beir.ANSWERS],
    "documents": [documents.QUESTIONS],
    "hub": [hub.Hub(hub.HubSettings(kind="hub", dataset="x"), "x", 0).format],
    "invented_world": [],
    **{
        kind: [format_, *(corpus for _, corpus in [CORPORA[kind]] if kind in CORPORA)] if kind in CORPORA else [format_]
        for kind, format_ in FORMATS.items()
    },
}


def sections(page):
    """Return the text below each heading of the second level, by heading without backticks."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)[1:]
    return {head.strip("`"): text for head, text in zip(parts[::2], parts[1::2], strict=True)}


def blocks_in(text, language):
    return [body for found, body in FENCE.findall(text) if found == language]


def kinds_of_sources():
    return sorted(
        DataSettings.model_json_schema()["$defs"][name]["properties"]["kind"]["const"] for name in source_classes()
    )


def source_classes():
    choices = DataSettings.model_json_schema()["properties"]["sources"]
    values = next(iter(choices.get("patternProperties", {"": choices.get("additionalProperties")}).values()))
    return [reference.rpartition("/")[2] for reference in values["discriminator"]["mapping"].values()]


class TestSources:
    """docs/sources.md: one section for each kind, with example rows that the importers themselves hold."""

    @pytest.mark.parametrize("kind", kinds_of_sources())
    def test_kind_has_a_section_with_its_example_rows_and_lines_for_a_recipe(self, kind, tmp_path):
        text = sections(SOURCES_PAGE)[kind]
        shown = [json.loads(body) for body in blocks_in(text, "json")]
        assert shown == [format_.example for format_ in FORMATS_OF[kind]]
        (recipe,) = blocks_in(text, "yaml")
        sources = load_recipe(write(tmp_path / "kind.yaml", recipe)).data.sources.values()
        assert kind in {source.kind for source in sources}

    def test_output_of_import_check_is_what_it_prints(self, folder, capsys):
        assert main(["import-check", "dev.json"]) == 0
        shown = next(text for text in blocks(SOURCES_PAGE, "text") if text.startswith("dev.json fits"))
        assert capsys.readouterr().out.startswith(f"{shown}\nDoes not fit:\n")

    def test_messages_on_a_row_that_does_not_fit_are_those_it_gets(self, tmp_path):
        rows = [jsonl.QUESTIONS.example, {"id": "q2", "question": "Which river does it cross?"}]
        stop, skip = (text for text in blocks(SOURCES_PAGE, "text") if "answers" in text and "fits" not in text)
        with pytest.raises(RagFtError) as refusal:
            list(parsed_rows(rows, jsonl.QUESTIONS, ("mine", Path("mine.jsonl")), "stop", Tally()))
        assert f"error: {refusal.value}".startswith(stop.strip().removesuffix("..."))
        tally = Tally()
        list(parsed_rows(rows, jsonl.QUESTIONS, ("mine", Path("mine.jsonl")), "skip", tally))
        assert [f"  {line}" for line in report_lines(tally)] == skip.splitlines()


def data_settings():
    """Yield (path, kind of the innermost section that has one) of every setting below `data`."""
    schema = recipe_schema()
    definitions = schema["$defs"]

    def resolved(part):
        return definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part

    def inner(part):
        """Yield (key between, section) of all sections a field may hold, through lists, mappings and choices."""
        part = resolved(part)
        if "properties" in part:
            yield "", part
        for choice in part.get("anyOf", part.get("oneOf", ())):
            yield from inner(choice)
        values = [part.get("additionalProperties"), *part.get("patternProperties", {}).values()]
        for key, value in [("N.", part.get("items")), *(("<name>.", value) for value in values)]:
            if isinstance(value, dict):
                yield from ((key + more, section) for more, section in inner(value))

    def walk(path, section, kind):
        for name, field in section["properties"].items():
            yield f"{path}{name}", kind
            for key, below in inner(field):
                own = below["properties"].get("kind", {}).get("const")
                yield from walk(f"{path}{name}.{key}", below, own or kind)

    return list(walk("data.", resolved(schema["properties"]["data"]), None))


def place_of(path, kind):
    """Return the text that must name a setting, and how it is named there."""
    if path.startswith(("data.splits.", "data.hygiene.")):
        return (ROOT / "docs/hygiene.md").read_text(), path.rpartition(".")[2]
    if path.startswith(("data.labels.", "data.questions.")) and kind != "gold":
        return place_of_written(path)
    if not path.startswith(("data.sources.", "data.decontaminate.")):
        return DATA_PAGE.read_text(), path
    name = path.split("<name>.")[1]
    if name == "kind":
        return SOURCES_PAGE.read_text(), kind
    if kind == "documents":
        return (ROOT / "docs/documents.md").read_text(), name
    return sections(SOURCES_PAGE)[kind], name


def place_of_written(path):
    """Return the same for what a teacher writes; both of its jobs ask an endpoint of the same kind."""
    name = path.split(".", 2)[2]
    if name == "kind":
        return DATA_PAGE.read_text(), "teacher"
    if path.startswith("data.labels.") or name.startswith("endpoint."):
        return (ROOT / "docs/labels.md").read_text(), name.removeprefix("gates.")
    return (ROOT / "docs/synthesis.md").read_text(), name.rpartition(".")[2]


class TestSettingsOfData:
    """Every setting below `data` is explained by hand: the generated tables of docs/recipe.md do not count."""

    @pytest.mark.parametrize(("path", "kind"), data_settings(), ids=str)
    def test_setting_is_named_where_a_reader_looks_for_it(self, path, kind):
        text, name = place_of(path, kind)
        assert f"`{name}`" in text

    def test_every_kind_of_retriever_count_and_ranking_is_named(self):
        kinds = {kind for path, kind in data_settings() if kind and not path.startswith(("data.sources", "data.decon"))}
        assert len(kinds) == 14
        for kind in kinds:
            assert re.search(rf"kind: {kind}|`{kind}`", DATA_PAGE.read_text()), kind


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_figures_of_a_benchmark_are_those_of_its_results_file(page, name):
    text = (ROOT / page).read_text()
    assert with_table(text, name) == text, "run: python -m benchmarks.tables"


def test_no_page_holds_a_machine_path():
    for page in PAGES:
        assert not re.search(r"/(home|work|root|Users)/", page.read_text()), page


def test_shipped_recipe_in_readme_has_no_more_lines_than_a_screen_takes():
    recipe = blocks(ROOT / "README.md", "yaml")[0]
    assert len(recipe.splitlines()) <= 14
    assert yaml.safe_load(recipe)["name"]
