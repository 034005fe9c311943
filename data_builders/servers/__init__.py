"""Asking servers that speak the OpenAI protocol: what is asked, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol


@dataclass(frozen=True)
class Call:
    """One conversation to be answered.

    Attributes:
        key: the caller's name of it, unique within a job.
        messages: role and content each.
        schema: JSON schema of the answer, for servers that write to one; None takes free text.
        begun: what the answer begins with, for writers that can go on from there; others are not shown it. It is part
            of the reply's text.
    """

    key: str
    messages: tuple[Mapping[str, str], ...]
    schema: Mapping[str, Any] | None = None
    begun: str = ""

    @cached_property
    def conversation(self) -> str:
        """The messages as JSON, written once: they are hashed, and they are most of what is sent."""
        return json.dumps(self.messages, sort_keys=True, separators=(",", ":"), default=dict)


@dataclass(frozen=True)
class Reply:
    """What a call brought.

    Attributes:
        text: None where there is no answer; `failure` then says why.
        truncated: the answer was cut off at the most tokens allowed.
        confidence: mean log-probability of the tokens the server gives one for; None where it gives none.
        seconds: tries and pauses included.
        failure: why there is no answer, in one line; the same words before its first colon for the same reason.
        may_pass: the failure came of the server or the way to it, so the same call may be answered another time.
    """

    text: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    truncated: bool = False
    confidence: float | None = None
    seconds: float = 0.0
    failure: str | None = None
    may_pass: bool = False


class Asker(Protocol):
    """Answers calls, in the order in which answers arrive.

    It takes calls from the caller's iterator in the caller's thread, while one waits for the next reply; of calls taken
    and not yet yielded there are never more than a few for each that may be under way.
    """

    def __call__(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        """Yield each call with its reply."""
        ...
