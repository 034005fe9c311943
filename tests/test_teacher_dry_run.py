"""What labels of a teacher would cost, told without asking it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from label_teachers import honest, replying
from openai_server import Server, serving
from taught import KEY, data, recipe

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_FT_TEST_KEY", KEY)


@pytest.fixture
def teacher() -> Iterator[Server]:
    with serving(Server(replying(honest))) as server:
        yield server


@pytest.mark.usefixtures("tiny")
class TestDryRun:
    def test_a_dry_run_builds_what_is_free_prices_the_rest_and_asks_nothing(
        self, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        prices = {"input_price": 1.0, "output_price": 10.0, "max_tokens": 1000}
        path = recipe(tmp_path, teacher, endpoint=prices)
        code, out, _ = run_verb("build", path, "--dry-run")
        assert code == 0
        assert not teacher.bodies
        assert (data(tmp_path) / "contexts/manifest.json").is_file()
        assert not (data(tmp_path) / "labels").exists()
        (line,) = (line for line in out.splitlines() if "still to be asked for" in line)
        assert "20 calls" in line
        assert "at most 20,000 written" in line
        assert run_verb("build", path)[0] == 0
        characters = sum(len(body["messages"][0]["content"]) for body in teacher.bodies)
        tokens = int(re.search(r"([\d,]+) prompt tokens", line).group(1).replace(",", ""))  # type: ignore[union-attr]
        assert tokens == pytest.approx(characters / 3.5, abs=20)
        assert "labels still to be asked for: 0 calls" in run_verb("build", path, "--dry-run")[1]

    @pytest.mark.parametrize(("attempts", "told"), [(1, False), (2, True)])
    def test_a_price_says_that_what_cannot_be_read_is_asked_for_again(
        self, attempts: int, told: bool, tmp_path: Path, teacher: Server, run_verb: Verb
    ) -> None:
        _, out, _ = run_verb("build", recipe(tmp_path, teacher, attempts=attempts), "--dry-run")
        assert (f"up to {attempts} calls for a label that cannot be read" in out) == told

    def test_a_dry_run_never_deletes(self, tmp_path: Path, teacher: Server, run_verb: Verb) -> None:
        path = recipe(tmp_path, teacher)
        kept = data(tmp_path).parent / "training" / "metrics.jsonl"
        kept.parent.mkdir(parents=True)
        kept.write_text("{}\n")
        code, _, err = run_verb("build", path, "--dry-run", "--restart")
        assert (code, kept.exists()) == (2, True)
        assert "give one of them" in err
