"""An OpenAI-compatible server is asked the same prompts as weights loaded here, and no fault of it costs the others."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_server import Reply, Server, serving
from tiny_model import tiny_tokenizer
from token_rows import passage

from data_builders.errors import RagFtError
from data_builders.servers.settings import EndpointSettings
from rag_ft.generation import Generation, Request
from rag_ft.generation.choose import stop_ids
from rag_ft.generation.endpoint import ask_all, endpoint_engine
from rag_ft.generation.separate import SeparateEngine
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings

KEY = "sk-secret-4711"


def endpoint(server: Server, **changes: Any) -> EndpointSettings:
    fields = {"base_url": server.url, "model": "tiny", "timeout": 20.0, "api_key_env": "RAG_FT_TEST_KEY"}
    return EndpointSettings(**fields | changes)


def request(name: str) -> Request:
    return Request(name, ((1, 2), (3,)), ({"role": "user", "content": name},))


def echo(messages: Any, body: Any) -> Reply:
    return Reply(messages[-1]["content"].upper(), logprobs=[-0.25, -0.75])


def ask(settings: EndpointSettings, *groups: list[str], **more: Any) -> dict[str, Generation]:
    asked = [[request(name) for name in group] for group in groups]
    found = [answer for batch in endpoint_engine(settings, 8, **more).generate(asked) for answer in batch]
    assert sorted(answer.key for answer in found) == sorted(name for group in groups for name in group)
    return {answer.key: answer for answer in found}


def greedy(model: Any, tokenizer: Any, stops: frozenset[int], count: int, seen: dict[str, tuple[int, ...]]) -> Any:
    """Return a server's side of it: template, tokens, plain greedy decoding, text."""

    def reply(messages: Any, body: Any) -> Reply:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        seen[messages[-1]["content"]] = tuple(ids)
        written: list[int] = []
        logprobs: list[float] = []
        with torch.no_grad():
            while len(written) < count:
                scores = model(torch.tensor([ids + written])).logits[0, -1].double().log_softmax(-1)
                token = int(scores.argmax())
                logprobs.append(float(scores[token]))
                if token in stops:
                    break
                written.append(token)
        return Reply(tokenizer.decode(written, skip_special_tokens=True), len(ids), logprobs)

    return reply


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma"])
def test_a_server_gets_the_same_prompts_and_gives_the_same_answers(tiny_llama: Any, template: str) -> None:
    tokenizer = tiny_tokenizer(template)
    encoder = Encoder(tokenizer, PromptSettings(), {})
    stops = stop_ids(tiny_llama, encoder)
    shown = [passage(index) for index in range(4)]
    groups = [
        [
            Request(
                f"{town} {count}",
                encoder.prompt(f"When was {town} founded <|im_end|>?", shown[:count]),
                tuple(encoder.messages(f"When was {town} founded <|im_end|>?", shown[:count])),
            )
            for count in (0, 1, 4)
        ]
        for town in ("Aldo", "Bexa")
    ]
    here = [a for batch in SeparateEngine(tiny_llama, stops, 8, 4).generate(groups) for a in batch]
    seen: dict[str, tuple[int, ...]] = {}
    with serving(Server(greedy(tiny_llama, tokenizer, stops, 8, seen))) as server:
        there = [a for batch in endpoint_engine(endpoint(server), 8).generate(groups) for a in batch]
    for asked in (asked for group in groups for asked in group):
        ids = tuple(token for segment in asked.segments for token in segment)
        assert seen[asked.messages[-1]["content"]] == ids
    texts = {a.key: tokenizer.decode(a.ids, skip_special_tokens=True) for a in here}
    assert {a.key: a.text for a in there} == texts
    assert {a.key: a.prompt_tokens for a in there} == {a.key: a.prompt_tokens for a in here}
    for answer in there:
        assert answer.confidence == pytest.approx(next(a.confidence for a in here if a.key == answer.key), rel=1e-4)
    assert {body["temperature"] for body in server.bodies} == {0}
    assert {body["max_tokens"] for body in server.bodies} == {8}


