"""`rag-ft evaluate` asks servers: as systems beside weights loaded here, and as a judge of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import Reply, Server, serving
from own_questions import NAMES, answers_of, built, cell_of, evaluation_of, prompts_asked, stored, told

Verb = Callable[..., tuple[int, str, str]]
KEY = "sk-secret-4711"
POINTS: dict[str, Any] = {"passages": [1, 3], "gold": ["kept"], "references": ["closed_book"]}


@pytest.fixture(scope="module")
def built_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    return built(tmp_path_factory.mktemp("served"), tiny_weights)


@pytest.fixture
def recipe(built_recipe: Path, tmp_path: Path) -> Path:
    """The same data, a run of its own."""
    data = tmp_path / "runs" / "own" / "data"
    data.parent.mkdir(parents=True)
    data.symlink_to(built_recipe.parent / "runs" / "own" / "data")
    changed = {**yaml.safe_load(built_recipe.read_text()), "runs_dir": str(tmp_path / "runs")}
    changed["model"]["chat_template_kwargs"] = {"enable_thinking": False}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changed))
    return tmp_path / "own.yaml"


def town(messages: Any) -> int:
    return int(re.findall(r"the book of town (\d)\?", messages[-1]["content"])[-1])


def right(messages: Any, body: Any) -> Reply:
    """The writer's name and a line more; who forgets to read the first line alone is not right exactly."""
    return Reply(f"{NAMES[town(messages)]}\nIt is known.", 50, [-0.25, -0.75])


def system(server: Server, **changes: Any) -> dict[str, Any]:
    endpoint = {"base_url": server.url, "model": "big", "api_key_env": "RAG_FT_TEST_KEY", "concurrency": 2}
    return {"name": "server", "endpoint": {**endpoint, "input_price": 2, "output_price": 8}, **changes}


def test_a_server_is_a_system_and_its_failures_count_and_are_asked_again(
    recipe: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    broken = Server(right, lambda messages, tries: 400 if town(messages) == 3 else None)
    with serving(broken) as server:
        asked = told(systems=[{"name": "base"}, system(server)], **POINTS)
        code, out, err = run_verb("evaluate", recipe, *asked)
        assert code == 0, err
        assert "evaluate server: 3 answers failed and count as wrong" in out
        assert (len(server.bodies), prompts_asked(out)) == (21, 42)  # 7 questions, 3 points, one call for each
        cell = cell_of(recipe, system="server", gold="kept", passages=3)
        assert (cell["accuracy"]["mean"], cell["exact_match"]["mean"]) == (pytest.approx(6 / 7),) * 2
        assert (cell["failures"], cell["prompt_tokens"] > 0, cell["cost"] > 0) == (1, True, True)
        [failed] = [row for row in answers_of(recipe) if row["failure"] and row["passages"] == 3]
        assert (failed["question_id"], failed["accuracy"], failed["answer"]) == ("q3", 0, None)
        kept = next(row for row in answers_of(recipe) if row["system"] == "server" and not row["failure"])
        assert (kept["prompt_tokens"], kept["output_tokens"], kept["confidence"]) == (50, 2, -0.5)
        assert kept["cost"] == pytest.approx((50 * 2 + 2 * 8) / 1e6)

        before = len(server.bodies)
        code, out, _ = run_verb("evaluate", recipe, *asked)
        assert (code, prompts_asked(out), len(server.bodies)) == (0, 0, before)
        broken.fault = lambda messages, tries: None
        code, out, _ = run_verb("evaluate", recipe, *asked, "--again")
        assert (code, prompts_asked(out), len(server.bodies)) == (0, 3, before + 3)
        assert "failed" not in out
        assert cell_of(recipe, system="server", gold="kept", passages=3)["accuracy"]["mean"] == 1
        assert prompts_asked(run_verb("evaluate", recipe, *asked, "--again")[1]) == 0
    assert set(server.keys) == {f"Bearer {KEY}"}
    files = [path for path in recipe.parent.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY in path.read_text(errors="replace")]
    assert KEY not in out + err


def test_a_server_is_sent_what_weights_loaded_here_are_asked(recipe: Path, run_verb: Verb, tiny_weights: Path) -> None:
    from transformers import AutoTokenizer

    with serving(Server(right)) as server:
        asked = told(systems=[{"name": "base"}, system(server)], **POINTS)
        assert run_verb("evaluate", recipe, *asked, "--limit", 1)[0] == 0
    tokenizer = AutoTokenizer.from_pretrained(tiny_weights)
    there = [
        len(tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False))
        for body in server.bodies
    ]
    assert sorted(there) == sorted(row["prompt_tokens"] for row in stored(recipe, "base"))
    assert {json.dumps(body["chat_template_kwargs"]) for body in server.bodies} == {'{"enable_thinking": false}'}
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in server.bodies} == {("big", 3, 0)}


