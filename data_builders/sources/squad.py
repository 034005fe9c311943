"""SQuAD 1.1 and 2.0, KorQuAD 1.0 and all that is written like them: articles of paragraphs with their questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from data_builders.files import content_hash
from data_builders.records import GoldEvidence, Passage, Question
from data_builders.sentences import sentence_around
from data_builders.sources.jsonl import optional_text, within
from data_builders.sources.passage_rows import Listed, question_text, ranking_of
from data_builders.sources.rows import BadRow, FileSettings, Format, Place, SourceRecord, rows_of, shown, text_of

_REASON = "It states the answer."


class SquadSettings(FileSettings):
    """Articles, their paragraphs and questions whose answers are spans of the paragraph (SQuAD, KorQuAD)."""

    kind: Literal["squad"]
    """SQuAD 1.1 or 2.0, KorQuAD 1.0: one JSON document with a list of articles under `data`."""


def parse(row: dict[str, Any], place: Place) -> Iterator[SourceRecord]:
    """Yield the passages and questions of one article.

    A question that `is_impossible` has neither answers nor gold, and a ranking that puts its own paragraph first.
    """
    title = optional_text(row, "title")
    for number, paragraph in enumerate(rows_of(row, "paragraphs")):
        with within(f"paragraphs.{number}"):
            text = text_of(paragraph, "context")
            # titles and numbers come again in other articles and files, and so may the text: it decides
            id_ = f"{title}#{number}-{content_hash(text)[:8]}"
            passage = Passage(id_, title, text, document=title)
            yield passage
            for index, asked in enumerate(rows_of(paragraph, "qas")):
                with within(f"qas.{index}"):
                    yield from _question(asked, passage, place.source)


def _question(asked: dict[str, Any], passage: Passage, source: str) -> Iterator[SourceRecord]:
    id_, text, impossible = text_of(asked, "id"), question_text(asked), asked.get("is_impossible")
    if impossible not in (True, False, None):
        raise BadRow("is_impossible", f"is {shown(impossible)}, not true or false")
    spans = _spans(asked) if not impossible or asked.get("answers") else []
    if impossible and spans:
        raise BadRow("answers", "holds an answer although is_impossible is true")
    if not impossible and not spans:
        raise BadRow("answers", "holds no answer although is_impossible is not true")
    if impossible:
        yield Question(id_, text, (), (), source=source)
        yield from ranking_of(id_, [Listed(passage, 1.0)])
        return
    answers = tuple(dict.fromkeys(answer.strip() for answer, _ in spans))
    quote = next((quote for span in spans if (quote := quote_around(passage.text, *span))), "")
    evidence = (GoldEvidence(passage.id, quote, _REASON),) if quote else ()
    yield Question(id_, text, answers, (passage.id,), evidence, source=source)


def _spans(asked: dict[str, Any]) -> list[tuple[str, int]]:
    spans = []
    for number, answer in enumerate(rows_of(asked, "answers")):
        with within(f"answers.{number}"):
            text, start = text_of(answer, "text"), answer.get("answer_start", -1)
            if not text.strip():
                raise BadRow("text", "is empty")
            if isinstance(start, bool) or not isinstance(start, int):
                raise BadRow("answer_start", f"is {shown(start)}, not a whole number")
            spans.append((text, start))
    return spans


def quote_around(text: str, answer: str, start: int) -> str:
    """Return the sentence of `text` around the answer at `start` (characters), without the space around it.

    It is the answer alone where the answer does not stand at `start` or the sentence is very long, and nothing where
    the answer is not in the text at all or goes over several lines, since a quote is one line.
    """
    start += len(answer) - len(answer.lstrip())
    answer = answer.strip()
    end = start + len(answer)
    if not answer or start < 0 or text[start:end] != answer:
        sentence = answer if answer in text else ""
    else:
        sentence = sentence_around(text, start, end) or answer
    return "" if len(sentence.splitlines()) > 1 else sentence


SQUAD = Format(
    kind="squad",
    example={
        "title": "Aldern bridge",
        "paragraphs": [
            {
                "context": "The bridge crosses the Ruhne. It was opened in 1932.",
                "qas": [
                    {
                        "id": "q1",
                        "question": "When was the bridge opened?",
                        "answers": [{"text": "1932", "answer_start": 47}],
                        "is_impossible": False,
                    }
                ],
            }
        ],
    },
    parse=parse,
    items="data.item",
)
