"""The planted labels of tests/data/planted_labels.jsonl, good and bad, written by hand before the gates were tuned.

A line is a context (question, accepted answers, passages as title and text, gold) or a label of one. Passages count
from 1 there, as in prompts; "+" and "-" before a reason mean relevant and irrelevant. "gate" names the gate that has to
turn a label away; null means that it must pass. `repeat` writes a part of a label that many times over.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from data_builders.labels.candidate import Candidate
from data_builders.records import ContextQuestion, Evidence, Label, Passage, Relevance

FILE = Path(__file__).parent / "data" / "planted_labels.jsonl"


@dataclass(frozen=True)
class Planted:
    """A label and what has to become of it; every third was kept aside while the gates were written."""

    name: str
    candidate: Candidate
    gate: str | None
    held_out: bool


def planted_labels():
    contexts, found = {}, []
    for number, line in enumerate(FILE.read_text(encoding="utf-8").splitlines(), 1):
        entry = json.loads(line)
        if "context" in entry:
            contexts[entry["context"]] = entry
            continue
        made = candidate(contexts[entry["of"]], entry, line)
        found.append(Planted(f"{entry['of']}-{number}", made, entry["gate"], len(found) % 3 == 2))
    return found


def candidate(context, entry, raw=""):
    passages = tuple(Passage(f"p{place}", *pair) for place, pair in enumerate(context["passages"]))
    asked = ContextQuestion(
        id=context["context"],
        question=context["question"],
        answers=tuple(context["answers"]),
        answerable=context.get("answerable", True),
        gold=tuple(number - 1 for number in context["gold"]),
        has_answer=(),
        retrieved=(None,) * len(passages),
        label=None,
        label_source="",
        source="",
        group="",
    )
    style = entry.get("style", "self_reasoning")
    label = Label(
        relevance=tuple(judgements(entry["relevance"])),
        evidence=tuple(Evidence(number - 1, quote, reason) for number, quote, reason in entry["evidence"]),
        analysis=entry["analysis"] * entry.get("repeat", {}).get("analysis", 1),
        answer=entry["answer"],
    )
    return Candidate(passages, asked, style, label, raw, tuple(entry.get("problems", ())))


def judgements(entries):
    for number, entry in enumerate(entries, 1):
        place, text = entry if isinstance(entry, list) else (number, entry)
        yield Relevance(place - 1, text.startswith("+"), text[1:].strip())
