"""Strategies over an engine: what is asked, in which order, how often, and what comes back with which costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from token_rows import TOWNS, encoder, passage

from data_builders.records import PoolPassage
from data_builders.servers.settings import EndpointSettings
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.generation import Generation, Request
from rag_ft.generation.separate import SeparateEngine
from rag_ft.generation.tree import TreeEngine
from rag_ft.strategies import Answered, Ask
from rag_ft.strategies.run import answer, prompts, texts

SYSTEM = SystemSettings.model_validate({"name": "one", "strategy": "self_route", "self_route": {"passages": 2}})


def shown(*numbers: int) -> tuple[PoolPassage, ...]:
    """The towns' passages in the order given, best first."""
    found = [(rank, passage(number)) for rank, number in enumerate(numbers, start=1)]
    return tuple(
        PoolPassage(one.id, one.title, one.text, False, False, "bm25", rank, 9.0 - rank) for rank, one in found
    )


def ask(key: str, town: int, *numbers: int) -> Ask:
    return Ask(key, f"When was {TOWNS[town]} founded?", shown(*numbers))


@dataclass
class Reader:
    """A server in miniature that reads prompts: it tells the year if the town asked for is shown, else declines.

    A prompt costs as many seconds as it has passages; every answer counts seven tokens. Where it breaks, it has written
    all the same.
    """

    asked: list[str] = field(default_factory=list)
    batches: int = 0
    broken: str = "never"

    def generate(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Generation]]:
        coder = encoder(style="answer")
        for group in groups:
            self.batches += 1
            yield [
                self._read(request, coder.tokenizer.decode([i for s in request.segments for i in s]))
                for request in group
            ]

    def _read(self, request: Request, prompt: str) -> Generation:
        self.asked.append(prompt)
        town = prompt.split("Question: When was ")[1].split(" founded?")[0]
        dated = f"The town of {town} was founded in " in prompt
        text = str(1801 + TOWNS.index(town)) if dated else "the passages do not say"
        failure = "it broke" if self.broken in prompt else None
        return Generation(
            request.key,
            (),
            request.length,
            float(prompt.count("The town of")),
            text,
            7,
            -0.5,
            failure,
        )


def answered(strategy: str, groups: Sequence[Sequence[Ask]], engine: Any, batch_size: int = 8) -> dict[str, Answered]:
    """Return the answers by key, after checking that every ask is answered exactly once."""
    coder = encoder(style="answer")
    batches = answer(strategy, groups, coder, engine, system=SYSTEM, batch_size=batch_size)
    found = [one for batch in batches for one in batch]
    assert sorted(one.key for one in found) == sorted(one.key for group in groups for one in group)
    return {one.key: one for one in found}


def length(one: Ask, count: int | None = None) -> int:
    return sum(map(len, encoder(style="answer").prompt(one.question, texts(one.passages[:count]))))


# one prompt


def test_concatenation_shows_passages_as_they_stand_and_reordering_the_best_at_both_ends() -> None:
    """Reordering: first the odd ranks upwards, then the even ones downwards."""
    for strategy, expected in (("concatenate", [0, 1, 2, 3, 4]), ("reorder", [0, 2, 4, 3, 1])):
        reader = Reader()
        answered(strategy, [[ask("a", 0, 0, 1, 2, 3, 4)]], reader)
        places = [reader.asked[0].index(f"The town of {TOWNS[number]} ") for number in expected]
        assert places == sorted(places)


def test_equal_prompts_are_asked_once_and_answered_each() -> None:
    reader = Reader()
    found = answered("concatenate", [[ask("a", 0, 0), ask("b", 0, 0), ask("c", 0, 0, 1)]], reader)
    assert len(reader.asked) == 2
    assert found["a"].output == found["b"].output == found["c"].output == "1801"
    assert found["a"].seconds == found["b"].seconds == 1


def test_asks_of_a_question_reach_the_engine_as_one_group_with_common_beginnings() -> None:
    groups = [[ask("a", 0, 0), ask("b", 0, 0, 1, 2), ask("c", 0, 0, 1)], [ask("d", 1, 2)]]
    told = prompts("concatenate", groups, encoder(style="answer"), system=SYSTEM)
    assert [[request.key for request in group] for group in told] == [["a", "b", "c"], ["d"]]
    short, long = told[0][0].segments, told[0][1].segments
    assert long[: len(short) - 1] == short[:-1]


def test_a_failure_is_an_answer_that_says_why() -> None:
    found = answered("concatenate", [[ask("a", 0, 0)], [ask("b", 1, 1)]], Reader(broken="Bexa founded"))
    assert (found["a"].failure, found["a"].output) == (None, "1801")
    assert found["b"].failure == "it broke"


