"""The recipes in recipes/ build what they promise, on small files of their formats and a tiny dense model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import recipe_files as files

from data_builders.tables import read_context_rows, read_questions
from rag_ft.cli import main
from rag_ft.prompting.render import render_prompt, render_target
from rag_ft.recipe.load import load_recipe
from rag_ft.recipe.settings import Recipe
from rag_ft.recipe.shipped import shipped_recipes, summary

BUILT = ["own_documents", "nq_squad", "dpr", "korean"]
QUICK = ["data.processes=1", "data.depth=20"]  # with fewer passages per retriever than the files hold, two differ


@dataclass
class Built:
    """What a build left. A row holds one question."""

    recipe: Recipe
    data: Path
    rows: list[dict[str, Any]]
    pools: dict[str, dict[str, Any]]

    def counts(self, step: str) -> dict[str, Any]:
        counts: dict[str, Any] = json.loads((self.data / step / "manifest.json").read_text())["counts"]
        return counts

    def dropped(self, step: str) -> dict[str, int]:
        dropped: dict[str, int] = json.loads((self.data / step / "manifest.json").read_text())["dropped"]
        return dropped

    def share_with_gold(self) -> float:
        return sum(bool(asked(row)["gold"]) for row in self.rows) / len(self.rows)

    def finders(self) -> Counter[frozenset[str]]:
        """Count the negatives shown by the retrievers that found them; those from outside the pool by none."""
        found: Counter[frozenset[str]] = Counter()
        for row in self.rows:
            pool = {entry["id"]: entry for entry in self.pools[asked(row)["id"]]["passages"]}
            for passage in negatives(row):
                entry = pool.get(passage["id"])
                found[frozenset(one["retriever"] for one in entry["found"]) if entry else frozenset()] += 1
        return found


def asked(row: dict[str, Any]) -> dict[str, Any]:
    (question,) = row["questions"]
    assert isinstance(question, dict)
    return question


def negatives(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [passage for index, passage in enumerate(row["passages"]) if index not in asked(row)["gold"]]


def build(name: str, folder: Path, *overrides: str) -> Built:
    """Run `rag-ft build` on a shipped recipe with overrides, as a user would."""
    settings = [*QUICK, f"runs_dir={folder}", *overrides]
    assert main(["build", name, *settings]) == 0
    recipe = load_recipe(name, settings)
    data = folder / recipe.name / "data"
    pools = pq.read_table(data / "pools/train.parquet").to_pylist()
    rows = pq.read_table(data / "labels/train.parquet").to_pylist()
    return Built(recipe, data, rows, {pool["id"]: pool for pool in pools})


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the dense models of the Hub."""
    if find_spec("sentence_transformers") is None or find_spec("faiss") is None:
        pytest.skip("sentence-transformers and faiss-cpu are not installed: pip install rag-ft[dense]")
    from tiny_embedder import write_embedder

    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def own_documents(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Built:
    pytest.importorskip("pdfplumber", reason="documents need pdfplumber: pip install rag-ft[documents]")
    pytest.importorskip("fpdf", reason="the PDF files are written with fpdf2")
    folder = tmp_path_factory.mktemp("own")
    questions = files.documents(folder / "docs", *files.english(0, 60))
    return build(
        "own_documents",
        folder,
        f"data.sources.documents.path={folder / 'docs'}",
        f"data.sources.documents.questions={files.lines(folder / 'questions.jsonl', questions)}",
        f"data.retrievers.1.model={embedder}",
    )


@pytest.fixture(scope="module")
def nq_squad(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Built:
    folder = tmp_path_factory.mktemp("nq")
    facts, traps = files.english(0, 36)
    squad = files.english(40, 30)
    return build(
        "nq_squad",
        folder,
        f"data.sources.nq.path.train={files.own_rows(folder / 'train.jsonl', facts[:30])}",
        f"data.sources.nq.path.test={files.own_rows(folder / 'test.jsonl', facts[30:])}",
        f"data.sources.nq.passages={files.passages(folder / 'wikipedia.jsonl.gz', traps)}",
        f"data.sources.squad.path.train={files.squad(folder / 'train-v1.1.json', squad[0][:24], squad[1][:24])}",
        f"data.sources.squad.path.test={files.squad(folder / 'dev-v1.1.json', squad[0][24:], squad[1][24:])}",
        f"data.retrievers.1.model={embedder}",
        "data.contexts.contexts.train=300",
    )


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dpr")
    facts, traps = files.english(0, 36)
    return build(
        "dpr",
        folder,
        f"data.sources.dpr.path.train={files.dpr(folder / 'train.json.gz', facts[:30], traps[:30])}",
        f"data.sources.dpr.path.test={files.dpr(folder / 'dev.json.gz', facts[30:], traps[30:])}",
        "data.contexts.contexts.train=300",
    )


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Built:
    pytest.importorskip("kiwipiepy", reason="Korean needs kiwipiepy: pip install rag-ft[korean]")
    folder = tmp_path_factory.mktemp("korean")
    facts, traps = files.korean(0, 56)
    return build(
        "korean",
        folder,
        f"data.sources.korquad.path.train={files.squad(folder / 'train.json', facts[:50], traps[:50])}",
        f"data.sources.korquad.path.test={files.squad(folder / 'dev.json', facts[50:], traps[50:])}",
        f"data.retrievers.1.model={embedder}",
        "data.contexts.contexts.train=300",
    )


@pytest.fixture
def built(request: pytest.FixtureRequest) -> Built:
    result: Built = request.getfixturevalue(request.param)
    return result


@pytest.mark.parametrize("name", [*BUILT, "quickstart"])
def test_the_recipe_is_listed_with_what_it_is_for_and_has_no_mistakes(name, run_verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, listed, _ = run_verb("recipes")
    line = next(line for line in listed.splitlines() if line.startswith(f"{name} "))
    assert line.split(maxsplit=1)[1] == summary(shipped_recipes()[name])
    code, said, _ = run_verb("check", name)
    assert code == 0
    assert "no mistakes" in said


def test_every_shipped_recipe_is_built_by_a_test():
    quickstart = {"quickstart"}  # built, trained and evaluated by test_end_to_end and by CI
    # those in folders are built by test_training_recipes and test_label_recipes
    trained = {name for name in shipped_recipes() if "/" in name} | {"instruction_tuning"}
    assert set(shipped_recipes()) == {*BUILT, *quickstart, *trained}


@pytest.mark.parametrize("built", BUILT, indirect=True)
class TestEveryRecipe:
    def test_gold_is_shown_about_as_often_as_the_recipe_says(self, built):
        assert built.recipe.data.contexts.gold_probability == 0.8
        assert built.share_with_gold() == pytest.approx(0.8, abs=0.06)

    def test_questions_without_gold_decline_and_the_others_answer(self, built):
        for row in built.rows:
            question = asked(row)
            assert question["answerable"] == bool(question["gold"])
            wanted = question["answers"][0] if question["gold"] else None
            assert question["label"]["answer"] == wanted
            assert bool(question["label"]["evidence"]) == bool(question["gold"])

    def test_passage_counts_are_those_of_the_recipe_and_mostly_the_largest(self, built):
        weights = built.recipe.data.contexts.passages.weights
        counts = Counter(len(row["passages"]) for row in built.rows)
        assert set(counts) == set(weights)
        assert counts[max(weights)] / len(built.rows) == pytest.approx(0.5, abs=0.12)
        assert max(weights) == max(built.recipe.evaluation.passages)

    def test_no_negative_says_the_answer(self, built):
        for row in built.rows:
            for passage in negatives(row):
                assert not any(answer in passage["text"] for answer in asked(row)["answers"])
        assert built.counts("pools")["kept from the negatives: holds the answer"] > 0

    def test_no_passage_stands_twice_in_a_context(self, built):
        for row in built.rows:
            assert len({passage["text"] for passage in row["passages"]}) == len(row["passages"])

    def test_negatives_are_of_every_kind_in_about_their_shares(self, built):
        counts, shares = built.counts("contexts"), built.recipe.data.negatives.shares
        names = {"top": "top-ranked", "low": "low-ranked", "other": "other questions' top", "random": "random"}
        shown = {kind: counts[f"{name} negatives shown"] for kind, name in names.items()}
        total = sum(shown.values())
        watched = pq.read_table(built.data / "labels/validation.parquet").to_pylist()
        assert total == sum(len(negatives(row)) for row in [*built.rows, *watched])
        # what one kind lacks in so small a pool is made up by the others
        assert {kind: number / total for kind, number in shown.items()} == pytest.approx(dict(shares), abs=0.04)

    def test_top_negatives_come_from_both_retrievers_alike(self, built):
        names = list(built.recipe.data.negatives.retriever_shares)
        served = [built.counts("contexts")[f"top-ranked negatives of {name}"] for name in names]
        assert min(served) > 0.7 * max(served)
        found = built.finders()
        assert all(found[frozenset({name})] for name in names)  # what the other retriever had not found

    def test_gold_stands_anywhere(self, built):
        largest = max(built.recipe.data.contexts.passages.weights)
        places = [asked(row)["gold"][0] for row in built.rows if len(row["passages"]) == largest and asked(row)["gold"]]
        assert min(places) < 3
        assert max(places) >= largest - 3
        assert sum(places) / len(places) == pytest.approx((largest - 1) / 2, abs=largest / 8)

    def test_the_test_questions_have_pools_to_evaluate_on(self, built):
        pools = pq.read_table(built.data / "pools/test.parquet").to_pylist()
        assert len(pools) >= 6
        assert not {pool["id"] for pool in pools} & set(built.pools)
        for pool in pools:
            assert any(entry["is_gold"] for entry in pool["passages"])


class TestOwnDocuments:
    def test_every_question_trains_in_three_different_contexts(self, own_documents):
        shown: dict[str, set[tuple[str, ...]]] = {}
        for row in own_documents.rows:
            shown.setdefault(asked(row)["id"], set()).add(tuple(passage["id"] for passage in row["passages"]))
        assert {len(contexts) for contexts in shown.values()} <= {2, 3}  # two may both show gold alone
        assert len(own_documents.rows) == 3 * len(shown)

    def test_documents_of_the_test_train_nothing(self, own_documents):
        gold = {}
        for split in ("train", "validation", "test"):
            asked = read_questions(own_documents.data / f"clean/questions-{split}.arrow")
            gold[split] = {passage.split("#")[0] for question in asked for passage in question.gold}
        assert {split: bool(names) for split, names in gold.items()} == {
            "train": True,
            "validation": True,
            "test": True,
        }
        assert not gold["train"] & (gold["validation"] | gold["test"])
        assert {name.rpartition(".")[2] for name in gold["train"]} == {"txt", "md", "html", "pdf"}

    def test_gold_is_the_passage_with_the_quote(self, own_documents):
        for row in own_documents.rows:
            for index in asked(row)["gold"]:
                assert f"was built in {asked(row)['answers'][0]}." in row["passages"][index]["text"]


class TestNqSquad:
    def test_the_two_sources_are_mixed_by_their_weights(self, nq_squad):
        assert Counter(asked(row)["source"] for row in nq_squad.rows) == {"nq": 200, "squad": 100}
        beginning = Counter(asked(row)["source"] for row in nq_squad.rows[:30])
        assert beginning == {"nq": 20, "squad": 10}

    def test_both_sources_share_one_corpus(self, nq_squad):
        places = Counter(
            (asked(row)["source"], passage["id"].split(":")[0]) for row in nq_squad.rows for passage in negatives(row)
        )
        assert {("nq", "squad"), ("squad", "nq"), ("nq", "nq"), ("squad", "squad")} == set(places)

    def test_passages_of_the_test_split_are_never_shown(self, nq_squad):
        towns = {fact.town for fact in files.english(64, 6)[0]}
        assert not towns & {passage["title"] for row in nq_squad.rows for passage in row["passages"]}


class TestDpr:
    def test_the_first_positive_is_gold_and_the_second_is_never_a_negative(self, dpr):
        facts = {fact.question: fact for fact in files.english(0, 30)[0]}
        for row in dpr.rows:
            fact = facts[asked(row)["question"]]
            assert [row["passages"][index]["text"] for index in asked(row)["gold"]] in ([fact.text], [])
            assert f"{fact.id}-b" not in {passage["id"] for passage in row["passages"]}

    def test_the_files_own_ranking_is_one_of_the_retrievers(self, dpr):
        pool = next(iter(dpr.pools.values()))
        found = ((entry["id"], one) for entry in pool["passages"] for one in entry["found"])
        ranks = {one["rank"]: id_ for id_, one in found if one["retriever"] == "source"}
        number = next(f.id for f in files.english(0, 30)[0] if f.question == pool["question"])
        assert [ranks[1], ranks[2]] == [number, f"{number}-b"]
        assert len(ranks) == 2 + 9 + 6


class TestKorean:
    def test_names_behind_particles_are_kept_from_the_negatives(self, korean):
        traps = dict(zip((fact.id for fact in files.korean(0, 50)[0]), files.korean(0, 50)[1], strict=True))
        guarded = 0
        for pool in korean.pools.values():
            (found,) = [entry for entry in pool["passages"] if entry["text"] == traps[pool["id"]][1]] or [None]
            guarded += found is not None and found["guard"] == "answer"
            assert found is None or found["guard"] == "answer"
        assert guarded > 40

    def test_words_are_found_behind_other_particles(self, korean):
        first = 0
        for pool in korean.pools.values():
            (gold,) = [entry for entry in pool["passages"] if entry["is_gold"]]
            assert not set(pool["question"].split()) & set(gold["text"].split())  # as letters they share no word
            first += {one["retriever"]: one["rank"] for one in gold["found"]}.get("bm25", 99) <= 2
        assert first / len(korean.pools) > 0.9

    def test_the_dense_model_gets_the_prefixes_of_e5(self, korean):
        dense = korean.recipe.data.retrievers[1]
        assert (dense.query_prefix, dense.passage_prefix) == ("query: ", "passage: ")

    def test_declining_is_written_in_korean(self, korean):
        rows = read_context_rows(korean.data / "labels/train.parquet")
        row = next(row for row in rows if row.questions[0].label.answer is None)
        prompt = korean.recipe.model.prompt
        (span, *_) = [one for one in render_target(row.questions[0].label, prompt) if one.name == "answer"]
        assert span.text.strip() == "주어진 문서에서는 답을 찾을 수 없습니다."
        assert span.text.strip() in render_prompt(row.questions[0].question, row.passages, prompt).system
