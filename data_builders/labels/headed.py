"""Reading a label that was written as headed text, as the student will write it itself. Judges nothing of what it says.

For writers that are held to no schema, and small ones, which lose themselves in JSON. The answer that a writer was told
it need not write again, where its reasoning comes to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from data_builders.labels.parsing import CUT_OFF, LONGEST, NOTHING, Parsed, unjudged
from data_builders.labels.prompts import ABSTENTION, WrittenStyle
from data_builders.records import Evidence, Label, Relevance
from data_builders.targets import Judgement, headings, one_line, read_target
from data_builders.targets import Parsed as Read
from data_builders.templates import without_thoughts
from data_builders.text import answer_kind, contains_answer

_VERDICT = re.compile(r"(?:\*\*)?(yes|no)(?:\*\*)?[ \t]*[:\uff1a][ \t]*", re.IGNORECASE)
_PROMPT_AGAIN = re.compile(r"\n[ \t]*(?=<(?:passage|question|reply)\b)")
"""Where a writer that finds no end begins to write its prompt once more."""
_WORDS = 4
"""Words from which on a repeated reason is no accident."""


@dataclass(frozen=True)
class Shown:
    """What a writer was told beforehand: the accepted answers, the one to write first; none, that nothing answers."""

    answers: tuple[str, ...] = ()


def parse_text(
    output: str, style: WrittenStyle, passages: int, *, truncated: bool = False, told: Shown | None = None
) -> Parsed:
    """Read an output. Never raises: outputs are untrusted.

    Args:
        output: as it came, what it was begun with included.
        style: decides which parts there must be.
        passages: how many were shown.
        truncated: it was cut off at the most tokens allowed; its last line is not read then.
        told: what the writer was told of the answer; None, nothing.
    """
    whole = without_thoughts(output)[:LONGEST]
    text = _PROMPT_AGAIN.split(whole)[0]
    text = text.rpartition("\n")[0] if truncated and text == whole else text
    read, heads, problems = read_target(text, style, ABSTENTION), headings(text), list[str]()
    relevance = tuple(sorted(_relevance(read.relevance, style, problems), key=lambda item: item.passage))
    if not relevance and "answer" not in heads:
        return Parsed(Label((), (), "", None), (CUT_OFF if truncated else _NOTHING_READ,), readable=False)
    label = Label(relevance, (), "", None)
    if style == "self_reasoning":
        label = Label(relevance, tuple(_evidence(read, problems)), _analysis(read, problems), None)
        problems += unjudged(relevance, passages)
    answer = _said(read) if "answer" in heads else _told(label, told, problems)
    return Parsed(replace(label, answer=answer), tuple(dict.fromkeys(problems)))


_NOTHING_READ = 'There is no line such as "[1] yes: the reason" in it, and none that begins with "Answer:".'


def repeated(label: Label, prompt: str, shown: Iterable[str]) -> list[str]:
    """Return what reasons a label has from its prompt's own words, as where a writer copies the example.

    Args:
        label: that was read.
        prompt: as it was sent.
        shown: texts in it that are no words of ours: passages, question, answers.
    """
    own = one_line(prompt)
    for text in sorted(map(one_line, shown), key=len, reverse=True):
        own = own.replace(text, "\n") if text else own
    reasons = [*(item.reason for item in label.relevance), *(item.reason for item in label.evidence)]
    said = (text for text in (*reasons, label.analysis) if len(text.split()) >= _WORDS)
    return [f'"{text}" repeats the instructions: write about these passages.' for text in said if text in own]


def _relevance(found: Iterable[Judgement], style: WrittenStyle, problems: list[str]) -> Iterator[Relevance]:
    """Yield one judgement for each passage that is judged; in style reasoning one without a verdict says yes."""
    seen: dict[int, bool] = {}
    for item in found:
        verdict = _VERDICT.match(item.reason) if style == "reasoning" else None
        relevant = verdict.group(1).lower() == "yes" if verdict else item.relevant
        reason = item.reason[verdict.end() if verdict else 0 :].strip()
        if not reason:
            problems.append(f'"Relevance:" gives no reason for passage {item.passage}.')
        elif item.passage not in seen:
            seen[item.passage] = relevant
            yield Relevance(item.passage - 1, relevant, reason)
        elif seen[item.passage] != relevant:
            problems.append(f'"Relevance:" judges passage {item.passage} twice, and differently.')


def _evidence(read: Read, problems: list[str]) -> Iterator[Evidence]:
    for item in read.evidence:
        if item.reason.strip():
            yield Evidence(item.passage - 1, item.quote, item.reason.strip())
        else:
            problems.append(f'"Evidence:" gives no reason for its quote of passage {item.passage}.')


def _analysis(read: Read, problems: list[str]) -> str:
    analysis = one_line(read.analysis.partition("\n\n")[0])
    if not analysis:
        problems.append('There is no "Analysis:".')
    return analysis


def _said(read: Read) -> str | None:
    """Return the answer that was written; None where the writer abstains."""
    said = (read.answer or "").strip()
    return None if said.rstrip(".").lower() in NOTHING else said


def _told(label: Label, told: Shown | None, problems: list[str]) -> str | None:
    """Return the answer that was told, for a label that does not write it but comes to it."""
    if told is None:
        problems.append(f'There is no "Answer:": write "Answer: {ABSTENTION}" where the passages do not answer.')
    if told is None or not told.answers:
        return None
    reasons = " ".join(item.reason for item in label.relevance if item.relevant)
    judgeable = [one for one in told.answers if answer_kind(one) != "unjudgeable"]  # "yes" stands in no passage
    if judgeable and not contains_answer(label.analysis or reasons, judgeable):
        problems.append('There is no "Answer:", and what is written does not come to the answer either.')
    return told.answers[0]
