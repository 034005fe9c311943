"""What was answered is on disk before anybody awaits it, is never asked for again, and a budget stops in time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import Messages, Reply, Server, serving

from data_builders.errors import RagFtError
from data_builders.servers import Call
from data_builders.servers import Reply as Answer
from data_builders.servers.job import not_kept, teacher_job
from data_builders.servers.settings import TeacherSettings
from data_builders.servers.store import Problems, call_hash, kept, listed

KEY = "sk-secret-4711"
ROOT = Path(__file__).parent.parent


def teacher(server: Server | None = None, **changes: Any) -> TeacherSettings:
    url = server.url if server else "http://127.0.0.1:1/v1"
    fields = {"base_url": url, "model": "tiny", "timeout": 20.0, "api_key_env": "RAG_FT_TEST_KEY"}
    return TeacherSettings.model_validate(fields | changes)


def call(name: str, text: str | None = None, schema: Any = None) -> Call:
    return Call(name, ({"role": "user", "content": text or name},), schema)


def echo(messages: Messages, body: Any) -> Reply:
    return Reply(messages[-1]["content"].upper(), output_tokens=3)


def done(settings: TeacherSettings, path: Path, calls: Iterable[Call]) -> dict[str, Answer]:
    return {asked.key: reply for asked, reply in teacher_job(settings, path, print, None)(calls)}


def asked_of(server: Server) -> list[str]:
    return sorted(body["messages"][-1]["content"] for body in server.bodies)


# nothing twice


def test_a_second_run_asks_for_nothing_that_was_answered(tmp_path: Path) -> None:
    with serving(Server(echo)) as server:
        first = done(teacher(server), tmp_path / "replies.sqlite", map(call, "abc"))
        second = done(teacher(server), tmp_path / "replies.sqlite", map(call, "abcd"))
    assert asked_of(server) == list("abcd")
    assert {key: second[key] for key in "abc"} == first  # seconds and tokens as they were
    assert (second["a"].text, second["a"].prompt_tokens, second["a"].output_tokens) == ("A", 7, 3)


def test_a_run_with_everything_kept_needs_no_server(tmp_path: Path) -> None:
    with serving(Server(echo)) as server:
        first = done(teacher(server), tmp_path / "replies.sqlite", map(call, "abc"))
    assert done(teacher(server), tmp_path / "replies.sqlite", map(call, "abc")) == first


CHANGES = {
    "model": ({"model": "large"}, {}),
    "temperature": ({"temperature": 0.5}, {}),
    "max_tokens": ({"max_tokens": 64}, {}),
    "structured": ({"structured": "off"}, {}),
    "extra_body": ({"extra_body": {"top_k": 1}}, {}),
    "schema": ({}, {"schema": {"type": "object"}}),
    "messages": ({}, {"text": "other words"}),
}
SAME = {
    "another key": ({}, {"name": "b", "text": "a"}),
    "concurrency": ({"concurrency": 2}, {}),
    "timeout": ({"timeout": 5.0}, {}),
    "prices": ({"input_price": 1.0, "output_price": 2.0}, {}),
    "budget": ({"budget": {"tokens": 5_000}}, {}),
}


@pytest.mark.parametrize("name", [*CHANGES, *SAME])
def test_what_decides_an_answer_is_asked_anew_when_it_changes_and_nothing_else(tmp_path: Path, name: str) -> None:
    settings, words = (CHANGES | SAME)[name]
    with serving(Server(echo)) as server:
        done(teacher(server), tmp_path / "replies.sqlite", [call("a")])
        found = done(teacher(server, **settings), tmp_path / "replies.sqlite", [call(**{"name": "a"} | words)])
    assert len(server.bodies) == (2 if name in CHANGES else 1)
    assert len(found) == 1


def test_a_server_may_move(tmp_path: Path) -> None:
    with serving(Server(echo)) as server:
        done(teacher(server), tmp_path / "replies.sqlite", [call("a")])
    with serving(Server(echo)) as moved:
        assert done(teacher(moved), tmp_path / "replies.sqlite", [call("a")])["a"].text == "A"
    assert not moved.bodies


def test_failures_that_may_pass_are_asked_for_again_and_others_listed(tmp_path: Path) -> None:
    path, down = tmp_path / "replies.sqlite", True
    replies = {
        "no": Reply(None, refusal="I will not"),
        "nor I": Reply(None, refusal="Never"),
        "long": Reply("half", finish="length"),
        "silent": Reply(" "),
    }

    def reply(messages: Messages, body: Any) -> Reply:
        return replies.get(messages[-1]["content"]) or echo(messages, body)

    def fault(messages: Messages, tries: int) -> Any:
        return (418, "teapot") if down and messages[-1]["content"] in ("x", "y") else None

    with serving(Server(reply, fault)) as server:
        done(teacher(server), path, [call(name) for name in ("a", "x", "y", *replies)])
        before = listed(path)
        down, many = False, len(server.bodies)
        found = done(teacher(server), path, [call(name) for name in ("a", "x", "y", *replies)])
    assert sorted(body["messages"][0]["content"] for body in server.bodies[many:]) == ["x", "y"]
    assert len(server.bodies) == many + 2
    assert (found["x"].text, found["no"].failure) == ("X", "the server refused to answer: I will not")
    assert found["long"].truncated
    assert before["the server answered 418"].count == 2
    after = listed(path)
    assert {reason: problems.count for reason, problems in after.items()} == {
        "the server refused to answer": 2,
        "the server's answer is empty": 1,
        "the answer is cut off at max_tokens": 1,
    }
    assert next(iter(after)) == "the server refused to answer"
    assert set(after["the server refused to answer"].examples) == {
        ("no", "the server refused to answer: I will not"),
        ("nor I", "the server refused to answer: Never"),
    }
    assert listed(path, examples=0)["the server's answer is empty"] == Problems(1)


def test_nothing_is_listed_where_nothing_was_asked(tmp_path: Path) -> None:
    assert listed(tmp_path / "none.sqlite") == {}
    assert not list(tmp_path.iterdir())


def test_replies_on_disk_do_not_pile_up_while_one_answer_is_awaited(tmp_path: Path) -> None:
    taken: list[str] = []

    def calls(names: Iterable[str]) -> Iterator[Call]:
        for name in names:
            taken.append(name)
            yield call(name)

    def asker(asked: Iterable[Call]) -> Iterator[tuple[Call, Answer]]:
        for each in list(asked):  # as greedy as one can be
            yield each, Answer("late")

    known = [f"known {number}" for number in range(1000)]
    path = tmp_path / "replies.sqlite"
    assert len(list(kept(asker, path, {"model": "m"})(calls(known)))) == 1000
    taken.clear()
    again = kept(asker, path, {"model": "m"})(calls(["new", *known, "newer"]))
    next(again)
    assert len(taken) <= 300
    assert len(list(again)) == 1001
    assert taken == ["new", *known, "newer"]


def test_a_second_try_may_be_asked_for_while_other_replies_are_awaited(tmp_path: Path) -> None:
    with serving(Server(echo)) as server:
        ask = teacher_job(teacher(server), tmp_path / "replies.sqlite", print)
        found = [
            (asked.key, again.text)
            for asked, _ in ask(map(call, "abc"))
            for _, again in ask([call(f"{asked.key} again")])
        ]
    assert sorted(found) == [("a", "A AGAIN"), ("b", "B AGAIN"), ("c", "C AGAIN")]


def test_calls_of_one_name_are_not_taken_for_one_another(tmp_path: Path) -> None:
    names = [call("same", text) for text in "abcd"]
    with serving(Server(echo, needs=4)) as server:  # all four under way together
        for _ in range(2):
            pairs = list(teacher_job(teacher(server), tmp_path / "replies.sqlite", print)(names))
            assert sorted((asked.messages[0]["content"], reply.text) for asked, reply in pairs) == [
                ("a", "A"),
                ("b", "B"),
                ("c", "C"),
                ("d", "D"),
            ]
    assert asked_of(server) == list("abcd")


def test_calls_of_one_prompt_are_asked_once_and_get_the_same_reply(tmp_path: Path) -> None:
    replies = (str(number) for number in range(99))  # as with a temperature above 0
    fault = lambda messages, tries: 418 if messages[-1]["content"] == "never" else None  # noqa: E731
    with serving(Server(lambda messages, body: Reply(next(replies)), fault)) as server:
        calls = [call(f"{text} {number}", text) for number in range(3) for text in ("one", "other", "never")]
        first = done(teacher(server), tmp_path / "replies.sqlite", calls)
        assert len(server.bodies) == 3
        assert [first[f"one {number}"].text for number in range(3)] == [first["one 0"].text] * 3
        assert all(first[f"never {number}"].failure for number in range(3))
        again = done(teacher(server), tmp_path / "replies.sqlite", calls[:2])
    assert again == {name: first[name] for name in ("one 0", "other 0")}


# kills


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_server_store import call, teacher_at
from data_builders.servers.job import teacher_job

path = Path(sys.argv[2])
replies = teacher_job(teacher_at(sys.argv[1]), path, print)(map(call, ("a", "b", "c")))
next(replies)
database = sqlite3.connect(path)
while database.execute("SELECT count(*) FROM replies").fetchone()[0] < 3:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""

STOPPED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_server_store import call, teacher_at
from data_builders.servers.job import teacher_job

try:
    for asked, reply in teacher_job(teacher_at(sys.argv[1]), Path(sys.argv[2]), print)(map(call, ("quick", "stuck"))):
        print(reply.text, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def teacher_at(url: str) -> TeacherSettings:
    return TeacherSettings(base_url=url, model="tiny", timeout=20.0, api_key_env="RAG_FT_TEST_KEY", concurrency=3)


def started(script: str, server: Server, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, server.url, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)


def test_a_reply_is_on_disk_before_it_is_awaited(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with serving(Server(echo)) as server:
        process = started(KILLED, server, path)  # takes one of three replies and is killed once three are on disk
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (-signal.SIGKILL, "")
        found = done(teacher_at(server.url), path, map(call, "abc"))
    assert {key: reply.text for key, reply in found.items()} == {"a": "A", "b": "B", "c": "C"}
    assert asked_of(server) == list("abc")


def test_ctrl_c_leaves_every_finished_call_in_the_store(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with serving(
        Server(echo, lambda messages, tries: "hang" if messages[-1]["content"] == "stuck" else None)
    ) as server:
        process = started(STOPPED, server, path)
        assert process.stdout is not None
        assert process.stdout.readline() == "QUICK\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)  # the call under way would take 20 seconds
    assert (out, err, process.returncode) == ("stopped\n", "", 0)
    assert [asked.key for asked in not_kept(map(call, ("quick", "stuck")), teacher_at("http://x"), path)] == ["stuck"]


# files that are none


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(RagFtError, match=r"places\.sqlite is damaged or holds no kept replies"):
        done(teacher(), path, [call("a")])
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["letters", "half", "reply"])
def test_a_damaged_file_is_said_in_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "replies.sqlite"
    with serving(Server(echo)) as server:
        done(teacher(server), path, [call("a"), call("b", "b" * 9000)])
        if damage == "letters":
            path.write_bytes(b"these are not the bytes you are looking for" * 100)
        elif damage == "half":
            path.write_bytes(path.read_bytes()[:4096] + b"\x00" * 8192)
        else:
            database = sqlite3.connect(path)
            database.execute("UPDATE replies SET reply = '{\"text\": '")
            database.commit()
            database.close()
        with pytest.raises(RagFtError, match=r"replies\.sqlite is damaged or holds no kept replies"):
            done(teacher(server), path, [call("a")])


def test_a_place_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RagFtError, match="cannot keep replies in"):
        done(teacher(), tmp_path / "file" / "replies.sqlite", [call("a")])
    (tmp_path / "replies.sqlite").mkdir()
    with pytest.raises(RagFtError, match="cannot keep replies in"):
        done(teacher(), tmp_path / "replies.sqlite", [call("a")])


def test_two_at_once_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with serving(Server(echo)) as server:
        replies = teacher_job(teacher(server), path, print)(map(call, "ab"))
        next(replies)
        with pytest.raises(RagFtError, match="another process is asking for what is kept"):
            done(teacher(server), path, [call("c")])
        other = started(STOPPED, server, path)
        _, err = other.communicate(timeout=60)
        assert "RagFtError: another process is asking for what is kept" in err
        replies.close()
        assert set(done(teacher(server), path, map(call, "abc"))) == set("abc")


def test_the_key_stands_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    with serving(Server(echo, lambda messages, tries: 418 if messages[-1]["content"] == "b" else None)) as server:
        replies = teacher_job(teacher(server), tmp_path / "replies.sqlite", print)(map(call, "abc"))
        next(replies)
        written = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # while the log is still there
        list(replies)
    written += b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"fault 418 Bearer ***" in written
    assert KEY.encode() not in written


# progress


def test_progress_tells_calls_tokens_money_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.progress.time", SimpleNamespace(monotonic=iter(range(0, 9_000, 30)).__next__))
    lines: list[str] = []
    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=1, input_price=1e6, output_price=1e6)
        done(settings, tmp_path / "replies.sqlite", [call("a")])
        list(teacher_job(settings, tmp_path / "replies.sqlite", lines.append, 4)(map(call, "abcd")))
    assert lines[0] == "  1/4 calls answered, 0 tokens, 0 spent  0.0/s"  # from disk: nobody knows how long others take
    assert lines[2].endswith("/s  0.5 min left") or lines[2].endswith(
        "/s  0.8 min left"
    )  # 1 left, 2 to 3 in 90 seconds
    assert lines[3] == "  4/4 calls answered, 30 tokens, 30.00 spent  0.0/s  0.0 min left"


@pytest.mark.parametrize("schema", [None, {"type": "object", "properties": {"b": {}, "a": {}}}])
@pytest.mark.parametrize("begun", ["", "[1] yes"])
def test_a_call_is_known_by_the_canonical_json_of_what_decides_its_answer(schema: Any, begun: str) -> None:
    messages = ({"role": "system", "content": "\u00e9 \ud55c"}, {"content": 'a "b"', "role": "user"})
    identity = {"temperature": 0.0, "model": "m", "extra_body": {"z": 1, "b": None}}
    decides = [identity, list(messages), schema] + ([begun] if begun else [])
    written = json.dumps(decides, sort_keys=True, separators=(",", ":"))
    assert call_hash(identity, Call("any", messages, schema, begun)) == hashlib.sha256(written.encode()).hexdigest()
