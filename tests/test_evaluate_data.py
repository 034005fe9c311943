"""`rag-ft evaluate` over what the data offer: whole documents, rankings of several retrievers, models that judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_questions import answers_of, cell_of, prompts_asked, stored, told
from own_rows import asked, lines, passage

from data_builders.paths import data_paths
from data_builders.records import Pool, PoolPassage
from rag_ft.evaluation.surroundings import documents_of

Verb = Callable[..., tuple[int, str, str]]
TEXTS = {
    "a1": ("The annals begin with the founding of Aldo in 1801.", "Annals"),
    "a2": ("The bridge of Aldo was opened in 1932 by the mayor.", "Annals"),
    "a3": ("The river under the bridge of Aldo is called Ruhne.", "Annals"),
    "b1": ("The tower of Bexa was built in 1705 by Corin.", "Book"),
    "b2": ("The bells of the tower of Bexa came in 1706.", "Book"),
    "c1": ("The mill of Cyra burned down in 1650.", ""),
}
QUESTIONS = [
    ("q0", "When was the bridge of Aldo opened?", ["1932"], ["a2"]),
    ("q1", "Was the tower of Bexa built before the founding of Aldo?", ["It was"], ["b1", "a1"]),
    ("q2", "When did the mill of Cyra burn down?", ["1650"], ["c1"]),
]
RUN = {"q0": "a3 a1 a2", "q1": "b2 b1", "q2": "a1 b2"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """Three questions over two documents and a passage of none; BM25 and the run of another engine."""
    from rag_ft.cli import main

    folder = tmp_path_factory.mktemp("documented")
    rows = [passage(name, text, **({"document": of} if of else {})) for name, (text, of) in TEXTS.items()]
    told_of = [asked(*one, split="test") for one in QUESTIONS]
    source = {
        "kind": "jsonl",
        "path": lines(folder / "questions.jsonl", told_of),
        "passages": lines(folder / "passages.jsonl", rows),
    }
    ranked = [
        f"{question} Q0 {name} {rank} {10 - rank} theirs"
        for question, names in RUN.items()
        for rank, name in enumerate(names.split(), start=1)
    ]
    (folder / "theirs.run").write_text("\n".join(ranked) + "\n")
    run = {"kind": "trec_run", "name": "theirs", "path": str(folder / "theirs.run")}
    settings = {
        "name": "own",
        "runs_dir": str(folder / "runs"),
        "data": {
            "sources": {"mine": source},
            "retrievers": [{"kind": "bm25"}, run],
            "depth": 6,
            "contexts": {"passages": {"kind": "fixed", "count": 2}},
        },
        "model": {"weights": str(tiny_weights), "dtype": "float32"},
        "evaluation": {"passages": [1, 2], "max_new_tokens": 3, "resamples": 100, "systems": [{"name": "base"}]},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(settings))
    assert main(["build", str(folder / "own.yaml")]) == 0
    return folder / "own.yaml"


def searched(recipe: Path) -> list[Path]:
    return data_paths(recipe.parent / "runs" / "own" / "data").searched("test")


def test_questions_of_a_document_are_drawn_together(recipe: Path, run_verb: Verb) -> None:
    code, out, err = run_verb("evaluate", recipe, *told(resample="document"))
    assert code == 0, err
    assert "evaluate: 3 documents are few to draw from" in out
    assert {row["question_id"]: row["document"] for row in answers_of(recipe)} == {
        "q0": "Annals",
        "q1": "Book",
        "q2": "c1",
    }
    scores = json.loads((recipe.parent / "runs" / "own" / "evaluation" / "scores.json").read_text())
    assert scores["resample"] == "document"


def test_a_retrievers_own_ranking_is_shown(recipe: Path, run_verb: Verb) -> None:
    sweeps = [{"passages": [2], "gold": ["retrieved", "kept"], "retriever": ["theirs", "bm25"]}]
    wanted = told(passages=[2], gold=["kept"], references=[], sweeps=sweeps)
    code, _, err = run_verb("evaluate", recipe, *wanted)
    assert code == 0, err
    shown = {
        (row["question_id"], row["gold"]): row["shown"]
        for row in stored(recipe, "base")
        if row["variant"] == "retriever=theirs"
    }
    assert shown == {
        ("q0", "retrieved"): ["a3", "a1"],
        ("q0", "kept"): ["a3", "a2"],
        ("q1", "retrieved"): ["b2", "b1"],
        ("q1", "kept"): ["b1", "a1"],  # found second and not at all
        ("q2", "retrieved"): ["a1", "b2"],
        ("q2", "kept"): ["a1", "c1"],
    }
    answerable = {
        (row["question_id"], row["variant"]): row["answerable"] for row in answers_of(recipe) if row["gold"] == "kept"
    }
    assert set(answerable.values()) == {True}
    assert len(answerable) == 9
    assert cell_of(recipe, gold="retrieved", variant="retriever=bm25")["n"] == 3
    assert prompts_asked(run_verb("evaluate", recipe, *wanted)[1]) == 0


def test_a_retriever_that_found_nothing_is_refused(recipe: Path, refused: Callable[..., str]) -> None:
    message = refused("evaluate", recipe, *told(sweeps=[{"retriever": ["dense"]}]))
    assert "dense" in message
    assert "bm25" in message


def test_the_whole_documents_of_gold_are_shown_in_their_order(recipe: Path, run_verb: Verb) -> None:
    wanted = told(passages=[1], gold=["kept"], references=["full_document", "gold_only"])
    code, out, err = run_verb("evaluate", recipe, *wanted)
    assert code == 0, err
    assert "1 of 3 questions are left out of full_document: no document is named that its gold was cut from" in out
    found = {row["question_id"]: row for row in stored(recipe, "base") if row["gold"] == "full_document"}
    assert {name: row["shown"] for name, row in found.items()} == {
        "q0": ["a1", "a2", "a3"],
        "q1": ["b1", "b2", "a1", "a2", "a3"],
    }
    assert {row["answerable"] for row in found.values()} == {True}
    cell = cell_of(recipe, gold="full_document")
    assert (cell["n"], cell["answerable"]) == (2, 2)
    assert prompts_asked(run_verb("evaluate", recipe, *wanted)[1]) == 0


def test_the_full_suite_takes_documents_and_both_retrievers(recipe: Path, run_verb: Verb) -> None:
    code, out, err = run_verb("evaluate", recipe, "--suite", "full")
    assert code == 0, err
    assert "no retriever is compared" not in out
    assert "no full documents" not in out
    scores = json.loads((recipe.parent / "runs/own/evaluation/scores.json").read_text())
    cells = {(cell["gold"], cell["variant"]) for cell in scores["cells"]}
    assert {("full_document", ""), ("retrieved", "retriever=theirs"), ("kept", "retriever=bm25")} <= cells


def pool(gold: str, answers: tuple[str, ...] = ("1706",)) -> Pool:
    passages = tuple(PoolPassage(name, "", TEXTS[name][0], True, True, "bm25", 1, 2.0) for name in gold.split())
    return Pool("q", "When?", answers, "test", "", passages)


def test_documents_hold_gold_as_the_pool_has_it_and_the_rest_as_nobody_ranked_it(recipe: Path) -> None:
    asked_of = pool("b1")
    [found] = documents_of([asked_of], searched(recipe)).values()
    assert found[0] is asked_of.passages[0]
    assert found[1] == PoolPassage("b2", found[1].title, TEXTS["b2"][0], False, True, "document", 0, 0.0)
    alternative = replace(pool("b2").passages[0], is_gold=False, guard="gold")
    both = replace(asked_of, passages=(*asked_of.passages, alternative))
    assert documents_of([both], searched(recipe))["q"] == (asked_of.passages[0], alternative)


@pytest.mark.parametrize(
    ("gold", "expected"),
    [("a3", "a1 a2 a3"), ("a3 a1", "a1 a2 a3"), ("b2 a2", "b1 b2 a1 a2 a3"), ("c1", None), ("a1 c1", None), ("", None)],
)
def test_documents_of_gold(recipe: Path, gold: str, expected: str | None) -> None:
    """Those of all gold passages; where one names none, the documents would not hold the whole answer."""
    found = documents_of([pool(gold)], searched(recipe))
    assert found == {} if expected is None else [one.id for one in found["q"]] == expected.split()


# models that judge citations


def classifier(folder: Path, longest: int) -> Path:
    """Write a random classifier of pairs that knows every word by its letters, and reads so many tokens."""
    import torch
    from tiny_model import tiny_tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=longest,
        id2label={0: "contradiction", 1: "entailment"},
        label2id={"contradiction": 0, "entailment": 1},
        initializer_range=1.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def entailed(folder: Path, premise: str, hypothesis: str) -> int:
    """Ask the classifier as transformers alone does."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(
        premise, hypothesis, truncation=True, max_length=40, return_tensors="pt"
    )
    return int(AutoModelForSequenceClassification.from_pretrained(folder)(**batch).logits.argmax())


