"""What a recipe says wrongly about sources and retrievers, and how bases and overrides change them."""

from pathlib import Path

import pytest

from data_builders.errors import RagFtError
from data_builders.sources.jsonl import JsonlSettings
from data_builders.sources.squad import SquadSettings
from rag_ft.recipe.load import load_recipe

KINDS = (
    "jsonl, documents, squad, dpr, kilt, hotpotqa, lost_in_the_middle, rgb, flashrag, raft, beir, hub, invented_world"
)
LANGUAGES = (
    "arabic, danish, dutch, english, finnish, french, german, hungarian, italian, korean, norwegian, portuguese, "
    "romanian, russian, spanish, swedish, turkish, none"
)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a recipe whose `data` section is this text, with overrides, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(data, *overrides):
        Path("r.yaml").write_text(f"name: x\ndata: {{{data}}}\n", encoding="utf-8")
        return load_recipe("r.yaml", overrides).data

    return call


def mistake(load, data, *overrides):
    with pytest.raises(RagFtError) as caught:
        load(data, *overrides)
    return str(caught.value)


# What stands below `data:`, and the whole message behind "data.".
WRONG = [
    ("source: {kind: jsonl, path: a}", "source: there is no such key; did you mean data.sources?"),
    ("sources: {}", "sources: the mapping has 0 entries; it needs at least 1."),
    (
        "sources: {kind: jsonl, path: a}",
        "sources.kind: an entry of data.sources needs a name of your choice: write data.sources.NAME.kind.",
    ),
    (
        "sources: {nq: jsonl}",
        'sources.nq: "jsonl" is text, but a mapping of keys to values is expected: write {kind: jsonl}.',
    ),
    (
        "sources: {'n q': {kind: jsonl, path: a}}",
        'sources.n q: "n q" is not a name: begin with a letter or digit, then letters, digits and . _ - only.',
    ),
    (
        "sources: {nq: {kind: jsnl, path: a}}",
        f'sources.nq.kind: "jsnl" is not one of {KINDS}; the nearest is jsonl.',
    ),
    ("sources: {nq: {path: a}}", f"sources.nq.kind: the key is missing: add kind: with one of {KINDS}."),
    ("sources: {nq: {kind: jsonl}}", "sources.nq.path: the key is missing: add path: VALUE below data.sources.nq."),
    (
        "sources: {nq: {kind: jsonl, pth: a}}",
        "sources.nq.pth: there is no such key; did you mean data.sources.nq.path?",
    ),
    (
        "sources: {nq: {kind: jsonl, path: a, pasages: b}}",
        "sources.nq.pasages: there is no such key; did you mean data.sources.nq.passages?",
    ),
    (
        "sources: {nq: {kind: squad, path: a, chunk_tokens: 90}}",
        "sources.nq.chunk_tokens: there is no such key with this kind, but with kind: documents.",
    ),
    ("sources: {nq: {kind: jsonl, path: []}}", "sources.nq.path: the list has 0 entries; it needs at least 1."),
    ("sources: {nq: {kind: jsonl, path: {}}}", "sources.nq.path: the mapping has 0 entries; it needs at least 1."),
    (
        "sources: {nq: {kind: jsonl, path: {trian: a}}}",
        'sources.nq.path.trian: "trian" is not one of train, validation, test; the nearest is train.',
    ),
    (
        "sources: {nq: {kind: jsonl, path: {test: [a, 3]}}}",
        "sources.nq.path.test.1: 3 is a whole number, but text is expected: put it in quotes.",
    ),
    (
        "sources: {nq: {kind: jsonl, path: a, weight: 0}}",
        "sources.nq.weight: 0 is out of range: it must be more than 0.",
    ),
    ("decontaminate: {nq: {kind: squad}}", "decontaminate.nq.path: the key is missing: add path: VALUE below data."),
    (
        "retrievers: {kind: bm25}",
        'retrievers: {"kind": "bm25"} is a mapping, but a list is expected: begin each entry with "- ".',
    ),
    (
        "retrievers: [bm25]",
        'retrievers.0: "bm25" is text, but a mapping of keys to values is expected: write {kind: bm25}.',
    ),
    (
        "retrievers: [{kind: bm25}, {model: a}]",
        "retrievers.1.kind: the key is missing: add kind: with one of bm25, dense, trec_run, source.",
    ),
    (
        "retrievers: [{kind: dense, mdel: a}]",
        "retrievers.0.mdel: there is no such key; did you mean data.retrievers.0.model?",
    ),
    (
        "retrievers: [{kind: bm25, language: koraen}]",
        f'retrievers.0.language: "koraen" is not one of {LANGUAGES}; the nearest is korean.',
    ),
    ("ranking: {kind: rff}", 'ranking.kind: "rff" is not one of interleave, rrf; the nearest is rrf.'),
    ("ranking: {kind: interleave, k: 5}", "ranking.k: there is no such key with this kind, but with kind: rrf."),
    (
        "contexts: {gold_position: {idx: 3}}",
        "contexts.gold_position.idx: there is no such key; did you mean data.contexts.gold_position.index?",
    ),
    (
        "negatives: {shares: {tpo: 1}}",
        'negatives.shares.tpo: "tpo" is not one of top, low, other, random; the nearest is top.',
    ),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[data for data, _ in WRONG])