def test_answers_keep_their_groups_and_order_however_they_arrive() -> None:
    first_may_go = threading.Event()

    def reply(messages: Any, body: Any) -> Reply:
        name = messages[-1]["content"]
        if name == "a":
            assert first_may_go.wait(20)
        if name == "e":  # asked after d was answered
            first_may_go.set()
        return echo(messages, body)

    groups = [[request(name) for name in names] for names in (["a", "b"], ["c", "d"], ["e"])]
    with serving(Server(reply)) as server:
        batches = list(endpoint_engine(endpoint(server, concurrency=2), 8).generate([*groups, []]))
    keys = [[answer.key for answer in batch] for batch in batches]
    assert keys[0] == ["c", "d"]
    assert sorted(keys[1:]) == [["a", "b"], ["e"]]
    told = batches[0][0]
    assert (told.text, told.prompt_tokens, told.output_tokens, told.confidence) == ("C", 7, 2, -0.5)
    assert told.failure is None
    assert told.seconds > 0


def test_as_many_calls_are_under_way_as_the_recipe_says() -> None:
    names = [f"question {number}" for number in range(20)]
    with serving(Server(echo, needs=5)) as server:  # answers nobody before five have come
        ask(endpoint(server, concurrency=5), *([name] for name in names))
    assert server.most == 5


def test_what_fails_in_passing_is_tried_again() -> None:
    faults = {"busy": [429, 503, 429], "broken": [500], "cut": ["reset"]}

    def fault(messages: Any, tries: int) -> Any:
        told = faults.get(messages[-1]["content"], [])
        return told[tries] if tries < len(told) else None

    with serving(Server(echo, fault)) as server:
        found = ask(endpoint(server), ["busy", "fine"], ["broken"], ["cut"])
    assert {key: answer.text for key, answer in found.items()} == {
        "busy": "BUSY",
        "fine": "FINE",
        "broken": "BROKEN",
        "cut": "CUT",
    }
    assert len(server.bodies) == 4 + 1 + 2 + 2


def test_a_call_that_takes_too_long_is_tried_again() -> None:
    with serving(Server(echo, lambda messages, tries: "hang" if not tries else None)) as server:
        found = ask(endpoint(server, timeout=0.5), ["slow"])
    assert found["slow"].text == "SLOW"
    assert len(server.bodies) == 2


FAULTS = {
    "never": (500, "answered 500"),
    "garbled": ("malformed", "not JSON"),
    "nothing": ("no_choices", "no message"),
    "too long": ((400, "maximum context length is 20 tokens"), "maximum context length"),
}
REPLIES = {
    "empty": (Reply(""), "empty"),
    "none": (Reply(None), "empty"),
    "refused": (Reply(None, refusal="I will not"), "refused to answer: I will not"),
    "filtered": (Reply("half", finish="content_filter"), "content filter"),
}


def test_what_cannot_be_answered_is_a_failure_of_its_own_only() -> None:
    def reply(messages: Any, body: Any) -> Reply:
        name = messages[-1]["content"]
        return REPLIES[name][0] if name in REPLIES else echo(messages, body)

    names = [*FAULTS, "fine", *REPLIES]
    with serving(Server(reply, lambda messages, tries: FAULTS.get(messages[-1]["content"], (None,))[0])) as server:
        found = ask(endpoint(server), names)
        asked = dict(server.tries)
        spoken = ask_all(endpoint(server), [[{"role": "user", "content": name}] for name in ("empty", "fine")], 4)
    assert spoken == [None, "FINE"]
    assert found["fine"].failure is None
    for name, (_, expected) in {**FAULTS, **REPLIES}.items():
        assert expected in (found[name].failure or ""), name
        assert found[name].text is None
    assert [count for text, count in asked.items() if "never" in text] == [14]  # two rounds
    assert [count for text, count in asked.items() if "too long" in text] == [1]


def test_a_server_without_usage_and_logprobs_is_taken_as_it_is() -> None:
    with serving(Server(lambda messages, body: Reply("yes", usage=False))) as server:
        answer = ask(endpoint(server), ["a"])["a"]
    assert (answer.text, answer.prompt_tokens, answer.output_tokens, answer.confidence) == ("yes", 3, None, None)