def test_what_a_closed_book_prompt_is_answered_is_read_as_the_answer_alone(recipe: Path, run_verb: Verb) -> None:
    """The prompt asks for the answer alone in every style, so its last line is no answer."""
    with serving(Server(right)) as server:
        asked = told(systems=[system(server, style="self_reasoning")], **POINTS)
        assert run_verb("evaluate", recipe, *asked)[0] == 0
    closed = cell_of(recipe, system="server", gold="closed_book")
    assert (closed["accuracy"]["mean"], closed["exact_match"]["mean"]) == (1, 1)
    reasoned = cell_of(recipe, system="server", gold="kept", passages=3)
    assert (reasoned["accuracy"]["mean"], reasoned["citation_recall"]["mean"]) == (0, 0)  # no part that it asks for
    assert closed["citation_recall"] is None
    assert {row["answer"] for row in stored(recipe) if row["gold"] == "closed_book"} == set(NAMES)
    shown = json.loads((evaluation_of(recipe) / "examples.json").read_text())
    assert "It is known." in json.dumps(shown)


def test_a_judge_is_asked_once_for_each_answer_and_its_verdicts_are_kept(
    recipe: Path, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)

    def reply(messages: Any, body: Any) -> Reply:
        if "quiz" in messages[0]["content"]:
            return Reply("yes" if "Miss" in messages[-1]["content"] else "no")
        number = town(messages)
        names = {0: NAMES[0], 1: "Miss M.", 2: "The passages do not say."}
        return Reply(names.get(number, "somebody else"))

    with serving(Server(reply)) as server:
        judge = {"endpoint": {**system(server)["endpoint"], "model": "judge"}}
        asked = told(systems=[system(server)], judge=judge, **POINTS)
        code, out, err = run_verb("evaluate", recipe, *asked)
        assert code == 0, err
        judged = [body for body in server.bodies if body["model"] == "judge"]
        # q0 is equal and q2 declines, which nobody need ask about; q1 and q3 to q6 are asked once for all three points
        assert len(judged) == 5
        cell = cell_of(recipe, system="server", gold="kept", passages=3)
        assert (cell["judged"]["mean"], cell["accuracy"]["mean"]) == (pytest.approx(2 / 7), pytest.approx(1 / 7))
        before, scores = len(server.bodies), (evaluation_of(recipe) / "scores.json").read_bytes()
        assert run_verb("evaluate", recipe, *asked)[0] == 0
        assert len(server.bodies) == before
        assert (evaluation_of(recipe) / "scores.json").read_bytes() == scores
    assert KEY not in (evaluation_of(recipe) / "verdicts.jsonl").read_text() + out + err


def test_gold_that_a_routed_answer_has_not_seen_need_not_be_cited(recipe: Path, run_verb: Verb) -> None:
    """The first question has two gold passages; the first try shows one of them."""

    def reply(messages: Any, body: Any) -> Reply:
        if town(messages) and "[2]" not in messages[-1]["content"]:
            return Reply("Answer: The passages do not say.")
        cited = next(line for line in messages[-1]["content"].splitlines() if line.startswith("["))[:3]
        return Reply(f"{cited} It says who wrote it.\nAnswer: {NAMES[town(messages)]}")

    with serving(Server(reply)) as server:
        routed = system(server, style="reasoning", strategy="self_route", self_route={"passages": 1})
        asked = told(systems=[routed], passages=[1, 2], gold=["kept"], references=[])
        assert run_verb("evaluate", recipe, *asked)[0] == 0
    rows = {row["question_id"]: row for row in answers_of(recipe) if row["passages"] == 2}
    assert (rows["q0"]["route"], rows["q0"]["answerable"]) == ("few", True)
    kept = {row["question_id"]: row["shown"] for row in stored(recipe) if row["passages"] == 2}
    for name, row in rows.items():
        gold = {f"p{name[1:]}-1", *(["p0-3"] if name == "q0" else [])}
        seen = kept[name][:1] if row["route"] == "few" else kept[name]
        expected = None if not gold & set(seen) else len(gold & {seen[0]}) / len(gold & set(seen))
        assert row["citation_recall"] == expected, name
    assert rows["q0"]["citation_recall"] == 1
    assert {row["route"] for row in rows.values()} == {"few", "all"}
