"""What no call can escape ends the job with a sentence, and the key stands nowhere."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from openai_server import Server, serving
from server_calls import KEY, ask, call, echo, said, teacher

from data_builders.errors import RagFtError
from data_builders.servers.client import server_asker, teacher_writing
from data_builders.servers.protocol import told
from data_builders.servers.settings import TeacherSettings

# what no call can escape


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "RAG_FT_TEST_KEY"),
        (403, "RAG_FT_TEST_KEY"),
        ((404, "no such model"), r"no such model\. Correct endpoint\.model=tiny"),
        (405, r"endpoint\.base_url"),
        (402, "no credit left"),
        (b"", None),
        ((429, "insufficient_quota: check your plan"), "no credit left"),
    ],
)
def test_what_no_call_can_escape_ends_the_job(fault: Any, words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    with serving(Server(echo, lambda messages, tries: fault)) as server:
        if words is None:  # an empty body is a fault like others
            assert ask(teacher(server), "a")["a"].failure == "the server's answer is not JSON"
            return
        with pytest.raises(RagFtError, match=words) as caught:
            ask(teacher(server), "a", "b")
    assert KEY not in str(caught.value)
    assert len(server.bodies) <= (4 if fault == 403 else 2)  # what is forbidden is tried once more


@pytest.mark.parametrize("number", [0, 1])
def test_a_prompt_that_a_firewall_forbids_costs_nobody_else(number: int) -> None:
    words = ["peace", "love"]
    words.insert(number, "DROP TABLE")
    with serving(Server(echo, lambda messages, tries: 403 if said(messages) == "DROP TABLE" else None)) as server:
        found = ask(teacher(server, concurrency=2), *words)
    assert str(found["DROP TABLE"].failure).startswith("the server answered 403")
    assert found["DROP TABLE"].may_pass
    assert (found["peace"].text, found["love"].text) == ("PEACE", "LOVE")


ADDRESSES = ["127.0.0.1:8000/v1", "localhost", "ftp://127.0.0.1/v1", "http://", "http://[::1/v1", "http://../v1"]
SECRET = ["http://me:sesame@127.0.0.1:1/v1", "http://sesame@127.0.0.1:1/v1", "http://127.0.0.1:1/v1?key=sesame"]


@pytest.mark.parametrize("address", [*ADDRESSES, *SECRET])
def test_an_address_that_is_none_is_said_at_once(address: str) -> None:
    settings = TeacherSettings(base_url=address, model="m")
    with pytest.raises(RagFtError, match=r"endpoint\.base_url") as caught:
        list(server_asker(settings, teacher_writing(settings))([call("a")]))
    assert "sesame" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.servers.client.RETRIES", 0)
    with serving(Server(echo)) as server:
        gone = teacher(server)
    with pytest.raises(RagFtError, match=r"nothing answers at http://127.* \(.*refused\)\. Start the server"):
        ask(gone, "a")


# the key


def test_the_key_stands_in_no_reply_no_log_and_no_repr(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(Server(echo, lambda messages, tries: 418)) as server:  # the server's words repeat the header
        asker = server_asker(teacher(server), teacher_writing(teacher(server)))
        found = list(asker([call("a")]))
    assert server.keys == [f"Bearer {KEY}"]
    assert found[0][1].failure == "the server answered 418: fault 418 Bearer ***"
    assert KEY not in f"{found} {asker!r} {caplog.text}"


@pytest.mark.parametrize("status", [200, 400, 418])
def test_no_part_of_a_key_is_told_where_a_servers_words_are_cut(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    body = {"error": {"message": f"{'no ' * 96}your key {KEY} is odd"}}  # the 300th character stands in the key
    fault = json.dumps(body).encode() if status == 200 else (status, body["error"]["message"])
    with serving(Server(echo, lambda messages, tries: fault)) as server:
        failure = ask(teacher(server), "a")["a"].failure
    assert failure is not None
    assert failure.endswith(" no your key")
    assert told(("\ud55c" * 400).encode()) == "\ud55c" * 300  # letters of which no key is made
