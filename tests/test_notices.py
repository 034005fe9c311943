"""Points that were asked for and show nothing new are named before anything is generated."""

from __future__ import annotations

from typing import Any

import pytest

from data_builders.records import Pool, PoolPassage
from rag_ft.evaluation.grid import Point, points
from rag_ft.evaluation.notices import about_noise, about_power, about_weak
from rag_ft.evaluation.settings import EvaluationSettings, SweepSettings


def pool(name: str, ranked: str, bearing: str) -> Pool:
    """A pool of one-letter passages, best first; the first of those that bear the answer is gold."""
    passages = [
        PoolPassage(f"{name}{p}", "", p, p == bearing[0], p in bearing, "bm25", rank, 1 / rank)
        for rank, p in enumerate(ranked, 1)
    ]
    return Pool(name, "Who?", ("Ada Byron",), "test", "", tuple(passages))


def asked(pools: list[Pool], **sweep: Any) -> list[list[Point]]:
    settings = EvaluationSettings(passages=(4,), gold=("kept",), sweeps=(SweepSettings(**sweep),), references=())
    return [list(points(each, settings.systems[:1], settings)) for each in pools]


def test_noise_that_takes_the_places_of_what_holds_the_answer_is_counted() -> None:
    one, three = pool("q", "abcdef", "b"), pool("r", "abcdef", "abc")
    # Of 4: noise 0 wants four with the answer, 0.25 three, 0.75 one. q has one: 3 of 4 are noise at 0 and at 0.25.
    # r has three: 1 of 4 is noise at 0. Together 7 of 12.
    [line] = about_noise(asked([one, three], passages=(4,), noise=(0.0, 0.25, 0.75)))
    assert "2 of 2 questions have too few passages with an answer for noise 0, 0.25:" in line
    assert "58 % of what they are shown there" in line
    assert "data.depth" in line


@pytest.mark.parametrize("noise", [(), (0.25, 0.75, 1.0)])
def test_noise_that_can_be_shown_needs_no_word(noise: tuple[float, ...]) -> None:
    assert about_noise(asked([pool("r", "abcdefg", "abc")], passages=(4,), noise=noise)) == []


def test_pools_that_hold_no_worse_passages_are_counted() -> None:
    small, large = pool("q", "abcd", "b"), pool("r", "abcde", "b")
    [line] = about_weak(asked([small, large], passages=(3, 4), negatives=("hard", "weak")))
    assert "1 of 2 questions are shown the same 4 passages by negatives=weak as by negatives=hard" in line
    assert about_weak(asked([large], passages=(4,), negatives=("hard", "weak"))) == []
    for gold, negatives in (("absent", ("hard", "weak")), ("kept", ("weak",))):  # no point is called hard there
        assert len(about_weak(asked([small], passages=(4,), gold=(gold,), negatives=negatives))) == 1


def test_what_questions_can_show_is_less_where_they_are_about_the_same_documents() -> None:
    apart, together = (
        about_power(100, EvaluationSettings(resample=kind), limited=False) for kind in ("question", "document")
    )
    # (1.95996 x 0.5 + 0.84162 x sqrt(0.25 - 0.138^2)) / 10 = 0.1385
    assert apart == (
        "evaluate: 100 questions show a difference of 13.8 points between two systems with a power of 80 %; "
        "smaller ones may stay hidden"
    )
    assert together == f"{apart}, and where several are about one document only larger ones are found"
