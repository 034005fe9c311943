"""Equal prompts are asked once, but where the scores of a retriever weigh passages, equal passages are no equal ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from own_questions import built, prompts_asked, stored, told

Verb = Callable[..., tuple[int, str, str]]
RETRIEVERS = [{"kind": "bm25"}, {"kind": "bm25", "name": "sharp", "k1": 8.0, "b": 1.0}]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    contexts = {"passages": {"kind": "fixed", "count": 2}}
    return built(tmp_path_factory.mktemp("weighed"), tiny_weights, depth=6, contexts=contexts, retrievers=RETRIEVERS)


def asked(recipe: Path, run_verb: Verb, strategy: str, *sweeps: dict[str, object]) -> int:
    settings = told(
        systems=[{"name": "one", "strategy": strategy}], passages=[3], gold=["retrieved"], references=[], sweeps=sweeps
    )
    code, out, err = run_verb("evaluate", recipe, *settings)
    assert code == 0, err
    return prompts_asked(out)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_retriever_s_own_scores_weigh_its_answers(recipe: Path, run_verb: Verb, at_once: bool) -> None:
    strategy = "rag_token" if at_once else "rag_sequence"  # files of their own
    sweep = {"passages": [3], "gold": ["retrieved"], "retriever": ["bm25", "sharp"]}
    if not at_once:
        assert asked(recipe, run_verb, strategy) == 7
    asked(recipe, run_verb, strategy, sweep)
    rows = stored(recipe, f"base+{strategy}")
    by_prompt: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        by_prompt.setdefault((row["question_id"], *row["shown"]), {})[row["variant"]] = row["confidence"]
    # the same passages in the same order by both rankings; that of the run (data.ranking) is bm25's
    shared = [found for found in by_prompt.values() if {"", "retriever=sharp"} <= found.keys()]
    assert shared
    assert any(found["retriever=sharp"] != found[""] for found in shared)  # ties weigh alike


def test_equal_passages_in_one_prompt_are_asked_once(recipe: Path, run_verb: Verb) -> None:
    assert asked(recipe, run_verb, "concatenate") == 7
    sweep = {"passages": [3], "gold": ["retrieved"], "retriever": ["bm25", "sharp"]}
    assert asked(recipe, run_verb, "concatenate", sweep) < 14
