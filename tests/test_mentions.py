"""Mentions of an answer, restated in any script."""

from __future__ import annotations

import pytest

from data_builders.hangul import fitted
from data_builders.mentions import restated


@pytest.mark.parametrize(
    ("text", "answers", "other", "wanted"),
    [
        (
            "New York City, New York; Yorkshire.",
            ["York", "New York", "New York City"],
            "Rome",
            "Rome, Rome; Yorkshire.",
        ),
        ("NEW\nYORK's", ["New York"], "Rome", "Rome's"),
        ("3 of 3.5, 13, 3,000 and 3.", ["3"], "4", "4 of 3.5, 13, 3,000 and 4."),
        ("No mention.", ["Rome"], "Paris", "No mention."),
        ("No answer.", ["", " "], "Paris", "No answer."),
        ("서울은 수도이고, 서울에서는 서울로", ["서울"], "파리", "파리는 수도이고, 파리에서는 파리로"),
        (
            "파리는, 파리가, 파리를, 파리와, 파리로, 파리였다",
            ["파리"],
            "부산",
            "부산은, 부산이, 부산을, 부산과, 부산으로, 부산이었다",
        ),
        ("파리로, 파리로부터", ["파리"], "서울", "서울로, 서울로부터"),
        ("서울대학교는 서울들의", ["서울"], "파리", "서울대학교는 파리들의"),
        ("서울특별시는", ["서울 특별시"], "부산", "부산은"),
        ("1990은 1990년에", ["1990"], "1992", "1992는 1992년에"),
        ("1990년은, 1990년대", ["1990년"], "1991년", "1991년은, 1990년대"),
        ("NASA는 KNASA", ["NASA"], "대한민국", "대한민국은 KNASA"),
        ("서울은", ["서울"], "NASA", "NASA은"),
        ("東京は日本の首都", ["東京"], "大阪", "大阪は日本の首都"),
    ],
)
def test_mentions_are_restated_and_other_words_left(text: str, answers: list[str], other: str, wanted: str) -> None:
    assert restated(text, answers, other) == wanted


@pytest.mark.parametrize(
    ("particles", "word", "wanted"),
    [
        ("은", "파리", "는"),
        ("으로부터", "서울", "로부터"),
        ("로", "부산", "으로"),
        ("이라는", "파리", "라는"),
        ("에서는", "파리", "에서는"),  # the second particle follows the first, not the word
        ("들은", "사자", "들은"),
        ("가", "10", "이"),
        ("", "서울", ""),
    ],
)
def test_particles_take_the_form_the_word_asks_for(particles: str, word: str, wanted: str) -> None:
    assert fitted(particles, word) == wanted
