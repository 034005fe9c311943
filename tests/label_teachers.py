"""Teachers for tests: functions from a prompt to a label, as a server's answer, by looking at what the prompt shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from openai_server import Messages, Reply

Label = dict[str, Any]


def shown(prompt: str) -> dict[int, str]:
    """Return number -> text of the passages in a prompt, titles left out."""
    found = re.findall(r"^<passage (\d+)>\n(.*?)\n</passage \1>$", prompt, re.MULTILINE | re.DOTALL)
    return {int(number): text.split("\n")[-1] for number, text in found}


def question(prompt: str) -> str:
    (found,) = re.findall(r"<question>\n(.*?)\n</question>", prompt, re.DOTALL)
    return str(found)


def told_answer(prompt: str) -> str | None:
    found = re.search(r"right is: (.*)$", prompt, re.MULTILINE)
    return found.group(1) if found else None


def quotable(text: str, answer: str) -> str | None:
    """Return the sentence with the answer."""
    return next((one.strip() for one in re.findall(r"[^.]+\.", text) if answer in one), None)


def honest(prompt: str) -> Label:
    """Write the label a careful reader would: of a town's question, the passage about that town."""
    answer, passages = told_answer(prompt), shown(prompt)
    town = re.findall(r"the town of (\w+)", question(prompt))
    gold = [number for number, text in passages.items() if answer and any(f"town of {name} " in text for name in town)]
    judged = [
        {
            "passage": number,
            "relevant": number in gold,
            "reason": f"Its lines tell the history of {re.findall(r'town of (.*?) was', text)[0]} in few words.",
        }
        for number, text in passages.items()
    ]
    quotes = [
        {
            "passage": number,
            "quote": quotable(passages[number], answer or "") or passages[number],
            "reason": "It tells.",
        }
        for number in gold
    ]
    marks = "".join(f"[{number}]" for number in gold)
    analysis = f"The passage tells so {marks}." if gold else "Each passage is about something else."
    return {"relevance": judged, "evidence": quotes, "analysis": analysis, "answer": answer if gold else None}


def replying(write: Callable[[str], Label]) -> Callable[[Messages, dict[str, Any]], Reply]:
    """Return a server's side: the label of the first message as JSON."""
    return lambda messages, body: Reply(
        json.dumps(write(messages[0]["content"])), prompt_tokens=100, logprobs=[0.0] * 20
    )
