"""Self-Route and answers in a language over any generator: who is asked what, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from event_server import Written, serving_events, whole
from openai_server import Reply, Server, serving

from data_builders.errors import RagFtError
from data_builders.records import PoolPassage
from data_builders.servers.settings import EndpointSettings
from rag_ft import load_generator
from rag_ft.app.language import InLanguage, in_language
from rag_ft.app.routing import SelfRouting, routed
from rag_ft.evaluation.settings import SelfRouteSettings, SystemSettings
from rag_ft.generation.endpoint import endpoint_engine
from rag_ft.generator import Answer, PassageLike
from rag_ft.generator.reading import Cost, pose, read_answer
from rag_ft.prompting.settings import PromptSettings
from rag_ft.strategies import Ask
from rag_ft.strategies.run import answer as answer_by_strategy

DECLINES = "The passages do not say."
QUESTION = "When was Aldo founded?"


@dataclass
class Reader:
    """A generator by rule: it says the year of the first passage that has one, else declines."""

    settings: PromptSettings = field(default_factory=PromptSettings)
    prompt_hash: str = "trained"
    asked: list[tuple[str, int]] = field(default_factory=list)
    counts: bool = True

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        posed = pose(question, passages)
        self.asked.append((question, len(passages)))
        year = next((word for one in posed.passages for word in one.text.split() if word.isdigit()), None)
        tokens = 10 * len(passages) if self.counts else None
        output = "1800" if not passages else year or DECLINES
        return read_answer(output, posed, self.settings, Cost(tokens, 2, 1.0))

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        return [self.answer(*one) for one in asked]

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        answer = self.answer(question, passages)
        yield from answer.output
        yield answer


def passages(count: int, year_at: int | None) -> list[str]:
    return [f"Passage {'1801' if number == year_at else 'of nothing'}" for number in range(count)]


@pytest.mark.parametrize(
    ("shown", "wanted", "way", "asked", "tokens"),
    [
        (passages(8, 1), "1801", "few", [3], 30),
        (passages(8, 6), "1801", "all", [3, 8], 110),
        (passages(8, None), None, "all", [3, 8], 110),
        (passages(3, None), None, "all", [3], 30),  # the second prompt would be the first again
        (passages(2, 0), "1801", "few", [2], 20),
        ([], "1800", "", [0], 0),
    ],
)
def test_all_passages_are_read_only_where_the_first_few_do_not_say(
    shown: list[str], wanted: str | None, way: str, asked: list[int], tokens: int
) -> None:
    reader = Reader()
    found = routed(reader, QUESTION, shown, few=3)
    assert (found.answer, found.route, [count for _, count in reader.asked]) == (wanted, way, asked)
    assert (found.prompt_tokens, found.output_tokens, found.seconds) == (tokens, 2 * len(asked), 1.0 * len(asked))
    assert SelfRouting(Reader(), 3).answers([(QUESTION, shown)]) == [found]
    *pieces, last = SelfRouting(Reader(), 3).stream(QUESTION, shown)
    assert last == found
    assert "".join(map(str, pieces)) == found.output  # nothing of a try that was thrown away


def test_a_batch_asks_all_first_tries_and_then_all_second_ones() -> None:
    reader = Reader(counts=False)
    found = SelfRouting(reader, 3).answers([("a", passages(8, 6)), ("b", passages(8, 0)), ("c", passages(5, None))])
    assert reader.asked == [("a", 3), ("b", 3), ("c", 3), ("a", 8), ("c", 5)]
    assert [(one.answer, one.route) for one in found] == [("1801", "all"), ("1801", "few"), (None, "all")]
    assert [one.prompt_tokens for one in found] == [None, None, None]
    with pytest.raises(RagFtError, match="few=0"):
        routed(reader, QUESTION, [], few=0)


def test_it_decides_as_evaluation_does() -> None:
    """The same questions to the same server through the strategy of `rag-ft evaluate`."""
    from tiny_model import tiny_tokenizer

    from rag_ft.prompting.encode import Encoder

    def reply(messages: Any, body: Any) -> Reply:
        return Reply("1801" if "1801" in messages[-1]["content"] else DECLINES, prompt_tokens=9, output_tokens=2)

    kinds = [(8, 1), (8, 6), (8, None), (3, None), (2, 0), (0, None)]
    with serving(Server(reply)) as server:
        system = SystemSettings(
            name="routed",
            endpoint=EndpointSettings(base_url=server.url, model="m"),
            strategy="self_route",
            self_route=SelfRouteSettings(passages=3),
        )
        assert system.endpoint is not None
        asks = [
            Ask(
                str(number),
                QUESTION,
                tuple(
                    PoolPassage(str(at), "", text, False, False, "bm25", at + 1, 1.0)
                    for at, text in enumerate(passages(*kind))
                ),
            )
            for number, kind in enumerate(kinds)
        ]
        engine = endpoint_engine(system.endpoint, 48)
        encoder = Encoder(tiny_tokenizer(), PromptSettings(), {})
        batches = answer_by_strategy(
            "self_route", [[ask] for ask in asks], encoder, engine, system=system, batch_size=6
        )
        theirs = {one.key: one for batch in batches for one in batch}
        generator = load_generator(server=server.url, model="m")
        ours = [routed(generator, QUESTION, passages(*kind), few=3) for kind in kinds]
    assert [(one.output, one.route, one.prompt_tokens, one.output_tokens) for one in ours] == [
        (one.output, one.route, one.prompt_tokens, one.output_tokens)
        for one in (theirs[str(number)] for number in range(len(kinds)))
    ]


def test_a_language_is_asked_for_in_the_question_alone_and_shown_as_a_departure() -> None:
    reader = Reader()
    korean = in_language(reader, "korean")
    assert isinstance(korean, InLanguage)
    assert korean.answer(QUESTION, passages(2, 0)).answer == "1801"
    assert korean.answer(QUESTION, []).answer == "1800"
    wish = "Write the answer in Korean. When no passage holds it, reply: The passages do not say."
    assert reader.asked == [(f"{QUESTION} {wish}", 2), (f"{QUESTION} Write the answer in Korean.", 0)]
    assert korean.settings == reader.settings
    assert korean.prompt_hash not in (reader.prompt_hash, in_language(reader, "english").prompt_hash)
    assert wish in korean.notice
    assert in_language(reader, "as_asked") is reader
    with pytest.raises(RagFtError, match="no such choice"):
        in_language(reader, "klingon")  # type: ignore[arg-type]
    with pytest.raises(RagFtError, match="the question is empty"):
        korean.answer(" ", [])


def test_a_language_changes_nothing_but_the_question_of_the_prompt_and_goes_with_routing() -> None:
    with serving_events(lambda body, before: Written(whole(DECLINES))) as server:
        generator = load_generator(server=server.url, model="m")
        plain = generator.answer(QUESTION, passages(2, 0))
        found = routed(in_language(generator, "korean"), QUESTION, passages(4, None), few=2)
        in_language(generator, "korean").answer(QUESTION, passages(2, 0))
    assert plain.abstained
    assert (found.abstained, found.route) == (True, "all")
    asked = [[message["content"] for message in body["messages"]] for body in server.bodies]
    assert asked[0][0] == asked[3][0]  # the instruction
    assert asked[3][1].startswith(asked[0][1])
    assert asked[3][1].removeprefix(asked[0][1]).startswith(" Write the answer in Korean.")
    assert ["Korean" in text for _, text in asked] == [False, True, True, True]
