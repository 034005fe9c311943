"""Documents without questions through `rag-ft build`: a local server stands for the teacher, with replies by hand."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from openai_server import Reply, Server, serving

from data_builders.synthesis.plan import synthesis_calls
from data_builders.synthesis.prompts import SHIPPED
from data_builders.synthesis_step import open_passages
from data_builders.tables import read_context_rows, read_questions
from rag_ft.cli import main
from rag_ft.facts import data_facts
from rag_ft.recipe.load import load_recipe
from rag_ft.runs import RunFolder

Row = dict[str, Any]
TOWNS = ["Velmoth", "Torda", "Garlin", "Maslor", "Brandick", "Linby", "Tordick", "Velsu"]


def text_of(number: int) -> str:
    """Two facts of a town; the years are 1800, 1810, ..."""
    town = TOWNS[number]
    return (
        f"The lighthouse of {town} was built in {1800 + 10 * number} by the harbour guild. Every spring its door is "
        f"painted anew. The keeper of {town} is known for {number + 2}0 kinds of dried pepper that the ships carry off."
    )


def lighthouse(number: int, **changes: str) -> Row:
    good = {
        "question": f"When was the lighthouse of {TOWNS[number]} built?",
        "answer": str(1800 + 10 * number),
        "quote": f"The lighthouse of {TOWNS[number]} was built in {1800 + 10 * number}",
    }
    return {**good, **changes}


BAD: dict[int, tuple[str, Row | str]] = {
    0: ("quote", lighthouse(0, question="Who built the lighthouse of Velmoth?", quote="It was built by giants.")),
    1: ("answer", lighthouse(1, question="Who built the lighthouse of Torda?", answer="giants")),
    2: ("unsaid", lighthouse(2, question="Who built the lighthouse of Garlin in 1820?")),
    3: ("self_contained", lighthouse(3, question="When does the text say that the Maslor light was built?")),
    4: ("repeats", lighthouse(4, question="when was the lighthouse of Brandick built")),
    5: ("well_formed", "no object"),
    6: ("lengths", lighthouse(6, quote="in 1860")),
    7: ("elsewhere", lighthouse(7, question="Who built the lighthouse of Velsu?", answer="the harbour guild",
                               quote="built in 1870 by the harbour guild")),
}  # fmt: skip
"""By town: the filter that should turn the second question away, and that question."""


def number_of(messages: list[dict[str, str]]) -> int:
    """Which town a call shows, the first of two."""
    shown = messages[0]["content"].split("<passage")[1]
    return next(number for number, town in enumerate(TOWNS) if f"lighthouse of {town} " in shown)


def teacher(messages: list[dict[str, str]], body: Row) -> Reply:
    number = number_of(messages)
    text = json.dumps({"questions": [lighthouse(number), BAD[number][1]]})
    return Reply(text, prompt_tokens=300, logprobs=[0.0] * 10)


@dataclass
class Work:
    """A folder of documents and a recipe over it."""

    folder: Path
    url: str = ""
    questions: Row = field(default_factory=dict)
    data: Row = field(default_factory=dict)

    def write(self) -> Path:
        documents = self.folder / "documents"
        documents.mkdir(exist_ok=True)
        for number, town in enumerate(TOWNS):
            (documents / f"{town}.md").write_text(f"# {town}\n\n{text_of(number)}\n")
        endpoint = {"base_url": self.url, "model": "teacher", "concurrency": 3, **self.questions.pop("endpoint", {})}
        self.questions = {"kind": "teacher", **self.questions, "endpoint": endpoint}
        recipe = {
            "name": "own",
            "runs_dir": str(self.folder / "runs"),
            "data": {
                "sources": {"mine": {"kind": "documents", "path": str(documents)}},
                "questions": self.questions,
                "splits": {"test": 0.25},
                "depth": 10,
                "contexts": {"passages": {"kind": "fixed", "count": 3}},
                "processes": 1,
                **self.data,
            },
        }
        path = self.folder / "own.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    def build(self, *overrides: str) -> int:
        return main(["build", str(self.write()), *overrides])

    @property
    def built(self) -> Path:
        return self.folder / "runs/own/data"

    @property
    def manifest(self) -> Row:
        return json.loads((self.built / "synthesis/manifest.json").read_text())

    @property
    def rejected(self) -> list[Row]:
        return [json.loads(line) for line in (self.built / "synthesis/rejected.jsonl").read_text().splitlines()]

    def asked(self) -> dict[str, Any]:
        return {one.question: one for one in read_questions(self.built / "synthesis/questions.parquet")}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(teacher)) as one:
        yield one


@pytest.fixture
def work(tmp_path: Path, server: Server) -> Work:
    return Work(tmp_path, server.url)


class TestQuestions:
    def test_good_questions_become_training_rows_with_their_quotes(self, work):
        assert work.build() == 0
        assert work.asked().keys() == {lighthouse(number)["question"] for number in range(8)}
        labelled = list(read_context_rows(work.built / "labels/train.parquet"))
        tests = pq.read_table(work.built / "pools/test.parquet").num_rows
        assert (len(labelled), tests) == (6, 2)
        for row in labelled:
            [asked] = row.questions
            number = next(n for n in range(8) if lighthouse(n)["question"] == asked.question)
            if asked.answerable:
                assert asked.label.answer == str(1800 + 10 * number)
                assert (asked.source, asked.group) == ("mine", "synthesised")
                assert [item.quote for item in asked.label.evidence] == [lighthouse(number)["quote"]]

    def test_bad_questions_are_turned_away_by_the_right_filter_counted_and_listed(self, work):
        assert work.build() == 0
        found = {TOWNS.index(row["passages"][0].partition(".")[0]): row for row in work.rejected}
        assert {number: row["filter"] for number, row in found.items()} == {n: name for n, (name, _) in BAD.items()}
        assert sum(work.manifest["dropped"].values()) == 8
        assert all(amount == 1 for amount in work.manifest["dropped"].values())
        assert work.manifest["counts"]["questions written"] == 16
        assert found[0]["quotes"] == ["It was built by giants."]
        assert len(work.manifest["excerpts"]["questions kept"]) == 8

    def test_check_says_who_writes_them_and_the_facts_of_a_run_how_many(self, work, capsys):
        assert main(["check", str(work.write())]) == 0
        assert f"2 of every passage, by teacher at {work.url}" in capsys.readouterr().out
        assert work.build() == 0
        facts = data_facts(RunFolder(work.folder / "runs/own"))
        assert (facts["synthesis questions"], facts["synthesis rejected"], facts["clean questions-train"]) == (8, 8, 6)

    def test_documents_of_test_questions_train_nothing(self, work):
        assert work.build() == 0
        documents = {}
        for split in ("train", "test"):
            pools = pq.read_table(work.built / f"pools/{split}.parquet").to_pylist()
            shown = [passage for pool in pools for passage in pool["passages"]]
            documents[split] = {passage["id"].partition("#")[0] for passage in shown if passage["is_gold"]}
        assert documents["train"].isdisjoint(documents["test"])
        assert len(documents["train"] | documents["test"]) == 8

    def test_the_same_recipe_gives_the_same_bytes_in_whatever_order_replies_come(self, tmp_path, server):
        files = []
        for name, concurrency in (("one", 1), ("many", 8)):
            (tmp_path / name).mkdir()
            work = Work(tmp_path / name, server.url, {"endpoint": {"concurrency": concurrency}})
            assert work.build() == 0
            written = [work.built / "synthesis" / file for file in ("questions.parquet", "rejected.jsonl")]
            files.append([file.read_bytes() for file in written])
        assert files[0] == files[1]

    def test_a_cap_asks_about_that_many_passages(self, work, server):
        work.questions = {"passages": 5, "per_passage": 1}
        assert work.build() == 0
        assert len(server.bodies) == len(work.asked()) == 5
        assert work.manifest["counts"]["questions beyond data.questions.per_passage"] == 5

    def test_what_is_priced_is_what_is_asked(self, work, server, tmp_path):
        assert work.build() == 0
        settings = load_recipe(work.folder / "own.yaml").data.questions
        corpus = open_passages(work.built / "source/passages.parquet", tmp_path / "parts")
        priced = [[dict(message) for message in call.messages] for call in synthesis_calls(settings, corpus, 1)]
        asked = [body["messages"] for body in server.bodies]
        assert sorted(priced, key=str) == sorted(
            ([{"role": one["role"], **one} for one in each] for each in asked), key=str
        )

    def test_a_dry_run_prices_what_is_still_to_be_asked_and_asks_nothing(self, work, server, capsys):
        work.questions = {"passages": 3, "endpoint": {"max_tokens": 100}}
        assert work.build("--dry-run") == 0
        assert server.bodies == []
        out = capsys.readouterr().out
        assert "questions still to be asked for: 3 calls, " in out
        assert "at most 300 written" in out
        assert work.build() == 0
        assert work.build("data.questions.passages=8", "--dry-run") == 0
        assert "questions still to be asked for: 5 calls, " in capsys.readouterr().out
        assert len(server.bodies) == 3

    def test_where_other_passages_hold_the_answer_can_be_kept_as_a_second_gold(self, work):
        work.questions = {"filters": {"elsewhere": "alternative"}}
        assert work.build() == 0
        rival = work.asked()["Who built the lighthouse of Velsu?"]
        assert len(rival.alternatives) == 7
        assert not set(rival.gold) & set(rival.alternatives)


class TestOtherSources:
    def test_questions_of_sources_stay_and_are_not_asked_again(self, work):
        gold = {"id": "x", "title": "", "text": "In 1800 the light of Velmoth rose.", "is_gold": True}
        row = {"id": "own", "question": "When was the lighthouse of Velmoth built?", "answers": ["1800"]}
        file = work.folder / "rows.jsonl"
        file.write_text(json.dumps({**row, "passages": [gold]}) + "\n")
        work.write()
        mine = {"kind": "documents", "path": str(work.folder / "documents")}
        work.data = {"sources": {"mine": mine, "rows": {"kind": "jsonl", "path": str(file)}}}
        work.questions = {"filters": {"elsewhere": "keep"}}
        assert work.build() == 0
        asked = work.asked()
        assert asked["When was the lighthouse of Velmoth built?"].id == "rows:own"
        assert {one.source for one in asked.values()} == {"mine", "rows"}
        assert asked["When was the lighthouse of Torda built?"].gold[0].startswith("mine:Torda.md")
        assert [row["filter"] for row in work.rejected].count("repeats") == 2  # and that of Brandick

    def test_a_passage_of_one_split_is_asked_about_in_that_split(self, tmp_path, server):
        sources = {}
        for number, split in enumerate(("train", "test")):
            passages = [{"id": f"p{number}", "title": TOWNS[number], "text": text_of(number)}]
            row = {"id": f"r{number}", "question": f"Where is town {number}?", "answers": ["north"],
                   "passages": [{**passages[0], "is_gold": True}]}  # fmt: skip
            file = tmp_path / f"{split}.jsonl"
            file.write_text(json.dumps(row) + "\n")
            sources[split] = str(file)
        work = Work(tmp_path, server.url, data={"sources": {"rows": {"kind": "jsonl", "path": sources}}})
        assert work.build() == 0
        found = {one.question: one.split for one in work.asked().values() if one.group == "synthesised"}
        assert found == {lighthouse(0)["question"]: "train", lighthouse(1)["question"]: "test"}


class TestTwoHops:
    def test_a_pair_gives_questions_with_two_gold_passages(self, tmp_path):
        born = dict(zip(("Ada", "Bo", "Cleo", "Dag"), TOWNS, strict=False))
        tail = "and later painted ships for the guild of salt and rope."
        people = {f"{name} Lund": f"{name} Lund was born in {town} {tail}" for name, town in born.items()}

        def reply(messages: list[dict[str, str]], body: Row) -> Reply:
            person = re.search(r"(\w+ Lund) was born in (\w+)", messages[0]["content"])
            if person is None or "passage 2" not in messages[0]["content"]:
                return Reply('{"questions": []}')
            number = TOWNS.index(person[2])
            question = f"When was the lighthouse of the town built in which {person[1]} was born?"
            return Reply(json.dumps({"questions": [{
                "question": question, "answer": str(1800 + 10 * number),
                "first_quote": person[0], "second_quote": lighthouse(number)["quote"],
            }]}))  # fmt: skip

        with serving(Server(reply)) as server:
            work = Work(tmp_path, server.url, {"hops": 1.0, "min_words": 10})
            work.write()
            for name, text in people.items():
                (tmp_path / "documents" / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
            assert work.build() == 0
        asked = list(work.asked().values())
        assert [one.group for one in asked] == ["synthesised_two_hop"] * 4
        for one in asked:
            person, town = (name.partition(".")[0] for name in one.gold)
            assert person.endswith(" Lund")
            assert [item.reason for item in one.evidence] == [f"It leads to {town}.", "It states the answer."]
        assert work.manifest["counts"]["of them beside a linked passage"] == 4


class TestAgain:
    def test_nothing_is_asked_twice(self, work, server, capsys):
        assert work.build() == 0
        assert len(server.bodies) == 8
        before = (work.built / "synthesis/questions.parquet").read_bytes()
        assert work.build() == 0
        assert "synthesis: unchanged" in capsys.readouterr().out
        (work.built / "synthesis/manifest.json").unlink()
        assert work.build("data.questions.endpoint.concurrency=1") == 0
        assert len(server.bodies) == 8
        assert (work.built / "synthesis/questions.parquet").read_bytes() == before

    def test_filters_can_be_changed_without_asking_again(self, work, server):
        assert work.build() == 0
        assert work.build("data.questions.filters.unsaid=false") == 0
        assert len(server.bodies) == 8
        assert "Who built the lighthouse of Garlin in 1820?" in work.asked()

    def test_a_spent_budget_stops_and_the_same_command_goes_on(self, work, server, capsys):
        work.questions = {"endpoint": {"concurrency": 1, "max_tokens": 16}}
        assert work.build("data.questions.endpoint.budget.tokens=2000") == 2
        assert 0 < len(server.bodies) < 8
        assert "budget" in capsys.readouterr().err
        assert work.build() == 0
        assert len(server.bodies) == 8
        assert len(work.asked()) == 8

    def test_a_kill_loses_the_calls_in_flight_only(self, tmp_path):
        def fault(messages: list[dict[str, str]], tries: int) -> Any:
            return "hang" if blocking and len(server.bodies) > 5 else None

        blocking, server = True, Server(teacher, fault)
        with serving(server):
            work = Work(tmp_path, server.url, {"endpoint": {"concurrency": 1}})
            command = [sys.executable, "-m", "rag_ft", "build", str(work.write())]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                with server.together:
                    reached = server.together.wait_for(lambda: len(server.bodies) > 5, timeout=240)
                process.send_signal(signal.SIGKILL)
            assert reached
            blocking = False
            server.closing.set()
            assert work.build() == 0
            repeated = [tries for tries in server.tries.values() if tries > 1]
        assert (len(server.bodies), repeated) == (9, [2])
        assert len(work.asked()) == 8


class TestTemplates:
    def test_a_template_of_ones_own_is_sent_and_a_change_of_it_asks_anew(self, work, server, capsys):
        mine = work.folder / "mine.txt"
        mine.write_text(SHIPPED.read_text().replace("Write questions that test", "Write good questions that test"))
        work.questions = {"template": str(mine)}
        assert work.build() == 0
        assert all("Write good questions" in body["messages"][0]["content"] for body in server.bodies)
        first = work.manifest["outside"]["template"]
        mine.write_text(mine.read_text().replace("good", "fine"))
        assert work.build("--dry-run") == 0
        assert "labels: their price can be said once the questions are written" in capsys.readouterr().out
        assert work.build() == 0
        assert len(server.bodies) == 16
        assert work.manifest["outside"]["template"] != first


class TestWhatGoesWrong:
    def test_calls_without_an_answer_are_listed_and_the_others_used(self, tmp_path, capsys):
        fault = lambda messages, tries: 400 if number_of(messages) == 2 else None  # noqa: E731
        with serving(Server(teacher, fault)) as server:
            work = Work(tmp_path, server.url)
            assert work.build() == 0
        [row] = [row for row in work.rejected if row["filter"] == "no_reply"]
        assert row["passages"][0].startswith("Garlin.md")
        assert "400" in row["why"]
        assert len(work.asked()) == 7
        assert "1 calls brought no answer" in capsys.readouterr().out

    def test_calls_that_failed_in_passing_are_asked_again_by_the_next_build(self, tmp_path, capsys):
        fault = lambda messages, tries: 400 if tries < down and number_of(messages) < 2 else None  # noqa: E731
        with serving(Server(teacher, fault)) as server:
            work, down = Work(tmp_path, server.url), 1
            assert work.build() == work.build() == work.build() == 0
            assert "synthesis: unchanged" in capsys.readouterr().out
            assert (len(server.bodies), len(work.asked())) == (8 + 2, 8)

    def test_a_teacher_that_writes_nothing_usable_is_one_sentence(self, tmp_path, capsys):
        with serving(Server(lambda messages, body: Reply("I cannot help with that."))) as server:
            work = Work(tmp_path, server.url)
            assert work.build() == 2
        assert "wrote no question that can be kept: questions that could not be read (8)." in capsys.readouterr().err
        assert len(work.rejected) == 8

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("data.questions=null", "no source has questions: name a file of them with data.sources.mine.questions"),
            ("data.questions.template=none.txt", "No such file or directory"),
            ("data.questions.endpoint.budget.money=1", "set data.questions.endpoint.input_price and"),
            ("data.questions.filters.lengths.least_quote=90", "lower least_quote"),
        ],
    )
    def test_mistakes_are_told_by_check(self, work, change, message, capsys):
        assert main(["check", str(work.write()), change]) == 2
        assert message in " ".join(capsys.readouterr().err.split())

    def test_two_hops_need_contexts_of_two_passages(self, work, capsys):
        work.questions, work.data = {"hops": 0.5}, {"contexts": {"passages": {"kind": "fixed", "count": 1}}}
        assert main(["check", str(work.write())]) == 2
        assert "contexts of 1 passage cannot answer questions of two hops" in " ".join(capsys.readouterr().err.split())
