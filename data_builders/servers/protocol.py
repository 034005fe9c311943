"""Requests and answers of the OpenAI protocol, as plain values. Sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal

from data_builders.servers import Call, Reply

RETRIES = 6
"""Further tries after what fails in passing; the pauses before them add up to about 25 seconds."""
REREADS = 2
"""Further tries after an answer that holds nothing or cannot be read."""

Structured = Literal["auto", "json_schema", "json_object", "off"]
_LOWER = {"json_schema": "json_object", "json_object": "off"}
_SPEAKS_OF_STRUCTURE = ("response_format", "json_schema", "json_object", "guided", "structured output")
_IN_PASSING = {408, 409, 425, 429}
_LONGEST_LINE = 300  # characters of what a server says
_CUT_WORD = re.compile(r"(?:(?![\"'<>{}()\[\],])[!-~])+\Z")  # signs that a key may be of
LONGEST_PAUSE = 120.0
"""Seconds; a server that asks for more is not waited for."""
_REFUSED = "the server refused to answer"
# What moderators before a model say of a prompt, as an error: OpenAI, Azure, OpenRouter. Other prompts are answered.
_MODERATED = re.compile(
    r"moderation|flagged|content[ _](?:management[ _])?policy|content[ _]filter|safety system", re.I
)


@dataclass(frozen=True)
class Writing:
    """How a server is to write.

    Attributes:
        max_tokens: longest answer.
        temperature: 0 writes what is likeliest.
        logprobs: ask for the log-probability of each token, for `Reply.confidence`.
        structured: how JSON is asked for in calls with a schema; `auto` takes what the server accepts.
        extra_body: further fields of each request; they win over ours.
    """

    max_tokens: int
    temperature: float = 0.0
    logprobs: bool = False
    structured: Structured = "off"
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Taken:
    """What a server takes, as far as it has said: learnt from what it refuses by name."""

    structured: str
    length: str = "max_tokens"
    without: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Outcome:
    """What one request brought.

    Attributes:
        again: how often a call may be tried again that ends like this.
        pause: seconds the server asks for before that.
        hopeless: why no other call has a chance either; raised when tries are used up.
        unknown_cost: the server may have read and written without our hearing of it.
    """

    reply: Reply
    again: int = 0
    pause: float | None = None
    hopeless: str | None = None
    unknown_cost: bool = False


def body_of(call: Call, model: str, writing: Writing, taken: Taken) -> dict[str, Any]:
    """Return what is sent for a call."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in call.messages],
        "temperature": writing.temperature,
        taken.length: writing.max_tokens,
    }
    if writing.logprobs:
        body["logprobs"] = True
    if call.schema is not None and taken.structured != "off":
        body["response_format"] = _response_format(call.schema, taken.structured)
    return {name: value for name, value in body.items() if name not in taken.without} | dict(writing.extra_body)


def encoded(call: Call, body: Mapping[str, Any], writing: Writing) -> bytes:
    """Return the body of a call as it is sent; its messages are most of it, and were written for the hash already."""
    if "messages" in writing.extra_body:
        return json.dumps(body).encode()
    others = {name: value for name, value in body.items() if name != "messages"}
    return f'{{"messages":{call.conversation},{json.dumps(others)[1:]}'.encode()


def _response_format(schema: Mapping[str, Any], structured: str) -> dict[str, Any]:
    if structured == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}


def learn(told: str, body: Mapping[str, Any], writing: Writing, taken: Taken) -> bool:
    """Note what a 400 or 422 refuses by name; say whether the call is worth sending again without it.

    Other calls may have taught the same in the meantime: then it is only sent again.
    """
    ours = {name: value for name, value in body.items() if name not in writing.extra_body}
    text = told.lower()
    if (
        "response_format" in ours
        and writing.structured == "auto"
        and any(word in text for word in _SPEAKS_OF_STRUCTURE)
    ):
        refused = ours["response_format"]["type"]
        taken.structured = _LOWER[refused] if taken.structured == refused else taken.structured
        return True
    # OpenAI's newer models: "Unsupported parameter: 'max_tokens' ... Use 'max_completion_tokens' instead."
    if "max_tokens" in ours and "max_completion_tokens" in text:
        taken.length = "max_completion_tokens"
        return True
    refused_fields = {"logprobs"} | ({"temperature"} if "support" in text else set())
    named = {name for name in refused_fields if name in ours and name in text}
    taken.without |= named
    return bool(named)


