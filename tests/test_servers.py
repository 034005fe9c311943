"""One client asks every server: what may pass is tried again, what cannot is told, and nothing costs the others."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from openai_server import Messages, Reply, Server, serving
from server_calls import SCHEMA, ask, call, echo, said, teacher

from data_builders.errors import RagFtError
from data_builders.servers import Call
from data_builders.servers import Reply as Answer
from data_builders.servers.client import server_asker, teacher_writing
from data_builders.servers.job import teacher_job
from data_builders.servers.protocol import pause_asked, read, told
from data_builders.servers.store import listed

# what may pass


ONCE = {
    "too many": 429,
    "slow": 408,
    "conflict": 409,
    "broken": 500,
    "busy": 503,
    "reset": "reset",
    "cut in the middle": "cut",
    "garbled": "malformed",
    "no message": "no_choices",
    "not even an object": b"[1, 2]",
    "odd choices": b'{"choices": [3], "usage": "none"}',
    "not a letter": b"\xff\xfe",
    "too deep": b"[" * 100_000,
}


def test_every_fault_that_may_pass_is_tried_again_and_costs_nobody_else() -> None:
    with serving(Server(echo, lambda messages, tries: None if tries else ONCE.get(said(messages)))) as server:
        found = ask(teacher(server), "fine", *ONCE)
    assert {name: reply.text for name, reply in found.items()} == {name: name.upper() for name in ("fine", *ONCE)}
    assert all(reply.failure is None for reply in found.values())
    assert set(server.tries.values()) == {1, 2}
    assert len(server.bodies) == 1 + 2 * len(ONCE)


def test_an_empty_answer_is_asked_for_twice_more_and_then_told() -> None:
    def reply(messages: Messages, body: Any) -> Reply:
        tries = server.tries[json.dumps(messages)]
        return Reply("" if said(messages) == "never" or tries < 3 else "at last")

    with serving(Server(reply)) as server:
        found = ask(teacher(server), "once", "never")
    assert found["once"].text == "at last"
    assert (found["never"].text, found["never"].failure) == (None, "the server's answer is empty")
    assert not found["never"].may_pass  # the model said so
    assert len(server.bodies) == 6


def test_a_server_is_given_the_pause_it_asks_for() -> None:
    busy = (429, "slow down", {"Retry-After": "0.8"})  # without it the pause is half a second at most
    with serving(Server(echo, lambda messages, tries: None if tries else busy)) as server:
        found = ask(teacher(server), "a")
    assert found["a"].text == "A"
    assert found["a"].seconds >= 0.8


def test_nobody_waits_for_an_hour_and_no_call_is_given_up_for_it() -> None:
    words = r"wait 3600 seconds \(429: come back\)\. Run the same command again"
    with (
        serving(Server(echo, lambda messages, tries: (429, "come back", {"Retry-After": "3600"}))) as server,
        pytest.raises(RagFtError, match=words),
    ):
        ask(teacher(server, concurrency=1), "a", "b")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_pauses_are_read_as_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_asked(headers) == seconds


def test_pauses_are_read_as_dates() -> None:
    found = pause_asked({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert found == pytest.approx(60, abs=2)


RECOVERS = {"early": 3, "late": 8, "next time": 99}
"""Requests that get no answer before the first that does."""


def test_calls_that_failed_in_passing_get_another_round_behind_all_others() -> None:
    def fault(messages: Messages, tries: int) -> Any:
        return 400 if said(messages) == "wrong" else 503 if tries < RECOVERS.get(said(messages), 0) else None

    names = ["late", "wrong", "next time", "early", *"abcdefgh"]
    with serving(Server(echo, fault)) as server:
        asker = server_asker(teacher(server, concurrency=3), teacher_writing(teacher(server)))
        found = [(asked.key, reply) for asked, reply in asker(map(call, names))]
    order, replies = [name for name, _ in found], dict(found)
    assert sorted(order) == sorted(names)
    assert set(order[-2:]) == {"late", "next time"}
    assert (replies["early"].text, replies["late"].text) == ("EARLY", "LATE")
    assert replies["next time"].failure is not None
    assert replies["next time"].may_pass
    asked = [said(body["messages"]) for body in server.bodies]
    assert [asked.count(name) for name in ("early", "late", "next time", "wrong")] == [4, 9, 14, 1]
    assert set(asked[-(2 + 7) :]) == {"late", "next time"}


def test_a_server_that_answers_nobody_is_not_asked_all_over_again() -> None:
    with serving(Server(echo, lambda messages, tries: 503)) as server:
        found = ask(teacher(server, concurrency=3), *"abcd")
        few = ask(teacher(server, concurrency=3), *"xyz")
    assert all(reply.may_pass for reply in (*found.values(), *few.values()))
    assert sorted(server.tries.values()) == [7] * 4 + [14] * 3


def test_what_failed_first_and_came_then_is_kept_once(tmp_path: Path) -> None:
    def fault(messages: Messages, tries: int) -> Any:
        return 503 if said(messages) == "late" and tries < RECOVERS["late"] else None

    with serving(Server(echo, fault)) as server:
        lines: list[str] = []
        for _ in range(2):
            ask_kept = teacher_job(teacher(server), tmp_path / "replies.sqlite", lines.append, 3)
            found = {asked.key: reply.text for asked, reply in ask_kept(map(call, ["late", "a", "b"]))}
            assert found == {"late": "LATE", "a": "A", "b": "B"}
        assert len(server.bodies) == 9 + 2
    assert listed(tmp_path / "replies.sqlite") == {}


# what is not tried again


def test_refusals_and_answers_cut_off_are_taken_as_they_are() -> None:
    replies = {
        "refused": Reply(None, refusal="I will  not\nsay", output_tokens=4),
        "filtered": Reply("half", finish="content_filter"),
        "cut off": Reply("half an ans", finish="length", output_tokens=16),
        "thought only": Reply(None, finish="length", output_tokens=16),
    }
    with serving(Server(lambda messages, body: replies[said(messages)])) as server:
        found = ask(teacher(server), *replies)
    assert len(server.bodies) == 4
    assert {name: reply.failure for name, reply in found.items()} == {
        "refused": "the server refused to answer: I will not say",
        "filtered": "the server refused to answer: content filter",
        "cut off": None,
        "thought only": "the server's answer is empty: nothing was said before max_tokens was reached",
    }
    assert {name for name, reply in found.items() if reply.truncated} == {"cut off", "thought only"}
    assert (found["cut off"].text, found["cut off"].output_tokens) == ("half an ans", 16)
    assert found["refused"].output_tokens == 4
    assert not any(reply.may_pass for reply in found.values())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "This model requires moderation and your input was flagged for violence"),
        (400, "The prompt triggered Azure OpenAI's content management policy"),
        (400, "content_policy_violation"),
    ],
)
def test_a_prompt_that_a_moderator_stops_is_refused_and_costs_nobody_else(status: int, words: str) -> None:
    fault = (status, words)
    with serving(Server(echo, lambda messages, tries: fault if said(messages) == "war" else None)) as server:
        found = ask(teacher(server), "war", "peace")
    assert found["war"].failure == f"the server refused to answer: {words}"
    assert not found["war"].may_pass
    assert found["peace"].text == "PEACE"


def test_an_answer_can_always_be_written_to_a_file() -> None:
    body = json.dumps({"choices": [{"message": {"content": "half a \ud83d pair"}}]}).encode()
    text = read(200, {}, body).reply.text
    assert text == "half a ? pair"


def test_what_a_gateway_says_in_place_of_an_answer_is_told() -> None:
    outcome = read(200, {}, b'{"error": {"message": "the  provider is overloaded", "code": 502}}')
    assert outcome.reply.failure == "the server's answer holds no message: the provider is overloaded"
    assert outcome.again
    assert read(200, {}, b"{}").reply.failure == "the server's answer holds no message"


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.servers.client._MOST_BYTES", 2_000)
    with serving(Server(lambda messages, body: Reply("x" * (5_000 if said(messages) == "long" else 500)))) as server:
        found = ask(teacher(server), "long", "short")
    assert found["long"].failure == "the server's answer is longer than 2,000 bytes"
    assert found["short"].text == "x" * 500
    assert len(server.bodies) == 2


# structured output


def test_the_schema_is_sent_to_a_server_that_takes_it() -> None:
    with serving(Server(echo)) as server:
        ask(teacher(server), "a", schema=SCHEMA)
        ask(teacher(server), "b")
        ask(teacher(server, structured="json_object"), "c", schema=SCHEMA)
        ask(teacher(server, structured="off"), "d", schema=SCHEMA)
    sent = [body.get("response_format") for body in server.bodies]
    assert sent[0]["type"] == "json_schema"
    assert sent[0]["json_schema"]["schema"] == SCHEMA
    assert sent[1:] == [None, {"type": "json_object"}, None]


@pytest.mark.parametrize("status", [400, 422])
def test_what_a_server_refuses_by_name_is_not_sent_again_for_the_rest_of_the_job(status: int) -> None:
    taken = {"none": None, "json_object": "json_object"}

    def fault(messages: Messages, tries: int) -> Any:
        kind = server.bodies[-1].get("response_format", {}).get("type")
        return None if kind == taken[most] else (status, f"response_format.type {kind} is not supported")

    for most in taken:
        with serving(Server(echo, fault)) as server:
            found = ask(teacher(server, concurrency=1), "a", "b", "c", schema=SCHEMA)
        assert [reply.failure for reply in found.values()] == [None, None, None]
        assert len(server.bodies) == {"json_object": 1, "none": 2}[most] + 3


def test_calls_under_way_together_step_down_once() -> None:
    def fault(messages: Messages, tries: int) -> Any:
        body = next(body for body in reversed(server.bodies) if body["messages"] == messages)
        kind = body.get("response_format", {}).get("type")
        return (400, "json_schema: unknown") if kind == "json_schema" else None

    with serving(Server(echo, fault, needs=4)) as server:
        ask(teacher(server, concurrency=4), "a", "b", "c", "d", schema=SCHEMA)
    assert [body["response_format"]["type"] for body in server.bodies[4:]] == ["json_object"] * 4


def test_other_mistakes_of_a_request_say_nothing_about_structure() -> None:
    echoed = {"detail": [{"loc": ["body", "messages"], "msg": "too long", "input": {"response_format": "json_schema"}}]}
    assert told(json.dumps(echoed).encode()) == "['body', 'messages'] too long"
    fault = (400, "maximum context length is 20 tokens")
    with serving(Server(echo, lambda messages, tries: fault if said(messages) == "long" else None)) as server:
        found = ask(teacher(server, concurrency=1), "long", "b", schema=SCHEMA)
    assert found["long"].failure == "the server answered 400: maximum context length is 20 tokens"
    assert [body["response_format"]["type"] for body in server.bodies] == ["json_schema"] * 2


def test_a_form_that_was_asked_for_is_not_given_up() -> None:
    with serving(Server(echo, lambda messages, tries: (400, "response_format is unknown"))) as server:
        found = ask(teacher(server, structured="json_schema"), "a", schema=SCHEMA)
    assert found["a"].failure == "the server answered 400: response_format is unknown"
    assert len(server.bodies) == 1


def test_further_fields_are_sent_and_win() -> None:
    with serving(Server(echo)) as server:
        ask(teacher(server, extra_body={"top_k": 3, "temperature": 0.7}), "a")
    assert (server.bodies[0]["top_k"], server.bodies[0]["temperature"]) == (3, 0.7)
    assert server.bodies[0]["max_tokens"] == 1024


def test_a_model_that_takes_no_temperature_is_asked_without() -> None:
    def fault(messages: Messages, tries: int) -> Any:
        refused = "Unsupported value: 'temperature' does not support 0 with this model."
        return (400, refused) if "temperature" in server.bodies[-1] else None

    with serving(Server(echo, fault)) as server:
        found = ask(teacher(server, concurrency=1), "a", "b")
    assert [reply.text for reply in found.values()] == ["A", "B"]
    assert len(server.bodies) == 3


# what is sent


def test_what_is_sent_is_what_was_asked_letter_by_letter() -> None:
    messages = (
        {"role": "system", "content": 'Say "no".\n'},
        {"role": "user", "content": "\u00e9 \ud55c\uad6d {} \\ \u2028"},
    )
    with serving(Server(echo)) as server:
        settings = teacher(server, extra_body={"seed": 7, "top_p": 0.5})
        ((_, reply),) = server_asker(settings, teacher_writing(settings))([Call("a", messages)])
        other = teacher(server, extra_body={"messages": [{"role": "user", "content": "instead"}]})
        ((_, instead),) = server_asker(other, teacher_writing(other))([Call("b", messages)])
    first, second = server.bodies
    assert first == {
        "messages": list(messages), "model": "tiny", "temperature": 0.0, "max_tokens": 1024, "seed": 7, "top_p": 0.5,
    }  # fmt: skip
    assert second["messages"] == [{"role": "user", "content": "instead"}]
    assert (reply.text, instead.text) == (messages[1]["content"].upper(), "INSTEAD")


def test_an_answer_frees_its_turn_and_no_more_are_under_way_than_may_be() -> None:
    with serving(Server(echo, needs=4)) as server:
        found = ask(teacher(server, concurrency=4), *(f"call {number}" for number in range(40)))
    assert {reply.text for reply in found.values()} == {f"CALL {number}" for number in range(40)}
    assert server.most == 4


# the window


def test_calls_are_taken_only_as_they_can_be_sent() -> None:
    taken = 0

    def endless() -> Iterator[Call]:
        nonlocal taken
        for taken in itertools.count(1):
            yield call(f"call {taken}")

    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=3)
        replies = server_asker(settings, teacher_writing(settings))(endless())
        for count in range(1, 8):
            next(replies)
            assert taken <= 2 * 3 + count
        replies.close()
        assert len(server.bodies) <= 2 * 3 + 7


def test_answers_arrive_while_the_caller_is_busy_with_others() -> None:
    third = Event()
    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=2)
        asker = server_asker(settings, teacher_writing(settings))
        arrived: list[str] = []

        def note(fresh: Sequence[tuple[Call, Answer]]) -> None:
            arrived.extend(asked.key for asked, _ in fresh)
            if len(arrived) >= 3:
                third.set()

        replies = asker(map(call, "abcdef"), note)
        first = next(replies)
        assert third.wait(10)  # without the next one being asked for
        assert sorted(asked.key for asked, _ in [first, *replies]) == list("abcdef")


def test_what_goes_wrong_in_the_callers_own_calls_is_raised_there() -> None:
    def broken() -> Iterator[Call]:
        yield call("a")
        raise LookupError("no more rows")

    with serving(Server(echo)) as server, pytest.raises(LookupError, match="no more rows"):
        list(server_asker(teacher(server), teacher_writing(teacher(server)))(broken()))
