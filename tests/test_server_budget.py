"""A budget stops in time, and what a job would cost is said before it begins."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Thread

import pytest
from openai_server import Reply, Server, serving
from test_server_store import call, done, echo, teacher

from data_builders.errors import RagFtError
from data_builders.servers import Call
from data_builders.servers.budget import BudgetSpentError, Spending, Tokens, price_of
from data_builders.servers.job import not_kept, teacher_job

# budget: each call below holds 30 / 3 + 16 = 26 tokens while it is under way and takes 7 + 3 = 10


def thirty(number: int) -> Call:
    return call(f"{number}", f"{number:030d}")


def test_a_budget_stops_before_the_call_that_could_go_beyond_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=1, max_tokens=16, budget={"tokens": 100})
        found: list[str] = []
        words = r"endpoint\.budget\.tokens=100.*8 calls answered \(56 tokens read"
        with pytest.raises(BudgetSpentError, match=words):
            found.extend(asked.key for asked, _ in teacher_job(settings, path, print)(map(thirty, range(12))))
        assert len(found) == 8  # after n calls 10 n are used: 10 x 7 + 26 <= 100 < 10 x 8 + 26
        assert len(server.bodies) == 8
        assert len(done(settings, path, map(thirty, range(12)))) == 12
    assert set(server.tries.values()) == {1}
    assert len(server.bodies) == 12


def test_calls_under_way_together_stay_within_the_budget_and_use_it(tmp_path: Path) -> None:
    with serving(Server(echo, needs=2)) as server:  # answers nobody before two are under way
        settings = teacher(server, concurrency=6, max_tokens=16, budget={"tokens": 60})
        found: list[str] = []
        with pytest.raises(BudgetSpentError):
            found.extend(asked.key for asked, _ in teacher_job(settings, tmp_path / "r", print)(map(thirty, range(9))))
    assert server.most == 2  # 3 x 26 > 60
    assert len(server.bodies) == 4  # 10 x 3 + 26 <= 60 < 10 x 4 + 26


def test_a_budget_in_money_is_reckoned_by_the_prices(tmp_path: Path) -> None:
    prices = {"input_price": 100_000.0, "output_price": 1_000_000.0}  # a call: 0.7 + 3; held: 1 + 16
    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=1, max_tokens=16, budget={"money": 25.0}, **prices)
        with pytest.raises(BudgetSpentError, match=r"endpoint\.budget\.money=25,.*, 11\.10 by the prices given"):
            done(settings, tmp_path / "replies.sqlite", map(thirty, range(9)))
    assert len(server.bodies) == 3  # 3.7 x 2 + 17 <= 25 < 3.7 x 3 + 17


def test_a_server_that_does_not_count_is_reckoned_by_length(tmp_path: Path) -> None:
    with serving(Server(lambda messages, body: Reply("x" * 30, usage=False))) as server:
        settings = teacher(server, concurrency=1, max_tokens=16, budget={"tokens": 66})
        with pytest.raises(BudgetSpentError, match="about 30 tokens read and 30 written"):
            done(settings, tmp_path / "replies.sqlite", map(thirty, range(9)))
    assert len(server.bodies) == 3  # 20 x 2 + 26 <= 66 < 20 x 3 + 26


def test_tries_without_an_answer_count_as_they_might_have_cost(tmp_path: Path) -> None:
    with serving(Server(echo, lambda messages, tries: None if tries else "reset")) as server:
        settings = teacher(server, concurrency=1, max_tokens=16, budget={"tokens": 51})
        with pytest.raises(BudgetSpentError, match="0 calls answered"):
            done(settings, tmp_path / "replies.sqlite", [thirty(1)])
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"max_tokens": 64}, 3),  # 10 x 2 + 74 <= 100 < 10 x 3 + 74
        ({"max_completion_tokens": 64}, 3),
        ({"max_tokens": 32, "n": 2}, 3),
        ({"top_k": 64}, 8),
    ],
)
def test_a_longer_answer_that_further_fields_allow_counts(fields: dict[str, int], calls: int, tmp_path: Path) -> None:
    with serving(Server(echo)) as server:
        settings = teacher(server, concurrency=1, max_tokens=16, budget={"tokens": 100}, extra_body=fields)
        with pytest.raises(BudgetSpentError):
            done(settings, tmp_path / "replies.sqlite", map(thirty, range(12)))
    assert len(server.bodies) == calls
    assert price_of([thirty(1)], settings).output_tokens == (16 if "top_k" in fields else 64)


def test_money_without_prices_is_refused_before_any_call(tmp_path: Path) -> None:
    with pytest.raises(RagFtError, match=r"Set endpoint\.input_price and endpoint\.output_price"):
        teacher_job(teacher(budget={"money": 5.0}, input_price=1.0), tmp_path / "replies.sqlite", print)


# what it would cost


def test_a_job_is_priced_from_its_real_prompts(tmp_path: Path) -> None:
    settings = teacher(max_tokens=100, input_price=2.0, output_price=10.0)
    calls = [call("a", "one two three"), call("b", "four five")]
    counted = price_of(iter(calls), settings, lambda text: len(text.split()))
    assert (counted.calls, counted.prompt_tokens, counted.output_tokens, counted.counted) == (2, 5, 200, True)
    assert counted.money == pytest.approx((5 * 2 + 200 * 10) / 1e6)
    guessed = price_of([call("a", "x" * 35)], settings)
    assert (guessed.prompt_tokens, guessed.counted) == (10, False)
    assert "about 10 prompt tokens (estimated: 3.5 bytes to a token)" in guessed.told()
    assert price_of(calls, teacher()).money is None
    assert "no prices given" in price_of(calls, teacher()).told()


def test_a_job_that_was_begun_is_priced_by_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    assert [asked.key for asked in not_kept(map(call, "ab"), teacher(), path)] == ["a", "b"]
    assert not path.exists()
    with serving(Server(echo)) as server:
        done(teacher(server), path, map(call, "ab"))
    assert price_of(not_kept(map(call, "abcd"), teacher(), path), teacher()).calls == 2


@pytest.mark.parametrize("text", ["등대는 언제 세워졌는가? " * 20, "灯台はいつ建てられたか" * 20])
def test_letters_of_other_scripts_cost_about_a_token_each(text: str, tmp_path: Path) -> None:
    guessed = price_of([call("a", text)], teacher(max_tokens=16))
    letters = len(text.replace(" ", ""))
    assert 0.7 * letters < guessed.prompt_tokens < 1.2 * letters  # 0.6 to 1.1 with the tokenizers of today
    asked = [Server(lambda messages, body: Reply("x", prompt_tokens=letters, output_tokens=1))]
    with serving(asked[0]) as server:  # two at once would take more than the budget
        settings = teacher(server, concurrency=2, max_tokens=16, budget={"tokens": 2 * letters})
        with pytest.raises(BudgetSpentError):
            done(settings, tmp_path / "replies.sqlite", [call(str(number), f"{text}{number}") for number in range(5)])
    assert len(server.bodies) == 1


def test_jobs_beside_one_another_share_a_budget() -> None:
    spending, one = Spending(), Tokens(2, 3)

    def spend() -> None:
        for _ in range(4000):
            assert spending.hold(one)
            spending.release(one, one)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [Thread(target=spend) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (spending.held, spending.used) == (Tokens(0, 0), Tokens(32_000, 48_000))