def read(status: int, headers: Mapping[str, str], data: bytes) -> Outcome:
    """Return what a server's answer says, whatever it holds."""
    if status >= 300:
        pause = pause_asked(headers)
        if is_moderated(status, data):
            return Outcome(Reply(failure=f"{_REFUSED}: {told(data)}"))
        failure = Reply(failure=f"the server answered {status}: {told(data)}", may_pass=True)
        return Outcome(failure, RETRIES if _in_passing(status) else 0, pause)
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        unread = Reply(failure="the server's answer is not JSON", may_pass=True)
        return Outcome(unread, REREADS, pause_asked(headers), unknown_cost=True)
    reply = _reply(answer)
    idle = reply.text is None and not reply.truncated and not (reply.failure or "").startswith(_REFUSED)
    return (
        Outcome(reply, REREADS, pause_asked(headers), unknown_cost=True) if idle else Outcome(reply, unknown_cost=True)
    )


def is_moderated(status: int, data: bytes) -> bool:
    """Tell whether an error says that this prompt is not answered for what it is about."""
    return status in (400, 403, 422, 451) and _MODERATED.search(told(data)) is not None


def too_long(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the pause that a server asks for where it is longer than anybody waits: no call has a chance in it."""
    pause = pause_asked(headers) if _in_passing(status) else None
    return pause if pause is not None and pause > LONGEST_PAUSE else None


def _in_passing(status: int) -> bool:
    return status in _IN_PASSING or status >= 500


def _reply(answer: Any) -> Reply:
    """Read a chat completion, which may hold anything."""
    choice = _first(_get(answer, "choices"))
    message = _get(choice, "message")
    if not isinstance(message, dict):
        words = _get(_get(answer, "error"), "message")  # gateways tell of what failed behind them with status 200
        why = f": {_line(words)}" if isinstance(words, str) else ""
        return Reply(failure=f"the server's answer holds no message{why}", may_pass=True)
    usage, finish = _get(answer, "usage"), _get(choice, "finish_reason")
    counts = (_whole(_get(usage, "prompt_tokens")), _whole(_get(usage, "completion_tokens")))
    refusal, text, cut = message.get("refusal"), message.get("content"), finish == "length"
    if refusal or finish == "content_filter":
        return Reply(None, *counts, failure=f"{_REFUSED}: {_line(str(refusal or 'content filter'))}")
    if not isinstance(text, str) or not text.strip():
        why = ": nothing was said before max_tokens was reached" if cut else ""
        return Reply(None, *counts, truncated=cut, failure=f"the server's answer is empty{why}")
    return Reply(_utf8(text), *counts, truncated=cut, confidence=_confidence(choice))


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _whole(count: Any) -> int | None:
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _confidence(choice: Any) -> float | None:
    """Return the mean log-probability of the tokens the server gives one for."""
    tokens = _get(_get(choice, "logprobs"), "content")
    found = [_get(token, "logprob") for token in tokens] if isinstance(tokens, list) else []
    known = [value for value in found if isinstance(value, int | float)]
    return sum(known) / len(known) if known else None


def told(data: bytes) -> str:
    """Return what an error's body says, in one line: the words meant for people where they can be found.

    Some servers repeat the whole request in it, of which nothing may be taken for what they refuse.
    """
    text = data.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _line(text)
    for words in (
        _get(_get(body, "error"), "message"),
        _get(body, "message"),
        _get(body, "error"),
        _get(body, "detail"),
    ):
        if isinstance(words, str) and words.strip():
            return _line(words)
    detail = _first(_get(body, "detail"))  # FastAPI's list of what is wrong with which field
    return _line(f"{_get(detail, 'loc')} {_get(detail, 'msg')}" if detail else text)


def _line(text: str) -> str:
    """Return the beginning of a text in one line, without half a word: it may be half a key, which nobody can hide."""
    line = " ".join(text.split())
    return _utf8(line if len(line) <= _LONGEST_LINE else _CUT_WORD.sub("", line[:_LONGEST_LINE]).rstrip())


def _utf8(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can hold and no file."""
    return text.encode("utf-8", "replace").decode()


def pause_asked(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server wants to pass before the next try (Retry-After, RFC 9110 section 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if seconds >= 0:  # not a NaN either
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
