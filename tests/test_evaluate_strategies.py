"""`rag-ft evaluate` with strategies that show each passage by itself, and with prompts that a model cannot reach."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from own_questions import answers_of, built, cell_of, prompts_asked, stored, told

from data_builders.paths import data_paths
from data_builders.records import Pool
from data_builders.tables import read_pools
from rag_ft.evaluation.conditions import Condition
from rag_ft.evaluation.contexts import Composed, Surroundings, compose
from rag_ft.strategies import MARGINAL
from rag_ft.strategies.marginal import log_weights

Verb = Callable[..., tuple[int, str, str]]
CONTEXTS = {"passages": {"kind": "fixed", "count": 2}}
RANDOM = {"passages": [3], "negatives": ["random"]}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    return built(tmp_path_factory.mktemp("strategies"), tiny_weights, depth=6, contexts=CONTEXTS)


@pytest.fixture(scope="module")
def pools(recipe: Path) -> list[Pool]:
    return list(read_pools(data_paths(recipe.parent / "runs" / "own" / "data").pools["test"]))


def test_marginal_strategies_answer_from_one_passage_per_prompt(recipe: Path, run_verb: Verb) -> None:
    systems = [{"name": "base"}, *({"name": name, "strategy": name} for name in MARGINAL)]
    asked = told(systems=systems, passages=[1, 3], gold=["kept"], sweeps=[RANDOM], references=["closed_book"])
    code, _, err = run_verb("evaluate", recipe, *asked, "--limit", 3)
    assert code == 0, err
    alone = {row["question_id"]: row for row in stored(recipe, "base") if row["passages"] == 1}
    for name in MARGINAL:
        rows = stored(recipe, f"base+{name}")
        assert len(rows) == 9  # three questions at two counts and with random passages; closed-book is asked once
        assert {(row["calls"], row["failure"]) for row in rows} == {(1, None), (3, None)}
        for row in rows:
            assert row["calls"] == len(row["shown"]) == row["passages"]
            assert row["confidence"] <= 0
            if row["passages"] == 1:  # one passage has all the weight
                found = alone[row["question_id"]]
                assert (row["output"], row["prompt_tokens"]) == (found["output"], found["prompt_tokens"])
                assert row["confidence"] == pytest.approx(found["confidence"], rel=1e-3)
        assert cell_of(recipe, system=name, gold="kept", variant="negatives=random")["n"] == 3
    assert prompts_asked(run_verb("evaluate", recipe, *asked, "--limit", 3)[1]) == 0


def test_numbers_name_no_passage_where_each_has_a_prompt_of_its_own(recipe: Path, run_verb: Verb) -> None:
    systems = [{"name": name, "strategy": name, "style": "reasoning"} for name in ("concatenate", *MARGINAL)]
    asked = told(systems=systems, passages=[3], gold=["kept"], references=["gold_only"])
    assert run_verb("evaluate", recipe, *asked, "--limit", 2)[0] == 0
    names = ("citation_precision", "citation_recall", "quote_verbatim", "relevance_f1")
    for row in answers_of(recipe):
        marginal = row["system"] in MARGINAL and row["gold"] == "kept"
        assert (row["citation_recall"] is None, row["relevance_f1"] is None) == (marginal, marginal)
        assert not marginal or {row[name] for name in names} == {None}
    for name in MARGINAL:
        assert cell_of(recipe, system=name, gold="kept")["citation_recall"] is None


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_a_passage_of_another_question_never_weighs_more_than_one_that_was_retrieved(
    pools: list[Pool], shift: float
) -> None:
    """Also by scores that are all below zero, as distances and logits are."""
    for pool in pools:
        moved = tuple(replace(one, score=one.score + shift) for one in pool.passages)
        found = compose(replace(pool, passages=moved), Condition("kept", 4, negatives="random"), Surroundings(1, pools))
        assert isinstance(found, Composed)
        weights = dict(zip(found.passages, log_weights(found.passages), strict=True))
        random = [one for one in weights if one.retriever == "random"]
        assert {one.rank for one in random} == {0}
        assert len(random) in (2, 3)
        assert sum(map(math.exp, weights.values())) == pytest.approx(1)
        ranked = [weight for one, weight in weights.items() if one.rank > 0]
        assert max(weights[one] for one in random) <= min(ranked)
        gold = max(ranked)
        expected = min(one.score for one in moved if one.rank > 0) - max(one.score for one in moved if one in weights)
        assert weights[random[0]] - gold == pytest.approx(expected)


# what is longer than the model's positions


def short(folder: Path, weights: Path, positions: int) -> Path:
    """Copy weights and let them say that they know so many positions."""
    shutil.copytree(weights, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return folder


def test_a_prompt_beyond_the_models_positions_fails_alone(
    recipe: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    systems = [{"name": "base"}, {"name": "single", "strategy": "rag_sequence"}]
    asked = told(systems=systems, passages=[1, 3], gold=["kept"], references=[])
    assert run_verb("evaluate", recipe, *asked)[0] == 0
    before = {(row["question_id"], row["passages"]): row for row in stored(recipe, "base")}
    longest = max(row["prompt_tokens"] for row in before.values() if row["passages"] == 1)
    assert longest + 3 < min(row["prompt_tokens"] for row in before.values() if row["passages"] == 3)
    weights = short(tmp_path / "short", tiny_weights, longest + 3)  # an answer has three tokens at most
    run = f"runs_dir={tmp_path / 'runs'}"
    shutil.copytree(recipe.parent / "runs/own/data", tmp_path / "runs/own/data")
    (tmp_path / "own.yaml").write_text(recipe.read_text())
    code, out, err = run_verb("evaluate", tmp_path / "own.yaml", run, f"model.weights={weights}", *asked)
    assert code == 0, err
    assert "base: 7 answers failed and count as wrong, for example: too long: a prompt of" in out
    assert f"the {longest + 3} positions of the model" in out
    for row in stored(tmp_path / "own.yaml", "base"):
        known = before[row["question_id"], row["passages"]]
        if row["passages"] == 1:
            assert (row["output"], row["failure"]) == (known["output"], None)
        else:
            assert row["failure"].startswith(f"too long: a prompt of {known['prompt_tokens']} tokens")
    # a passage by itself is short enough
    assert {row["failure"] for row in stored(tmp_path / "own.yaml", "base+rag_sequence")} == {None}
    stretched = "model.rope_scaling={rope_type: yarn, factor: 4.0}"
    code, out, err = run_verb("evaluate", tmp_path / "own.yaml", run, f"model.weights={weights}", stretched, *asked)
    assert (code, "failed" in out) == (0, False), err
    assert cell_of(tmp_path / "own.yaml", system="base", passages=3)["failures"] == 0


def test_where_no_prompt_can_be_reached_all_fail_and_none_is_asked(
    recipe: Path, tiny_weights: Path, tmp_path: Path, run_verb: Verb
) -> None:
    systems = [{"name": "base"}, *({"name": name, "strategy": name} for name in MARGINAL)]
    asked = told(systems=systems, passages=[2], gold=["kept"], references=[])
    weights = short(tmp_path / "short", tiny_weights, 40)
    code, out, err = run_verb("evaluate", recipe, f"model.weights={weights}", *asked, "--limit", 2)
    assert code == 0, err
    assert {(row["failure"] or "")[:9] for row in answers_of(recipe)} == {"too long:"}
    assert len(answers_of(recipe)) == 8
    assert out.count("failed and count as wrong") == 4