def test_a_mistake_is_one_sentence_with_its_key_and_the_nearest_name(load, data, message):
    shown = mistake(load, data)
    assert shown.startswith(f"r.yaml:2: data.{message}")
    assert "\n" not in shown


def test_two_misspelt_sources_are_two_mistakes(load):
    shown = mistake(load, "sources: {a: {kind: jsonl, pth: x}, b: {kind: sqaud, path: y}}").splitlines()
    assert [line.split(": ")[1] for line in shown[1:]] == ["data.sources.a.pth", "data.sources.b.kind"]


def test_a_base_keeps_its_sources_and_the_recipe_adds_its_own(load, tmp_path):
    (tmp_path / "base.yaml").write_text("name: b\ndata: {sources: {sq: {kind: squad, path: a.json}}}\n")
    child = "extends: base.yaml\ndata: {sources: {sq: {weight: 2}, own: {kind: jsonl, path: b.jsonl}}}\n"
    (tmp_path / "child.yaml").write_text(child)
    sources = load_recipe("child.yaml").data.sources
    assert sources["sq"] == SquadSettings(kind="squad", path="a.json", weight=2.0)
    assert sources["own"] == JsonlSettings(kind="jsonl", path="b.jsonl")


class TestOverrides:
    def test_a_source_is_changed_and_added_by_name(self, load):
        written = "sources: {nq: {kind: jsonl, path: {train: a, test: b}}}"
        overrides = ["data.sources.nq.path.train=c", "data.sources.sq.path=d", "data.sources.sq.kind=squad"]
        sources = load(written, *overrides).sources
        assert sources["nq"].path == {"train": "c", "test": "b"}
        assert sources["sq"] == SquadSettings(kind="squad", path="d")

    def test_another_kind_drops_the_keys_of_the_old_one(self, load):
        written = "sources: {nq: {kind: documents, path: a, chunk_tokens: 90}}"
        sources = load(written, "data.sources.nq.path=b", "data.sources.nq.kind=squad").sources
        assert sources["nq"] == SquadSettings(kind="squad", path="b")

    def test_a_retriever_is_changed_by_its_place(self, load):
        written = "retrievers: [{kind: bm25}, {kind: dense, model: org/large, query_prefix: 'query: '}]"
        first, second = load(written, "data.retrievers.1.model=tiny", "data.retrievers.0.k1=1.2").retrievers
        assert (first.k1, second.model, second.query_prefix) == (1.2, "tiny", "query: ")

    def test_the_place_behind_the_last_adds_one(self, load):
        overrides = ["data.retrievers.1.model=org/m", "data.retrievers.1.kind=dense"]
        first, second = load("retrievers: [{kind: bm25}]", *overrides).retrievers
        assert (first.kind, second.kind, second.model) == ("bm25", "dense", "org/m")

    def test_a_list_the_recipe_does_not_write_begins_as_its_default(self, load):
        assert [one.language for one in load("", "data.retrievers.0.language=korean").retrievers] == ["korean"]
        changed = load_recipe("r.yaml", ["evaluation.systems.2.name=ours", "training.report_to.0=wandb"])
        assert [system.name for system in changed.evaluation.systems] == ["base", "base + reordering", "ours"]

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("data.retrievers.3.k1=1", '"3" is no place of this list: write 0 to 0, or 1 to add an entry.'),
            ("data.retrievers.bm25.k1=1", '"bm25" is no place of this list: write 0 to 0, or 1 to add an entry.'),
            ("data.retrievers.-1.k1=1", '"-1" is no place of this list: write 0 to 0, or 1 to add an entry.'),
        ],
    )
    def test_a_place_that_is_not_there_is_named(self, load, override, message):
        assert mistake(load, "", override) == f'override "{override}": data.retrievers: {message}'

    def test_a_misspelt_source_is_not_taken_for_a_new_one(self, load):
        shown = mistake(load, "sources: {nq: {kind: jsonl, path: a}}", "data.sources.qn.path=b")
        start = 'override "data.sources.qn.path=b": data.sources.qn.kind: the key is missing: add kind: with one of'
        assert shown.startswith(start)
