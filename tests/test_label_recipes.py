"""The recipes in recipes/labels build what they promise: against a server on this machine, and with a tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from label_teachers import honest, question, replying, shown, told_answer
from openai_server import Messages, Reply, Server, serving
from test_synthesis import TOWNS, lighthouse, number_of, text_of

from data_builders.records import ContextQuestion
from data_builders.tables import read_context_rows
from rag_ft.recipe.shipped import shipped_recipes

Verb = Callable[..., tuple[int, str, str]]
BUILT = ["teacher", "local_teacher", "self_synthesis", "own_documents_teacher"]
QUICK = ["data.processes=1", "data.contexts.passages.count=2"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-4711")


def labelled(folder: Path, name: str) -> list[ContextQuestion]:
    """Return the questions of the training rows that a recipe built."""
    rows = read_context_rows(folder / name / "data/labels/train.parquet")
    return [asked for row in rows for asked in row.questions]


def test_every_recipe_for_labels_is_built_by_a_test() -> None:
    assert {name for name in shipped_recipes() if name.startswith("labels/")} == {f"labels/{name}" for name in BUILT}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["teacher", "local_teacher"])
def test_a_teacher_reasons_about_every_passage(name: str, tmp_path: Path, run_verb: Verb) -> None:
    with serving(Server(replying(honest))) as server:
        settings = [*QUICK, f"runs_dir={tmp_path}", f"data.labels.endpoint.base_url={server.url}"]
        code, priced, err = run_verb("build", f"labels/{name}", *settings, "--dry-run")
        assert code == 0, err
        assert server.bodies == []
        assert bool(re.search(r": 0\.\d+ at most", priced)) == (name == "teacher")  # a server of one's own has no price
        code, _, err = run_verb("build", f"labels/{name}", *settings)
        assert code == 0, err
        assert len(server.bodies) == 20
    found = labelled(tmp_path, name)
    assert {one.label_source for one in found} == {"teacher"}
    assert all(one.label is not None and len(one.label.relevance) == 2 for one in found)
    assert {one.label.answer is None for one in found if one.label and not one.answerable} <= {True}


@pytest.mark.usefixtures("tiny")
def test_a_local_teacher_that_fails_leaves_the_annotations(tmp_path: Path, run_verb: Verb) -> None:
    with serving(Server(replying(lambda prompt: {**honest(prompt), "answer": "Nobody"}))) as server:
        settings = [*QUICK, f"runs_dir={tmp_path}", f"data.labels.endpoint.base_url={server.url}"]
        code, _, err = run_verb("build", "labels/local_teacher", *settings, "data.contexts.gold_probability=1")
    assert code == 0, err
    found = labelled(tmp_path, "local_teacher")
    assert {one.label_source for one in found} == {"gold"}
    assert all(one.label is not None and one.label.answer == one.answers[0] for one in found)


@pytest.mark.usefixtures("tiny")
def test_the_students_own_base_writes_or_the_annotations_stand_in(
    tmp_path: Path, tiny_weights: Path, run_verb: Verb
) -> None:
    settings = [*QUICK, f"runs_dir={tmp_path}", f"data.labels.weights={tiny_weights}", f"model.weights={tiny_weights}"]
    code, _, err = run_verb(
        "build", "labels/self_synthesis", *settings, "data.labels.max_new_tokens=16", "model.dtype=float32"
    )
    assert code == 0, err
    found = labelled(tmp_path, "self_synthesis")
    assert len(found) == 13
    assert all(one.label is not None for one in found)
    assert "gold" in {one.label_source for one in found}  # random weights convince no gate of an answer


def of_towns(messages: Messages, body: dict[str, Any]) -> Reply:
    """Write a question about a town, or the label of one."""
    prompt = messages[0]["content"]
    if "<question>" not in prompt:
        return Reply(json.dumps({"questions": [lighthouse(number_of(messages))]}), prompt_tokens=300, logprobs=[0.0])
    town = next(town for town in TOWNS if f"lighthouse of {town} " in question(prompt))
    gold = [number for number, text in shown(prompt).items() if f"lighthouse of {town} was" in text]
    answer = told_answer(prompt) if gold else None
    label = {
        "relevance": [
            {"passage": number, "relevant": number in gold, "reason": f"It is about the town {text.split()[3]} alone."}
            for number, text in shown(prompt).items()
        ],
        "evidence": [
            {"passage": number, "quote": f"The lighthouse of {town} was built in {answer}", "reason": "It tells."}
            for number in gold
        ],
        "analysis": f"It was built then [{gold[0]}]." if gold else "None of them speaks of that lighthouse.",
        "answer": answer,
    }
    return Reply(json.dumps(label), prompt_tokens=300, logprobs=[0.0])


def test_documents_without_questions_become_questions_and_labels(tmp_path: Path, run_verb: Verb) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for number, town in enumerate(TOWNS):
        (documents / f"{town}.md").write_text(f"# {town}\n\n{text_of(number)}\n")
    name = "own_documents_teacher"
    with serving(Server(of_towns)) as server:
        code, _, err = run_verb(
            "build",
            f"labels/{name}",
            f"runs_dir={tmp_path / 'runs'}",
            f"data.sources.documents.path={documents}",
            *(f"data.{part}.endpoint.base_url={server.url}" for part in ("questions", "labels")),
            "data.questions.hops=0",
            "data.contexts.passages={kind: fixed, count: 3}",
            "data.splits={test: 0.25}",
            "data.processes=1",
        )
        assert code == 0, err
    found = labelled(tmp_path / "runs", name)
    written = {lighthouse(number)["question"]: str(1800 + 10 * number) for number in range(8)}
    assert len(found) == 6  # the documents of two are for the test
    for one in found:
        assert one.label is not None
        assert one.label_source == "teacher"
        assert one.label.answer == (written[one.question] if one.answerable else None)
        assert len(one.label.relevance) == 3