def test_messages_are_written_for_a_server_only_and_are_the_same_prompt() -> None:
    coder = encoder(style="answer")
    groups = [[ask("a", 0, 0, 1)]]
    endpoint = EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m")
    [[local]] = prompts("concatenate", groups, coder, system=SYSTEM)
    [[remote]] = prompts("concatenate", groups, coder, system=SYSTEM.model_copy(update={"endpoint": endpoint}))
    assert local.messages == ()
    assert local.segments == remote.segments
    template = coder.tokenizer.apply_chat_template(
        list(remote.messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert template == "".join(coder.prompt_texts(groups[0][0].question, texts(groups[0][0].passages)))


@pytest.mark.parametrize("engine", [SeparateEngine, TreeEngine])
@pytest.mark.parametrize("strategy", ["concatenate", "reorder", "self_route"])
def test_every_strategy_runs_on_a_model(tiny_llama: Any, engine: Any, strategy: str) -> None:
    """A random model never declines, so the first try of self_route is final."""
    groups = [[ask("a", 0, 0), ask("b", 0, 0, 1, 2)], [ask("c", 1, 2, 1, 0)]]
    found = answered(strategy, groups, engine(tiny_llama, frozenset({2}), 4, 2))
    assert {one.route for one in found.values()} == ({"few"} if strategy == "self_route" else {""})
    for group in groups:
        for one in group:
            assert found[one.key].prompt_tokens == length(one, 2 if strategy == "self_route" else None)
            assert 0 < found[one.key].output_tokens <= 4
            assert found[one.key].output


# two tries


def test_a_question_answered_from_few_passages_is_asked_once() -> None:
    reader, one = Reader(), ask("a", 1, 0, 1, 2, 3)
    found = answered("self_route", [[one]], reader)["a"]
    assert (found.output, found.route, found.calls) == ("1802", "few", 1)
    assert (found.prompt_tokens, found.output_tokens, found.seconds) == (length(one, 2), 7, 2)
    assert "Cyra" not in reader.asked[0]


def test_a_declined_question_is_asked_with_all_passages_and_both_calls_count() -> None:
    """Two passages first (2 s), then all four (4 s)."""
    reader, one = Reader(), ask("a", 3, 0, 1, 2, 3)
    found = answered("self_route", [[one]], reader)["a"]
    assert (found.output, found.route, found.calls, found.confidence) == ("1804", "all", 2, -0.5)
    assert (found.prompt_tokens, found.output_tokens, found.seconds) == (length(one, 2) + length(one), 14, 6)


def test_a_context_of_few_passages_is_asked_once_even_if_declined() -> None:
    reader = Reader()
    found = answered("self_route", [[ask("a", 3, 0, 1), ask("b", 3, 0), ask("c", 0, 0, 1)]], reader)
    assert [(found[key].route, found[key].calls) for key in "abc"] == [("all", 1), ("all", 1), ("few", 1)]
    assert len(reader.asked) == 3


def test_the_first_try_of_a_sweep_is_asked_once() -> None:
    """Counts 2, 3 and 4 begin with the same two passages; the town stands third, so 3 and 4 go on to their all."""
    reader = Reader()
    found = answered("self_route", [[ask("a", 2, 0, 1), ask("b", 2, 0, 1, 2), ask("c", 2, 0, 1, 2, 3)]], reader)
    assert len(reader.asked) == 3
    assert [(found[key].output, found[key].calls, found[key].seconds) for key in "abc"] == [
        ("the passages do not say", 1, 2),
        ("1803", 2, 5),
        ("1803", 2, 6),
    ]


def test_without_passages_there_is_nothing_to_route() -> None:
    found = answered("self_route", [[ask("a", 3)]], Reader())["a"]
    assert (found.route, found.calls) == ("", 1)


def test_a_failed_try_is_not_taken_for_a_declined_one() -> None:
    found = answered("self_route", [[ask("a", 3, 0, 1, 2, 3)]], Reader(broken="Dunn founded"))["a"]
    assert (found.failure, found.route, found.calls) == ("it broke", "", 1)


def test_a_failed_second_try_is_a_failure_with_the_costs_of_both() -> None:
    found = answered("self_route", [[ask("a", 3, 0, 1, 2, 3)]], Reader(broken="The town of Dunn"))["a"]
    assert (found.failure, found.route, found.calls, found.seconds) == ("it broke", "all", 2, 6)


def test_routing_yields_batch_by_batch() -> None:
    """After the first batch is taken, nothing of the second has been asked."""
    reader = Reader()
    groups = [[ask("a", 3, 0, 1, 2, 3)], [ask("b", 0, 0, 1, 2, 3)], [ask("c", 1, 0, 1, 2, 3)]]
    batches = answer("self_route", groups, encoder(style="answer"), reader, system=SYSTEM, batch_size=1)
    assert [one.key for one in next(batches)] == ["a"]
    assert len(reader.asked) == 2


@pytest.mark.parametrize("style", ["answer", "reasoning", "self_reasoning"])
def test_every_style_offers_declining_where_passages_are_shown(style: str) -> None:
    """Self-Route's router is that offer."""
    coder = encoder(style=style)
    assert coder.settings.abstention in "".join(coder.prompt_texts("Who?", [passage(0)]))
