"""`load_generator` over a server: asked as trained, answers whole and in pieces, and what goes wrong on the way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from event_server import DONE, Written, event, serving_events, whole
from openai_server import Reply, Server, serving
from tiny_model import tiny_tokenizer

from data_builders.errors import RagFtError
from data_builders.records import Passage
from rag_ft import load_generator
from rag_ft.generator import Answer
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings

PASSAGES = [Passage("a", "Aldo", "Aldo was founded <|im_start|> in 1801.")]
QUESTION = "When was Aldo founded?"
REASONED = ["[1] It tells", " of Aldo.\nAns", "wer: 18", "01"]


def answering(*pieces: str) -> Callable[[dict[str, Any], int], Written]:
    return lambda body, before: Written(whole(*pieces))


def test_a_tuned_model_behind_a_server_is_asked_as_it_was_trained(trained_run: Path) -> None:
    encoder = Encoder(tiny_tokenizer(), PromptSettings(), {})
    with serving_events(answering("1801")) as server:
        generator = load_generator(trained_run / "adapter", server=server.url, model="tuned")
        assert generator.answer(QUESTION, PASSAGES).answer == "1801"
        generator.answer(QUESTION, [])
    contract = json.loads((trained_run / "adapter" / "prompt.json").read_text())
    assert generator.prompt_hash == contract["prompt_hash"]
    body = server.bodies[0]
    assert body["messages"] == encoder.messages(QUESTION, PASSAGES)
    assert server.bodies[1]["messages"] == encoder.messages(QUESTION, [])
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tuned", 0.0, 48)
    assert "chat_template_kwargs" not in body


def test_a_contract_says_style_system_role_and_variables_of_the_template(trained_run: Path, tmp_path: Path) -> None:
    contract = json.loads((trained_run / "adapter" / "prompt.json").read_text())
    settings = PromptSettings(style="reasoning", titles=False)
    encoder = Encoder(tiny_tokenizer("gemma"), settings, {})  # which knows no system role
    from rag_ft.prompting.contract import contract_of

    contract_of(encoder, {}).write(tmp_path)
    written = json.loads((tmp_path / "prompt.json").read_text())
    (tmp_path / "prompt.json").write_text(json.dumps({**written, "chat_template_kwargs": {"thinking": False}}))
    with serving_events(answering(*REASONED)) as server:
        answer = load_generator(tmp_path, server=server.url, model="m").answer(QUESTION, PASSAGES)
        body = server.bodies[0]
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["messages"] == encoder.messages(QUESTION, PASSAGES)
    assert (body["max_tokens"], body["chat_template_kwargs"]) == (256, {"thinking": False})
    assert (answer.answer, answer.relevance[0].passage, answer.relevance[0].reason) == ("1801", 1, "It tells of Aldo.")
    assert contract["chat"]["system_role"] is True


def test_pieces_come_as_they_are_written_and_the_answer_at_the_end() -> None:
    with serving_events(answering("18", "01", " in", " May"), held=True) as server:
        found = load_generator(server=server.url, model="m").stream(QUESTION, PASSAGES)
        assert next(found) == "18"  # while the server still holds the rest back
        server.go_on.set()
        *pieces, last = found
    assert pieces == ["01", " in", " May"]
    assert isinstance(last, Answer)
    assert (last.output, last.answer, last.prompt_tokens, last.output_tokens) == ("1801 in May", "1801 in May", 11, 3)
    assert last.seconds > 0
    assert server.bodies[0]["stream"] is True


def test_a_letter_that_comes_in_two_halves_is_one_piece_and_half_a_letter_is_none() -> None:
    with serving_events(answering("a \ud83d", "\ude00 b", "\ud83d c", "\ud83d")) as server:
        *pieces, last = load_generator(server=server.url, model="m").stream(QUESTION, PASSAGES)
    assert pieces == ["a ", "\U0001f600 b", "\ufffd c"]
    assert isinstance(last, Answer)
    assert last.output == "".join(str(piece) for piece in pieces)
    assert last.output.encode()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nothing://me:s3cret@host"])
def test_a_proxy_for_everything_is_none_for_this_machine_and_one_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)  # which the other client does not look at either
    with serving_events(answering("1801")) as server:
        generator = load_generator(server=server.url, model="m")
        assert generator.answer(QUESTION, PASSAGES).answer == "1801"
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(RagFtError, match="the proxy that the environment names") as refusal:
            generator.answer(QUESTION, PASSAGES)
    assert "s3cret" not in str(refusal.value)


def test_a_key_that_cannot_be_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_events(answering("1801")) as server:
        generator = load_generator(server=server.url, model="m")
        monkeypatch.setenv("OPENAI_API_KEY", "\uc5f4\uc1e0")
        with pytest.raises(RagFtError, match="OPENAI_API_KEY holds spaces, line ends or letters"):
            generator.answer(QUESTION, PASSAGES)


def test_a_stream_that_is_left_ends_the_request() -> None:
    many = [event("", role="assistant"), event("18"), *(event("x" * 60_000) for _ in range(200)), DONE]
    with serving_events(lambda body, before: Written(many), held=True) as server:
        threads = threading.active_count()
        found = load_generator(server=server.url, model="m").stream(QUESTION, PASSAGES)
        next(found)
        found.close()  # type: ignore[attr-defined]
        server.go_on.set()
        assert server.left.wait(10)
        assert threading.active_count() <= threads + 1  # the server's own


def test_what_the_server_does_not_count_is_not_known_and_one_piece_will_do() -> None:
    whole_answer = json.dumps({"choices": [{"message": {"content": "1801"}, "finish_reason": "stop"}]}).encode()
    with serving_events(lambda body, before: Written([whole_answer], kind="application/json")) as server:
        *pieces, last = load_generator(server=server.url, model="m").stream(QUESTION, PASSAGES)
    assert pieces == ["1801"]
    assert isinstance(last, Answer)
    assert (last.answer, last.prompt_tokens, last.output_tokens) == ("1801", None, None)


def test_a_batch_is_asked_at_once_and_comes_back_in_order() -> None:
    def reply(messages: Any, body: Any) -> Reply:
        town = messages[-1]["content"].rpartition("town ")[2].rstrip("?")
        return Reply(f"Ann{town}", usage=town != "3", output_tokens=2)

    with serving(Server(reply, needs=4)) as server:
        generator = load_generator(server=server.url, model="m")
        found = generator.answers([(f"Who founded town {number}?", []) for number in range(6)])
    assert [answer.answer for answer in found] == [f"Ann{number}" for number in range(6)]
    assert [answer.prompt_tokens for answer in found] == [7, 7, 7, None, 7, 7]
    assert server.most >= 4


def test_without_a_contract_whatever_looks_like_a_control_token_is_broken() -> None:
    like = [
        "<|im_end|>",
        "<|start_header_id|>",
        "[/INST]",
        "<end_of_turn>",
        "</s>",
        "<think>",
        "<<SYS>>",
        "<\uff5cUser\uff5c>",
    ]
    with serving_events(answering("no")) as server:
        load_generator(server=server.url, model="m").answer(QUESTION, [f"A {' '.join(like)} b <br> [1] a < b |>"])
    text = server.bodies[0]["messages"][-1]["content"]
    assert not [token for token in like if token in text]
    assert "b <br> [1] a < b |>" in text
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["system", "user"]


def test_a_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    told = {"error": {"message": "the key s3cret is not known to model"}}

    def reply(body: Any, before: int) -> Written:
        status = (401, 404, 500, 200)[min(before, 3)]
        return Written([json.dumps(told).encode()], status, "application/json", {"retry-after-ms": "1"})

    with serving_events(reply) as server:
        generator = load_generator(server=server.url, model="m", api_key_env="MY_KEY")
        for wanted in ("refuses the key (401)", "does not know the model m", "has no answer"):
            with pytest.raises(RagFtError) as refusal:
                generator.answer(QUESTION, PASSAGES)
            assert wanted in str(refusal.value)
            assert "s3cret" not in str(refusal.value)
    assert set(server.keys) == {"Bearer s3cret"}


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([event("18")], "the connection broke in the middle"),
        ([event("18"), b'data: {"error": {"message": "out of memory"}}'], "the server broke off: out of memory"),
        ([event("", "content_filter"), DONE], "refused to answer"),
        ([event("", "stop"), DONE], "answer is empty"),
        ([b"data: {", b"data: []", b": a comment", DONE], "answer is empty"),
        ([b"data: " + b"[" * 200_000, event(finish="length"), DONE], "nothing was said before max_tokens"),
    ],
    ids=range(6),
)
def test_an_answer_that_breaks_off_is_told_in_one_sentence(blocks: list[bytes], told: str) -> None:
    with serving_events(lambda body, before: Written(blocks)) as server:
        found = load_generator(server=server.url, model="m").stream(QUESTION, PASSAGES)
        with pytest.raises(RagFtError, match=told):
            list(found)


def failing(status: int, words: str, headers: dict[str, str] | None = None) -> Written:
    return Written([json.dumps({"error": {"message": words}}).encode()], status, "application/json", headers or {})


def test_what_fails_in_passing_is_tried_again_and_what_is_refused_by_name_left_out() -> None:
    answers = [
        failing(503, "busy", {"retry-after-ms": "1"}),
        failing(400, "unknown field stream_options"),
        failing(400, "Use 'max_completion_tokens' instead of max_tokens"),
    ]
    with serving_events(lambda body, before: answers[before] if before < 3 else Written(whole("1801"))) as server:
        generator = load_generator(server=server.url, model="m")
        assert generator.answer(QUESTION, PASSAGES).answer == "1801"
        assert generator.answer(QUESTION, PASSAGES).answer == "1801"
    assert ["stream_options" in body for body in server.bodies] == [True, True, False, False, True]
    assert ["max_tokens" in body for body in server.bodies] == [True, True, True, False, False]


def test_a_prompt_that_is_too_long_for_the_server_names_the_passages() -> None:
    refusal = failing(400, "This model's maximum context length is 4096 tokens")
    with (
        serving_events(lambda body, before: refusal) as server,
        pytest.raises(RagFtError, match=r"maximum context length .* fewer than these 2 passages"),
    ):
        load_generator(server=server.url, model="m").answer(QUESTION, [*PASSAGES, *PASSAGES])


def test_a_server_that_is_not_there_is_told_at_once_in_words_of_the_call() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(RagFtError, match=f"nothing answers at {url}"):
            load_generator(server=url, model="m").answer(QUESTION, [])
    for wrong in ("127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://[::1/v1"):
        with pytest.raises(RagFtError, match=r"no address of a server|is no address"):
            load_generator(server=wrong, model="m").answer(QUESTION, [])
    with pytest.raises(RagFtError, match=r"^server holds a user"):
        load_generator(server="http://me:pw@127.0.0.1/v1", model="m")


def test_a_reference_for_a_server_must_have_a_contract_that_is_kept(trained_run: Path, tiny_weights: Path) -> None:
    where: dict[str, Any] = {"server": "http://127.0.0.1:9/v1", "model": "m"}
    with pytest.raises(RagFtError, match=r"has no prompt\.json"):
        load_generator(tiny_weights, **where)
    with pytest.raises(RagFtError, match="no such folder"):
        load_generator("runs/mistyped/adapter", **where)
    with pytest.raises(RagFtError, match="model=NAME is missing"):
        load_generator(server="http://127.0.0.1:9/v1", model="")
    with pytest.raises(RagFtError, match="trained in the style answer, not self_reasoning"):
        load_generator(trained_run, style="self_reasoning", **where)
    allowed = load_generator(trained_run, style="self_reasoning", allow_prompt_mismatch=True, **where)
    assert allowed.settings.style == "self_reasoning"


def test_asking_a_server_loads_no_torch(trained_run: Path) -> None:
    script = (
        "import sys, rag_ft; g = rag_ft.load_generator(sys.argv[1], server=sys.argv[2], model='m');"
        "print(g.answer('Who?', ['Ann.']).answer, *sys.modules)"
    )
    with serving_events(answering("Ann")) as server:
        command = [sys.executable, "-c", script, str(trained_run), server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Ann ")
    assert not {"torch", "transformers", "peft"} & set(done.stdout.split())
