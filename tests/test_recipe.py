"""Loading recipes: YAML, extends, overrides, and the messages for what is wrong. Every case goes through a file."""

from pathlib import Path

import pytest

from data_builders.errors import RagFtError
from data_builders.passage_counts import FixedCount, RangeCount
from data_builders.ranking import RrfSettings
from data_builders.sources.jsonl import JsonlSettings
from data_builders.sources.squad import SquadSettings
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.settings import Recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into an empty working folder; return the first one's name."""
    monkeypatch.chdir(tmp_path)

    def files(text, **others):
        Path("r.yaml").write_text(text, encoding="utf-8")
        for name, content in others.items():
            Path(f"{name}.yaml").write_text(content, encoding="utf-8")
        return "r.yaml"

    return files


def errors_of(path, *overrides):
    with pytest.raises(RagFtError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_a_name_is_all_a_recipe_needs(write):
    assert load_recipe(write("name: x\n")) == Recipe(name="x")


def test_values_reach_the_settings(write):
    recipe = load_recipe(
        write(
            "name: x\nseed: 7\ntraining: {learning_rate: 1e-4, report_to: [wandb], trainer: {weight_decay: 1E-2}}\n"
            "data:\n  sources:\n    world: {kind: invented_world, words: [50, 60]}\n"
            "    own: {kind: jsonl, path: {train: [a.jsonl, b.jsonl.gz], test: c.jsonl}, weight: 2}\n"
            "    squad: {kind: squad, path: dev.json}\n  ranking: {kind: rrf, k: 30}\n  contexts:\n"
            "    passages: {kind: choices, weights: {5: 0.5, 10: 1}}\n    contexts: {train: 4}\n"
        )
    )
    assert recipe.seed == 7
    assert recipe.training.learning_rate == 0.0001
    assert recipe.training.trainer == {"weight_decay": 0.01}
    assert recipe.training.report_to == ("wandb",)
    assert list(recipe.data.sources) == ["world", "own", "squad"]
    assert recipe.data.sources["world"].words == (50, 60)
    files = {"train": ("a.jsonl", "b.jsonl.gz"), "test": "c.jsonl"}
    assert recipe.data.sources["own"] == JsonlSettings(kind="jsonl", path=files, weight=2.0)
    assert recipe.data.sources["squad"] == SquadSettings(kind="squad", path="dev.json")
    assert recipe.data.ranking == RrfSettings(kind="rrf", k=30)
    assert recipe.data.contexts.passages.weights == {5: 0.5, 10: 1.0}
    assert recipe.data.contexts.contexts == {"train": 4}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E+1", 20.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("0x10", 16),
        ("0o10", 8),
        ("010", 10),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("TRUE", True),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("~", None),
        ("'5'", "5"),
        ("", None),
        ("{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write, text, value):
    loaded = load_recipe(write(f"name: x\nmodel: {{chat_template_kwargs: {{v: {text} }}}}\n"))
    assert loaded.model.chat_template_kwargs["v"] == value
    assert type(loaded.model.chat_template_kwargs["v"]) is type(value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seeed: 2", "seeed: there is no such key; did you mean seed?"),
        ("training: {epoch: 2}", "training.epoch: there is no such key; did you mean training.epochs?"),
        ("epochs: 2", "epochs: there is no such key here; did you mean data.contexts.epochs or training.epochs?"),
        ("training: {weight_decay: 0.1}", "fields of trl.SFTConfig go under training.trainer.weight_decay"),
        ("qqqq: 1", "qqqq: there is no such key; valid here: name, seed, runs_dir, data, model"),
        ('seed: "1"', 'seed: "1" is text, but a whole number is expected: write 1 without quotes'),
        ("seed: 1_000", "write 1000 without quotes or underscores"),
        ("seed: 1.5", "seed: 1.5 is a number, but a whole number is expected"),
        ("seed: true", "seed: true is true or false, but a whole number is expected"),
        ("seed:", "seed: null is nothing, but a whole number is expected; leave the key out to take its default"),
        ("training: 3", "training: 3 is a whole number, but a mapping of keys to values is expected"),
        ("training: [epochs]", 'training: ["epochs"] is a list, but a mapping of keys to values is expected'),
        ("training: {epochs: .inf}", 'training.epochs: ".inf" is text, but a number is expected'),
        ("training: {epochs: 1e999}", 'training.epochs: "1e999" is text, but a number is expected'),
        ("training: {epochs: 0}", "training.epochs: 0 is out of range: it must be more than 0"),
        ("training: {batch_size: 0}", "training.batch_size: 0 is out of range: it must be at least 1"),
        ("training: {report_to: wandb}", 'training.report_to: "wandb" is text, but a list is expected: write [wandb]'),
        ("model: {prompt: {titles: yes}}", 'titles: "yes" is text, but true or false is expected: write true'),
        ("model: {prompt: {titles: off}}", "write false"),
        ("model: {prompt: {style: reasonning}}", "one of answer, reasoning, self_reasoning; the nearest is reasoning"),
        ("model: {lora: {dropout: 1}}", "model.lora.dropout: 1 is out of range: it must be less than 1"),
        ("model: {lora: {target_modules: 3}}", "3 is a whole number, but text or a list is expected"),
        ("model: {lora: {target_modules: [q, 3]}}", "model.lora.target_modules.1: 3 is a whole number, but text is"),
        ("model: {revision: 3}", "model.revision: 3 is a whole number, but text is expected: put it in quotes"),
        ("data: {retrievers: []}", "data.retrievers: the list has 0 entries; it needs at least 1"),
        ("evaluation: {passages: []}", "evaluation.passages: the list has 0 entries; it needs at least 1"),
        ("data: {sources: {w: {kind: invented_world, words: [50]}}}", "words.1: the list has too few entries"),
        ("data: {sources: {w: {kind: invented_world, words: [50, 60, 70]}}}", "3 entries; it takes at most 2"),
        ("data: {contexts: {passages: {kind: rang}}}", 'passages.kind: "rang" is not one of fixed, range,'),
        ("data: {contexts: {passages: {count: 3}}}", "passages.kind: the key is missing: add kind: with one of fixed"),
        ("data: {contexts: {passages: {kind: range, low: 3}}}", "add high: VALUE below data.contexts.passages"),
        ("data: {contexts: {passages: {kind: range, low: 3, high: 4, hig: 5}}}", "mean data.contexts.passages.high?"),
        ("data: {contexts: {passages: {kind: choices, weights: {ten: 1}}}}", 'ten: "ten" is text, but a whole'),
        ("data: {contexts: {contexts: {test: 1}}}", "is not one of train, validation"),
        ("evaluation: {systems: [{name: a, weights: tunde}]}", 'evaluation.systems: "tunde" of "a" is not one of'),
        ("evaluation: {systems: [{weights: base}]}", "add name: VALUE below evaluation.systems.0"),
        ("seed: 1\nseed: 2", "r.yaml:3: seed: the key is given twice (first on line 2)"),
        ("model: {lora: {rank: 1, rank: 1}}", "model.lora.rank: the key is given twice"),
        ("a: &a {x: 1}\nmodel: {<<: *a}", "model.<<: merge keys are not part of a recipe"),
        ("seed: !!python/object/apply:os.getcwd []", "seed"),
        ("runs_dir: !!python/name:os.system x", "the tag tag:yaml.org,2002:python/name:os.system is not part of"),
        ("seed: !!int x", "seed: 'x' cannot be read as int: remove the tag"),
        ("seed: " + "9" * 5000, "seed: the number has too many digits"),
        ('runs_dir: "\\ud800"', "runs_dir: the text holds a character that no file can hold"),
        ("? [a]\n: 1", "r.yaml:2: a key must be a plain name"),
        ("model: {weights: [a, b]", "this is not valid YAML"),
        ("model:\n\tweights: a", "r.yaml:3: this is not valid YAML: found character '\\t' that cannot start"),
        ("model:\n  weights: a: b", "r.yaml:3: this is not valid YAML: mapping values are not allowed here."),
        ("---\nname: y", "expected a single document"),
        ("seed: *x", "found undefined alias"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_key_and_fix(write, line, message):
    shown = errors_of(write(f"name: x\n{line}\n"))
    assert message in shown
    assert "r.yaml:" in shown
    assert "pydantic" not in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml is empty: a recipe has at least the line name: NAME"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n", "r.yaml:1: the top of the file is a list"),
        (b"hello\n", "the top of the file is a single value"),
        (b"seed: 1\n", "name: the recipe has no name: add the line name: NAME"),
        (b"name: ../up\n", '"../up" is not a name: begin with a letter or digit'),
        (b"name: x\n# caf\xe9\n", "r.yaml:2: byte 13 is not UTF-8: save the file as UTF-8"),
        ("name: x\n".encode("utf-16"), "is not UTF-8"),
        (b"name: x\x00\n", "r.yaml is not YAML"),
        (b"name: x\nmodel: " + b"[" * 5000, "nests values too deeply"),
        (b"name: x\nmodel: {chat_template_kwargs: &a {b: *a}}\n", "an alias contains itself"),
        (b"name: " + b"x" * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_recipe_gets_one_sentence(write, content, message):
    path = Path(write(""))
    path.write_bytes(content)
    shown = errors_of(str(path))
    assert message in shown
    assert len(shown) < 300


def test_an_alias_bomb_is_refused(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "expands to more than 20,000 values" in errors_of(write("name: x\n" + "\n".join(lines)))


def test_plain_aliases_work(write):
    recipe = load_recipe(write("name: x\nevaluation: {passages: &p [1, 2]}\nexport: {language: [en]}\nmodel: {}\n"))
    assert recipe.evaluation.passages == (1, 2)
    aliased = load_recipe(write("name: &n x\nrun" + "s_dir: *n\n"))
    assert aliased.runs_dir == "x"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write):
    path = Path(write(""))
    path.write_bytes("\ufeffname: x\r\nseed: 3\r\n".encode())
    assert load_recipe(path).seed == 3


def test_all_mistakes_come_at_once_in_order_of_lines(write):
    text = (
        "name: x\nseeed: 1\ntraining: {epochs: three}\nevaluation: {passages: [5, 1]}\nexport: {language: [english]}\n"
    )
    shown = errors_of(write(text), "modle.x=1").splitlines()
    assert shown[0] == "5 mistakes in the recipe:"
    assert [line.split(": ")[0] for line in shown[1:5]] == ["r.yaml:2", "r.yaml:3", "r.yaml:4", "r.yaml:5"]
    assert shown[5] == 'override "modle.x=1": modle: there is no such key; did you mean model?'


def test_rules_that_read_a_wrong_setting_stay_silent(write):
    shown = errors_of(write("name: x\ndata: {depth: 5}\nevaluation: {passages: [three]}\n"))
    assert shown == 'r.yaml:3: evaluation.passages.0: "three" is text, but a whole number is expected.'


class TestExtends:
    def test_mappings_merge_and_lists_replace(self, write):
        base = "name: base\ntraining: {epochs: 2, batch_size: 4}\nevaluation: {passages: [1, 2, 3]}\n"
        recipe = load_recipe(
            write("extends: base.yaml\nname: x\ntraining: {epochs: 3}\nevaluation: {passages: [4]}\n", base=base)
        )
        assert (recipe.name, recipe.training.epochs, recipe.training.batch_size) == ("x", 3, 4)
        assert recipe.evaluation.passages == (4,)

    def test_chains_are_followed_relative_to_each_file(self, write, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "a.yaml").write_text("extends: b.yaml\nseed: 5\n")
        (tmp_path / "deep" / "b.yaml").write_text("name: b\nseed: 4\nruns_dir: out\n")
        recipe = load_recipe(write("extends: deep/a.yaml\n"))
        assert (recipe.name, recipe.seed, recipe.runs_dir) == ("b", 5, "out")

    def test_another_kind_replaces_the_mapping_wholly(self, write):
        base = "name: b\ndata: {contexts: {passages: {kind: range, low: 2, high: 4}}}\n"
        child = "extends: base.yaml\ndata: {contexts: {passages: {kind: fixed, count: 3}}}\n"
        assert load_recipe(write(child, base=base)).data.contexts.passages == FixedCount(kind="fixed", count=3)

    def test_the_same_kind_merges(self, write):
        base = "name: b\ndata: {contexts: {passages: {kind: range, low: 2, high: 4}}}\n"
        child = "extends: base.yaml\ndata: {contexts: {passages: {kind: range, high: 9}}}\n"
        assert load_recipe(write(child, base=base)).data.contexts.passages == RangeCount(kind="range", low=2, high=9)

    def test_the_default_kind_written_out_merges(self, write):
        base = "name: b\ndata: {sources: {world: {kind: invented_world, two_hop_share: 0.5}}}\n"
        child = "extends: base.yaml\ndata: {sources: {world: {kind: invented_world}}}\n"
        assert load_recipe(write(child, base=base)).data.sources["world"].two_hop_share == 0.5

    def test_a_mistake_in_a_base_names_the_base(self, write):
        shown = errors_of(write("extends: base.yaml\nseed: x\n", base="name: b\ntraining: {epochs: three}\n"))
        assert "r.yaml:2: seed:" in shown
        assert "base.yaml:2: training.epochs:" in shown

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("extends: r.yaml", "r.yaml:1: extends: r.yaml extends this recipe in turn: break the circle"),
            ("extends: a.yaml", "a.yaml:1: extends: b.yaml extends this recipe in turn"),
            ("extends: bsae.yaml", 'r.yaml:1: extends: there is no recipe "bsae.yaml". Did you mean base.yaml?'),
            ("extends: [base.yaml]", 'r.yaml:1: extends: ["base.yaml"] is not a path'),
            ("extends:", "r.yaml:1: extends: null is not a path"),
            ('extends: "a\\0b"', "extends"),
        ],
    )
    def test_a_base_that_cannot_be_used_is_named(self, write, line, message):
        path = write(line + "\nname: x\n", a="extends: b.yaml\n", b="extends: a.yaml\n", base="name: b\n")
        message = message.replace("a.yaml:1: extends: b.yaml", "b.yaml:1: extends: a.yaml")
        assert message in errors_of(path)


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "read", "value"),
        [
            ("training.learning_rate=1e-5", lambda r: r.training.learning_rate, 1e-5),
            ("model.weights=a=b", lambda r: r.model.weights, "a=b"),
            ("model.weights=package:x", lambda r: r.model.weights, "package:x"),
            ("training.report_to=[wandb, trackio]", lambda r: r.training.report_to, ("wandb", "trackio")),
            ("training.max_steps=null", lambda r: r.training.max_steps, None),
            ("training.max_steps=", lambda r: r.training.max_steps, None),
            ("training.trainer.weight_decay=0.1", lambda r: r.training.trainer, {"weight_decay": 0.1}),
            ("training={epochs: 9}", lambda r: r.training.epochs, 9.0),
            ("model.prompt.abstention=I do not know.", lambda r: r.model.prompt.abstention, "I do not know."),
            ("name='5'", lambda r: r.name, "5"),
            (" training.epochs = 2", lambda r: r.training.epochs, 2.0),
        ],
    )
    def test_values_are_yaml(self, write, override, read, value):
        assert read(load_recipe(write("name: x\ntraining: {max_steps: 3}\n"), [override])) == value

    def test_they_apply_after_extends_and_the_last_wins(self, write):
        path = write("extends: base.yaml\nseed: 2\n", base="name: b\nseed: 1\n")
        assert load_recipe(path, ["seed=3", "seed=4"]).seed == 4

    def test_a_key_of_the_default_kind_needs_no_kind(self, write):
        recipe = load_recipe(write("name: x\n"), ["data.contexts.passages.count=5"])
        assert recipe.data.contexts.passages == FixedCount(kind="fixed", count=5)

    def test_a_new_kind_drops_the_keys_of_the_old_one_wherever_it_stands(self, write):
        path = write("name: x\ndata: {contexts: {passages: {kind: fixed, count: 3}}}\n")
        prefix = "data.contexts.passages."
        recipe = load_recipe(path, [prefix + "low=2", prefix + "high=4", prefix + "kind=range"])
        assert recipe.data.contexts.passages == RangeCount(kind="range", low=2, high=4)

    def test_a_list_entry_has_its_index_as_key(self, write):
        path = write("name: x\nevaluation: {systems: [{name: a, weights: base}]}\n")
        assert load_recipe(path, ["evaluation.systems.0.name=b"]).evaluation.systems[0].name == "b"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("training.epohcs=2", 'override "training.epohcs=2": training.epohcs: there is no such key; did you mean'),
            ("training.epochs=two", 'override "training.epochs=two": training.epochs: "two" is text, but a number'),
            ("name.x=2", "name: {\"x\": 2} is a mapping, but text is expected"),
            ("training.epochs", '"training.epochs" is not an override: write key.path=value'),
            ("=3", '"=3" is not an override'),
            ("training..epochs=3", "is not an override"),
            ("seed=@", 'override "seed=@": this is not valid YAML'),
            ("seed=[1", "this is not valid YAML"),
            ("seed=!!python/name:os.system", "is not part of a recipe"),
            ("extends=base.yaml", "extends belongs in the recipe file"),
            ("evaluation.passages=[9, 1]", "the counts must grow and differ: write [1, 9]"),
        ],
    )  # fmt: skip
    def test_a_mistake_names_the_override(self, write, override, message):
        shown = errors_of(write("name: x\n"), override)
        assert message in shown
        assert "r.yaml" not in shown


class TestFinding:
    @pytest.mark.parametrize("name", ["quickstrat", "quickstart.yml.yaml", "x" * 5000, "a\0b", ""])
    def test_an_unknown_recipe_is_one_sentence(self, write, name):
        write("")
        assert "rag-ft recipes list" in errors_of(name) or "is a folder" in errors_of(name)

    def test_a_misspelt_file_names_the_nearest(self, write):
        write("name: x\n", experiment="name: e\n")
        assert "Did you mean experiment.yaml?" in errors_of("experimnt.yaml")

    def test_a_folder_is_not_a_recipe(self, write, tmp_path):
        write("")
        (tmp_path / "folder").mkdir()
        assert "folder is a folder: name the recipe file in it" in errors_of("folder")
