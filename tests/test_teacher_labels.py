"""Labels of a teacher, through `rag-ft build`, against a server on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from label_teachers import honest, question, replying, shown, told_answer
from openai_server import Messages, Reply, Server, serving
from taught import KEY, data, recipe

from data_builders.records import ContextRow
from data_builders.tables import read_context_rows

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)


def rows(folder: Path, split: str = "train") -> list[ContextRow]:
    return list(read_context_rows(data(folder) / f"labels/{split}.parquet"))


def labels(folder: Path) -> dict[str, Any]:
    return {
        asked.id: asked for split in ("train", "validation") for row in rows(folder, split) for asked in row.questions
    }


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data(folder) / "labels/manifest.json").read_text())
    return found


def rejected(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data(folder) / "labels/rejected.jsonl").read_text().splitlines()]


@pytest.fixture
def teacher() -> Iterator[Server]:
    with serving(Server(replying(honest))) as server:
        yield server


@pytest.mark.usefixtures("tiny")
class TestBuild:
    def test_every_question_gets_the_label_the_teacher_wrote_of_the_passages_shown(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        code, out, err = run_verb("build", recipe(tmp_path, teacher))
        assert code == 0, err
        assert len(teacher.bodies) == 20
        by_question = {question(body["messages"][0]["content"]): body for body in teacher.bodies}
        for split in ("train", "validation"):
            for row in rows(tmp_path, split):
                (asked,) = row.questions
                body = by_question[asked.question]
                prompt = body["messages"][0]["content"]
                assert list(shown(prompt).values()) == [passage.text for passage in row.passages]
                assert body["response_format"]["json_schema"]["schema"]["required"][0] == "relevance"
                assert told_answer(prompt) == asked.answers[0]
                assert asked.label_source == "teacher"
                assert asked.label is not None
                assert asked.label.answer == asked.answers[0]
                assert {item.passage for item in asked.label.relevance if item.relevant} == set(asked.gold)
                assert {item.passage for item in asked.label.evidence} == set(asked.gold)
        assert "20 labels by teacher" in out

    def test_answers_that_gates_turn_away_take_abstentions_with_them(self, tmp_path: Path, run_verb: Verb) -> None:
        def unlucky(prompt: str) -> dict[str, Any]:
            found = honest(prompt)
            wrong = found["answer"] is not None and sum(map(ord, question(prompt))) % 3 > 0
            return {**found, "answer": "Nobody"} if wrong else found

        def shares(path: Path) -> tuple[int, int]:
            code, out, err = run_verb("build", path)
            assert code == 0, err
            found = [one.label.answer is None for one in labels(tmp_path).values() if one.label]
            assert ("that would outweigh the others" in out) == ("balance: 0.0" in path.read_text())
            return found.count(False), found.count(True)

        with serving(Server(replying(unlucky))) as server:
            mixed = {"gold_probability": 0.5}
            answers, declined = shares(recipe(tmp_path, server, contexts=mixed, balance=None))
            calls = len(server.bodies)
            same, fewer = shares(recipe(tmp_path, server, contexts=mixed, balance=0.0))
            assert len(server.bodies) == calls
        assert same == answers
        assert 0 < fewer < declined

    def test_the_manifest_says_who_wrote_what_and_no_file_holds_the_key(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        prices = {"input_price": 1000.0, "output_price": 5000.0}
        code, out, _ = run_verb("build", recipe(tmp_path, teacher, endpoint=prices))
        assert code == 0
        assert set(teacher.keys) == {f"Bearer {KEY}"}
        found = manifest(tmp_path)
        assert found["settings"]["labels"]["endpoint"]["model"] == "teacher-1"
        assert re.fullmatch("[0-9a-f]{64}", found["settings"]["labels"]["template_sha256"])
        counts = found["counts"]
        assert (counts["tokens read"], counts["tokens written"]) == (2000, 400)
        assert counts["money"] == 4.0  # 2,000 at 0.001 and 400 at 0.005
        assert counts["passages judged relevant"] + counts["passages judged irrelevant"] == 40
        assert counts["passages judged irrelevant"] == 18  # two passages each; both are gold in the two of two hops
        for path in (tmp_path / "runs").rglob("*"):
            assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
        assert KEY not in out

    def test_nothing_is_asked_again_when_gates_change_and_everything_when_the_model_does(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        assert run_verb("build", recipe(tmp_path, teacher))[0] == 0
        before = labels(tmp_path)
        _, out, _ = run_verb("build", recipe(tmp_path, teacher, endpoint={"concurrency": 3}))
        assert "labels: unchanged" in out
        path = recipe(tmp_path, teacher, gates={"length": None, "leak": False})
        _, out, _ = run_verb("build", path)
        assert "labels: building (settings changed: labels)" in out
        assert len(teacher.bodies) == 20
        assert labels(tmp_path) == before
        assert run_verb("build", path, "data.labels.endpoint.model=teacher-2")[0] == 0
        assert len(teacher.bodies) == 40

    def test_a_template_of_ones_own_is_sent_and_its_words_decide_the_step(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        mine = tmp_path / "mine.txt"
        assert run_verb("recipes", "copy", "templates/self_reasoning", mine)[0] == 0
        path = recipe(tmp_path, teacher, template=str(mine))
        assert run_verb("build", path)[0] == 0
        first = manifest(tmp_path)["settings"]["labels"]["template_sha256"]
        mine.write_text("Mind the towns.\n" + mine.read_text())
        assert run_verb("build", path)[0] == 0
        assert manifest(tmp_path)["settings"]["labels"]["template_sha256"] != first
        assert [body["messages"][0]["content"][:15] for body in teacher.bodies[20:]] == ["Mind the towns."] * 20
        moved = mine.rename(tmp_path / "moved.txt")  # known by its words, not by where they stand
        assert "labels: unchanged" in run_verb("build", recipe(tmp_path, teacher, template=str(moved)))[1]

    def test_contexts_without_evidence_get_a_reasoned_abstention(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        path = recipe(tmp_path, teacher, contexts={"gold_probability": 0.5})
        assert run_verb("build", path)[0] == 0
        without = [asked for asked in labels(tmp_path).values() if not asked.answerable]
        assert 0 < len(without) < 20
        for asked in without:
            assert asked.label.answer is None
            assert asked.label.evidence == ()
            assert all("history of" in item.reason and not item.relevant for item in asked.label.relevance)
        prompts = {question(body["messages"][0]["content"]): body["messages"][0]["content"] for body in teacher.bodies}
        for asked in without:
            assert "do not hold what is needed" in prompts[asked.question]
            assert told_answer(prompts[asked.question]) is None

    @pytest.mark.parametrize(("gold_absent", "sources"), [("answer", {"teacher", "gold"}), ("drop", {"teacher"})])
    def test_nobody_is_paid_for_labels_that_no_one_reasons_about(
        self, gold_absent: str, sources: set[str], tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        path = recipe(tmp_path, teacher, contexts={"gold_probability": 0.5, "gold_absent": gold_absent})
        assert run_verb("build", path)[0] == 0
        found = labels(tmp_path).values()
        assert {asked.label_source for asked in found} == sources
        assert len(teacher.bodies) == sum(asked.answerable for asked in found)
        assert all(asked.label.answer == asked.answers[0] for asked in found)

    def test_a_shared_context_is_shown_once_for_each_of_its_questions(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        contexts = {"questions_per_context": 4, "passages": {"kind": "fixed", "count": 4}, "own_negatives": 0}
        assert run_verb("build", recipe(tmp_path, teacher, contexts=contexts))[0] == 0
        found = rows(tmp_path)
        assert max(len(row.questions) for row in found) > 1
        prompts = {question(body["messages"][0]["content"]): body["messages"][0]["content"] for body in teacher.bodies}
        for row in found:
            heads = {prompts[asked.question].partition("<question>")[0] for asked in row.questions}
            assert len(heads) == 1  # what a server's prefix cache holds
        assert len(teacher.bodies) == len(labels(tmp_path)) == 20


@pytest.mark.usefixtures("tiny")
class TestWhatGoesWrong:
    def test_an_output_that_cannot_be_read_is_asked_for_again_with_what_was_wrong(
        self, tmp_path: Path, run_verb: Verb
    ) -> None:
        def reply(messages: Messages, body: dict[str, Any]) -> Reply:
            label = honest(messages[0]["content"])
            if len(messages) == 1:
                del label["analysis"]
            return Reply(json.dumps(label))

        with serving(Server(reply)) as server:
            assert run_verb("build", recipe(tmp_path, server))[0] == 0
        assert len(server.bodies) == 40
        again = [body["messages"] for body in server.bodies if len(body["messages"]) > 1]
        assert {messages[1]["role"] for messages in again} == {"assistant"}
        assert all('There is no "analysis"' in messages[2]["content"] for messages in again)
        assert len(labels(tmp_path)) == 20
        assert manifest(tmp_path)["counts"]["labels mended when asked again"] == 20

    def test_what_stays_unreadable_is_rejected_after_the_tries_allowed(self, tmp_path: Path, run_verb: Verb) -> None:
        with serving(Server(lambda messages, body: Reply("I would rather talk."))) as server:
            assert run_verb("build", recipe(tmp_path, server, attempts=3, rejected="gold"))[0] == 0
        assert len(server.bodies) == 60
        assert {asked.label_source for asked in labels(tmp_path).values()} == {"gold"}
        assert {row["gate"] for row in rejected(tmp_path)} == {"well_formed"}

    @pytest.mark.parametrize("choice", ["drop", "gold"])
    def test_a_rejected_label_is_left_out_or_replaced_counted_and_listed(
        self, choice: str, tmp_path: Path, run_verb: Verb
    ) -> None:
        def write(prompt: str) -> dict[str, Any]:
            wrong = question(prompt) == "When was the town of Aldo founded?"
            return {**honest(prompt), **({"answer": "1900"} if wrong else {})}

        with serving(Server(replying(write))) as server:
            code, out, _ = run_verb("build", recipe(tmp_path, server, rejected=choice))
        assert code == 0
        found, (listed,) = labels(tmp_path), rejected(tmp_path)
        assert listed["gate"] == "answer"
        assert "1900" in json.dumps(listed)
        assert "labels rejected: answer" in out
        assert "train-0-year" in out
        assert (data(tmp_path) / "labels/rejected.html").is_file()
        if choice == "drop":
            assert len(found) == 19
            assert manifest(tmp_path)["dropped"]["labels rejected: answer"] == 1
        else:
            assert found["train-0-year"].label_source == "gold"
            assert found["train-0-year"].label.analysis == "So 1801."

    def test_calls_that_failed_in_passing_are_asked_again_by_the_next_build(
        self, tmp_path: Path, run_verb: Verb
    ) -> None:
        broken = [True]

        def fault(messages: Messages, tries: int) -> Any:
            lost = broken[0] and "Aldo older" in question(messages[0]["content"])
            return (400, "no room at the moment") if lost else None

        with serving(Server(replying(honest), fault)) as server:
            path = recipe(tmp_path, server)
            assert run_verb("build", path)[0] == 0
            assert "train-older" not in labels(tmp_path)
            broken[0] = False
            _, out, _ = run_verb("build", path)
            assert "calls without an answer may get one now: 1" in out
            assert "train-older" in labels(tmp_path)
            assert "labels: unchanged" in run_verb("build", path)[1]
        assert len(server.bodies) == 21

    def test_calls_without_an_answer_are_counted_by_reason_and_listed(self, tmp_path: Path, run_verb: Verb) -> None:
        def reply(messages: Messages, body: dict[str, Any]) -> Reply:
            if "Aldo older" in question(messages[0]["content"]):
                return Reply(None, refusal="I will not.")
            return replying(honest)(messages, body)

        with serving(Server(reply)) as server:
            assert run_verb("build", recipe(tmp_path, server))[0] == 0
        assert "train-older" not in labels(tmp_path)
        assert len(labels(tmp_path)) == 19
        assert manifest(tmp_path)["dropped"]["calls without an answer"] == 1
        (listed,) = rejected(tmp_path)
        assert "I will not." in json.dumps(listed)

    @pytest.mark.parametrize(("broken", "told"), [("Aldo", False), ("", True)])
    def test_a_build_that_loses_most_of_what_was_paid_for_says_where_to_look(
        self, broken: str, told: bool, tmp_path: Path, run_verb: Verb
    ) -> None:
        def write(prompt: str) -> dict[str, Any]:
            return {**honest(prompt), **({"answer": "nobody"} if f"{broken} older" in question(prompt) or told else {})}

        with serving(Server(replying(write))) as server:
            _, out, _ = run_verb("build", recipe(tmp_path, server))
        assert ("20 of 20 labels were turned away: read" in out) == told
        assert ("rejected.html" in out) == told

    def test_passages_too_long_for_the_model_that_judges_support_are_counted(
        self, tmp_path: Path, teacher: Server, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Judge:
            longest, shortened = 16, 0

            def __call__(self, pairs: list[tuple[str, str]]) -> list[bool]:
                self.shortened += len(pairs)
                return [True] * len(pairs)

        monkeypatch.setattr("data_builders.label_step.load_entailment", lambda *named: Judge())
        gates = {"support": {"model": "some/judge"}}
        _, out, _ = run_verb("build", recipe(tmp_path, teacher, gates=gates))
        assert manifest(tmp_path)["counts"]["premises cut to the tokens gates.support.model reads"] == 20
        assert "20 premises cut" in out

    def test_another_model_that_judges_support_judges_anew_and_asks_nobody(
        self, tmp_path: Path, teacher: Server, run_verb: Verb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = tmp_path / "judge" / "model.safetensors"
        judge.parent.mkdir()
        judge.write_bytes(b"says yes")
        monkeypatch.setattr(
            "data_builders.label_step.load_entailment",
            lambda *named: lambda pairs: [judge.read_bytes() == b"says yes"] * len(pairs),
        )
        path = recipe(tmp_path, teacher, gates={"support": {"model": str(judge.parent)}}, rejected="gold")
        why = {"teacher": "not built yet", "gold": "a file of data.labels.gates.support.model changed"}
        for verdict, source in ((b"says yes", "teacher"), (b"says no", "gold")):
            judge.write_bytes(verdict)
            assert f"labels: building ({why[source]})" in run_verb("build", path)[1]
            assert {asked.label_source for asked in labels(tmp_path).values()} == {source}
            assert "labels: unchanged" in run_verb("build", path)[1]
        assert len(teacher.bodies) == 20

    def test_a_budget_that_is_spent_ends_the_build_and_the_same_command_goes_on(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        path = recipe(tmp_path, teacher, endpoint={"budget": {"tokens": 1500}, "max_tokens": 64, "concurrency": 2})
        code, _, err = run_verb("build", path)
        assert code == 2
        assert "endpoint.budget.tokens=1500" in err
        asked = len(teacher.bodies)
        assert 0 < asked < 20
        assert not (data(tmp_path) / "labels/manifest.json").exists()
        for _ in range(8):
            code, _, err = run_verb("build", path)
        assert code == 0, err
        assert len(teacher.bodies) == 20
        assert len(labels(tmp_path)) == 20

    def test_going_back_to_annotations_takes_the_page_of_rejected_labels_away(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        path = recipe(tmp_path, teacher)
        assert run_verb("build", path)[0] == 0
        told = yaml.safe_load(path.read_text())
        told["data"]["labels"] = {"kind": "gold"}
        path.write_text(yaml.safe_dump(told))
        assert run_verb("build", path)[0] == 0
        assert not list((data(tmp_path) / "labels").glob("rejected.*"))
        assert {asked.label_source for asked in labels(tmp_path).values()} == {"gold"}
