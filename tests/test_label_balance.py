"""Gates that turn away more answers than abstentions do not teach a model to decline more often than was asked for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from data_builders.labels.balance import Surplus, balanced, surplus
from data_builders.manifest import Tally
from data_builders.records import ContextQuestion, ContextRow, Label, Passage


@pytest.mark.parametrize(
    ("kept", "bound", "found"),
    [
        ((80, 18), 0.1, None),  # 18.4 % decline, 20 % were to
        ((80, 4), 0.1, Surplus(False, 36)),  # 4.8 %, at least 10 %: 4 in 40
        ((10, 20), 0.1, Surplus(True, 4)),  # 67 %, at most 30 %: 4 in 14, as 5 in 15 are 33 %
        ((10, 20), 0.0, Surplus(True, 2)),  # 2 in 12 are 17 %, 3 in 13 are 23 %
        ((40, 10), 0.0, None),
        ((70, 30), 0.1, None),  # just within
        ((70, 31), 0.1, Surplus(True, 30)),
        ((80, 4), 0.3, None),
        ((0, 20), 0.1, None),  # nothing that they could be balanced with
        ((20, 0), 0.1, None),
    ],
)
def test_as_many_stay_as_the_bound_allows(kept: tuple[int, int], bound: float, found: Surplus | None) -> None:
    assert surplus((80, 20), kept, bound) == found


def test_where_one_kind_only_was_asked_for_nothing_is_out_of_balance() -> None:
    assert surplus((80, 0), (80, 0), 0.0) is None
    assert surplus((0, 20), (0, 3), 0.0) is None


def asked(number: int, declines: bool, source: str = "teacher") -> ContextQuestion:
    label = Label((), (), "", None if declines else "x")
    return ContextQuestion(f"q{number}", "?", ("x",), not declines, (), (), (None,), label, source, "", "")


def rows(size: int) -> list[ContextRow]:
    """Return 60 questions of which every second declines, `size` to a row, and a row whose label nobody wrote."""
    questions = [asked(number, number % 2 == 0) for number in range(60)]
    parts = [questions[start : start + size] for start in range(0, 60, size)]
    made = [ContextRow("row", (Passage("p", "", "Text."),), tuple(part)) for part in parts]
    return [*made, ContextRow("free", (Passage("p", "", "Text."),), (asked(99, True, "gold"),))]


def left(found: Iterable[ContextRow]) -> list[str]:
    return [one.id for row in found for one in row.questions]


def test_those_left_out_are_drawn_by_the_seed_and_nothing_else() -> None:
    tally, found = Tally(), Surplus(True, 7)
    stays = left(balanced(lambda: rows(1), found, 1, tally))
    assert len(stays) == 30 + 7 + 1
    assert stays == sorted(stays, key=lambda name: int(name[1:]))
    assert {f"q{number}" for number in range(1, 60, 2)} | {"q99"} <= set(stays)
    assert tally.dropped == {"abstentions that would outweigh the others (data.labels.balance)": 23}
    assert left(balanced(lambda: rows(5), found, 1, Tally())) == stays
    assert set(left(balanced(lambda: rows(5)[::-1], found, 1, Tally()))) == set(stays)
    assert set(left(balanced(lambda: rows(5), found, 2, Tally()))) != set(stays)


def test_a_row_that_loses_its_last_question_is_left_out() -> None:
    found = list(balanced(lambda: rows(1), Surplus(False, 0), 1, Tally()))
    assert all(row.questions for row in found)
    assert len(found) == 31