def test_what_a_server_does_not_take_is_left_out_from_then_on() -> None:
    def fault(messages: Any, tries: int) -> Any:
        body = server.bodies[-1]
        if "logprobs" in body:
            return (400, "logprobs are not supported by this model")
        if "max_tokens" in body:
            return (400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return None

    with serving(Server(echo, fault)) as server:
        found = ask(endpoint(server, concurrency=1), ["a"], ["b"])
    assert [found["a"].text, found["b"].text] == ["A", "B"]
    assert len(server.bodies) == 4
    assert server.bodies[-1]["max_completion_tokens"] == 8
    assert "max_tokens" not in server.bodies[-1]


def test_arguments_of_the_chat_template_are_sent_where_the_recipe_has_any() -> None:
    with serving(Server(echo)) as server:
        ask(endpoint(server), ["a"], template_kwargs={"enable_thinking": False})
        ask(endpoint(server), ["b"])
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in server.bodies[1]


# the key


def test_the_key_goes_into_the_header_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)
    with serving(Server(echo, lambda messages, tries: 422 if messages[-1]["content"] == "a" else None)) as server:
        found = ask(endpoint(server), ["a", "b"])
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert "fault 422" in (found["a"].failure or "")  # the server's message repeats the header
    assert KEY not in str(found)
    assert KEY not in caplog.text
    assert all(KEY not in str(body) for body in server.bodies)


def test_another_variable_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("RAG_FT_TEST_KEY", raising=False)
    with serving(Server(echo)) as server:
        ask(endpoint(server), ["a"])
    assert server.keys == ["Bearer none"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_it_without_showing_the_key(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)
    refusing = Server(echo, lambda messages, tries: status)
    with serving(refusing) as server, pytest.raises(RagFtError, match="RAG_FT_TEST_KEY") as caught:
        ask(endpoint(server), ["a"])
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_cannot_be_one_is_refused_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", "sk-gehe\u00efm")
    with serving(Server(echo)) as server, pytest.raises(RagFtError, match="RAG_FT_TEST_KEY") as caught:
        ask(endpoint(server), ["a"])
    assert "gehe" not in str(caught.value)
    assert not server.bodies


# what no prompt can escape


def test_an_unknown_model_or_path_ends_it() -> None:
    with serving(Server(echo)) as server, pytest.raises(RagFtError, match=r"endpoint\.base_url"):
        ask(endpoint(server, base_url=server.url.removesuffix("/v1")), ["a"])


def test_a_server_that_is_not_there_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_builders.servers.client.RETRIES", 0)
    with serving(Server(echo)) as server:
        gone = endpoint(server)
    with pytest.raises(RagFtError, match="Start the server"):
        ask(gone, ["a"])


def test_a_request_without_messages_is_refused() -> None:
    with serving(Server(echo)) as server, pytest.raises(ValueError, match="'a' has no messages"):
        list(endpoint_engine(endpoint(server), 8).generate([[Request("a", ((1,),))]]))


def test_a_missing_package_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(RagFtError, match=r"rag-ft\[endpoint\]"):
        endpoint_engine(EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m"), 8)


# stopping

STOPPED = """
import sys
from data_builders.servers.settings import EndpointSettings
from rag_ft.generation import Request
from rag_ft.generation.endpoint import endpoint_engine

settings = EndpointSettings(base_url=sys.argv[1], model="tiny", concurrency=2)
groups = [[Request(name, ((1,),), ({"role": "user", "content": name},))] for name in ("quick", "stuck", "later")]
try:
    for batch in endpoint_engine(settings, 8).generate(groups):
        print(*[answer.text for answer in batch], flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_keeps_what_was_answered_and_ends_at_once() -> None:
    def fault(messages: Any, tries: int) -> Any:
        return "hang" if messages[-1]["content"] != "quick" else None

    with serving(Server(echo, fault)) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "QUICK\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)  # the calls under way would take 20 seconds
    assert out == "stopped\n"
    assert err == ""
    assert process.returncode == 0


def test_an_engine_that_is_left_half_way_leaves_nothing_running() -> None:
    with serving(Server(echo)) as server:
        answers = endpoint_engine(endpoint(server, concurrency=1), 8).generate([[request(n)] for n in "abcdef"])
        assert next(answers)[0].text == "A"
        answers.close()
        assert len(server.bodies) < 6