def test_citations_are_judged_by_the_model_that_the_recipe_names(recipe: Path, tmp_path: Path, run_verb: Verb) -> None:
    from openai_server import Reply, Server, serving

    def reply(messages: Any, body: Any) -> Reply:
        return Reply("[1] It says when the bridge of Aldo was opened.\nAnswer: 1932")

    judge = classifier(tmp_path / "nli", 40)
    with serving(Server(reply)) as server:
        systems = [
            {"name": "served", "style": "reasoning", "endpoint": {"base_url": server.url, "model": "m"}},
            {"name": "base"},
        ]
        wanted = told(systems=systems, citation_nli=str(judge), passages=[2], gold=["kept"], references=["closed_book"])
        code, out, err = run_verb("evaluate", recipe, *wanted)
    assert code == 0, err
    assert f"citations are judged by {judge}" in out
    assert "3 pairs of passages and sentence were longer than the 40 tokens" in out
    rows = [row for row in answers_of(recipe) if row["gold"] == "kept"]
    # one sentence and one citation each: all or nothing, the same for both
    served = {
        row["question_id"]: (row["alce_recall"], row["alce_precision"])
        for row in rows
        if row["alce_recall"] is not None
    }
    first = {
        row["question_id"]: TEXTS[row["shown"][0]][0] for row in stored(recipe, "server-m+reasoning") if row["shown"]
    }
    said = "It says when the bridge of Aldo was opened."
    assert served == {name: (entailed(judge, text, said),) * 2 for name, text in first.items()}
    assert len(served) == 3
    assert len(set(served.values())) == 2  # so that it matters which is which
    assert {row["alce_recall"] for row in rows if row["system"] == "base"} == {None}
    assert cell_of(recipe, system="served", gold="closed_book")["alce_recall"] is None
