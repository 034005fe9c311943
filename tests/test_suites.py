"""Named suites: what they hold, how they are fitted to the data, and one run from a recipe and a file of questions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_questions import built, prompts_asked

from rag_ft.evaluation.conditions import axes_of, conditions
from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.evaluation.suites import SUITES, Offer, suited

Verb = Callable[..., tuple[int, str, str]]
RICH = Offer(50, ("bm25", "dense"), True)


def asked(suite: str, offer: Offer = RICH, **told: Any) -> EvaluationSettings:
    return suited(EvaluationSettings.model_validate({"suite": suite, **told}), offer)[0]


def test_without_a_suite_nothing_changes() -> None:
    told = EvaluationSettings(passages=(3,))
    assert suited(told, Offer(1)) == (told, [])


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_point_of_a_suite_can_be_shown(suite: str) -> None:
    for offer in (RICH, Offer(50), Offer(7, ("bm25",)), Offer(1, ("bm25",))):
        settings = asked(suite, offer)
        counts = {condition.passages for condition in conditions(settings)}
        assert max(counts) <= offer.passages
        assert {condition.retriever for condition in conditions(settings)} <= {"", *offer.retrievers}


def test_the_robust_suite_moves_every_axis_by_itself() -> None:
    wanted = conditions(asked("robust"))
    assert {condition.gold for condition in wanted} == {
        "kept",
        "retrieved",
        "absent",
        "counterfactual",
        "closed_book",
        "gold_only",
    }
    axes = [frozenset(axes_of(condition.variant)) for condition in wanted]
    assert set(axes) == {
        frozenset(),
        frozenset({"position"}),
        frozenset({"order"}),
        frozenset({"order", "draw"}),
        frozenset({"noise"}),
        frozenset({"negatives"}),
        frozenset({"retriever"}),
    }


def test_rgb_has_its_four_abilities_over_five_passages() -> None:
    wanted = conditions(asked("rgb"))
    assert {condition.passages for condition in wanted} == {0, 5}
    assert [condition.noise for condition in wanted if condition.noise is not None] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert {"absent", "counterfactual"} <= {condition.gold for condition in wanted}


def test_quick_asks_a_hundred_questions_at_most() -> None:
    assert asked("quick").questions == 100
    assert asked("quick", questions=40).questions == 40


def test_what_is_left_out_is_said() -> None:
    _, lines = suited(EvaluationSettings(suite="full"), Offer(5, ("bm25",)))
    assert lines == [
        "suite full: no counts of 10, 15, 20, since pools hold 5 passages",
        "suite full: no retriever is compared with another, since there is one",
        "suite full: no full documents, since the passages name none",
    ]


# nothing but a recipe and a file of questions with passages


@pytest.fixture(scope="module")
def own_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A recipe over own questions, built."""
    return built(tmp_path_factory.mktemp("own"), tiny_weights)


def test_the_robust_suite_runs_on_a_base_model_and_a_file_of_questions(own_recipe: Path, run_verb: Verb) -> None:
    code, out, err = run_verb("evaluate", own_recipe, "--suite", "robust")
    assert code == 0, err
    assert "nothing was trained, so the base model alone is asked" in out
    assert out.index("questions show a difference of") < out.index(" prompts for ")  # before anything is asked
    assert "questions have too few passages with an answer for noise 0, 0.2, 0.4, 0.6:" in out
    evaluation = own_recipe.parent / "runs/own/evaluation"
    scores = json.loads((evaluation / "scores.json").read_text())
    assert (scores["suite"], scores["partial"]) == ("robust", False)
    cells = {(cell["gold"], cell["variant"]) for cell in scores["cells"]}
    assert {"kept", "retrieved", "absent", "counterfactual", "closed_book", "gold_only"} <= {gold for gold, _ in cells}
    assert {("kept", "position=0.5"), ("kept", "noise=0.4"), ("kept", "negatives=random")} <= cells
    assert {("kept", "order=shuffled"), ("kept", "order=shuffled draw=2")} <= cells
    rows = [json.loads(line) for line in (evaluation / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == prompts_asked(out)
    assert {row["system"] for row in rows} == {"base", "base + reordering"}
    again = run_verb("evaluate", own_recipe, "--suite", "robust")
    assert (again[0], prompts_asked(again[1])) == (0, 0)
    assert json.loads((evaluation / "scores.json").read_text()) == scores


def test_the_rgb_suite_tells_questions_of_several_passages_apart(own_recipe: Path, run_verb: Verb) -> None:
    code, _, err = run_verb("evaluate", own_recipe, "--suite", "rgb", 'evaluation.systems=[{"name": "base"}]')
    assert code == 0, err
    scores = json.loads((own_recipe.parent / "runs/own/evaluation/scores.json").read_text())
    assert scores["questions"] == {"all": 7, "one_gold": 6, "several_gold": 1}
    cells = {(cell["gold"], cell["variant"]) for cell in scores["cells"]}
    assert {("absent", ""), ("counterfactual", ""), ("kept", "noise=0.8")} <= cells


def test_another_suite_keeps_the_answers_to_equal_prompts(own_recipe: Path, run_verb: Verb) -> None:
    one = 'evaluation.systems=[{"name": "base"}]'
    assert run_verb("evaluate", own_recipe, "--suite", "robust", one)[0] == 0
    code, out, _ = run_verb("evaluate", own_recipe, "--suite", "quick", one, "--limit", 3)
    assert (code, prompts_asked(out)) == (0, 0)  # its points are among those of the robust suite
    scores = json.loads((own_recipe.parent / "runs/own/evaluation/scores.json").read_text())
    assert (scores["suite"], scores["partial"], scores["questions"]["all"]) == ("quick", True, 3)


def test_an_adapter_of_ones_own_merged_weights_and_styles_are_systems(
    own_recipe: Path, tiny_weights: Path, run_verb: Verb
) -> None:
    systems = [
        {"name": "base"},
        {"name": "reasoned", "style": "reasoning"},
        {"name": "other", "weights": str(tiny_weights)},
        {"name": "routed", "strategy": "self_route", "self_route": {"passages": 1}},
    ]
    told = [f"evaluation.systems={json.dumps(systems)}", "evaluation.passages=[1,3]", "evaluation.gold=[kept]"]
    code, out, err = run_verb("evaluate", own_recipe, *told, "--limit", 2)
    assert code == 0, err
    assert out.count(" prompts for ") <= 4
    folder = own_recipe.parent / "runs/own/evaluation/predictions"
    labels = {path.name.rpartition("-")[0] for path in folder.glob("*.jsonl")}
    assert {"base", "base+reasoning", "base+self_route"} <= labels
    again = run_verb("evaluate", own_recipe, *told, "--limit", 2)
    assert (again[0], prompts_asked(again[1])) == (0, 0)


def test_a_word_that_is_no_suite_is_refused(own_recipe: Path, run_verb: Verb) -> None:
    code, _, err = run_verb("evaluate", own_recipe, "--suite", "robst")
    assert code == 2
    assert "robust" in err
