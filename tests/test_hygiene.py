"""Splits by group. What counts as the same question or passage is in test_duplicates.py."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_builders.hygiene.settings import SplitsSettings
from data_builders.hygiene.splits import Asked, asked, assign_splits, nearest_sum
from data_builders.manifest import Tally
from data_builders.records import Passage, Question

DATA = Path(__file__).parents[2] / "shared/data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real sets of ../shared/data are not on this machine")


def split_of(questions, tally=None, seed=1, near_duplicate=0.9, **wanted):
    return assign_splits(questions, SplitsSettings(**wanted), near_duplicate, seed, tally or Tally())


def about(name, *documents, split="", titles=()):
    """A question of words of its own, so that only documents and titles join it to others."""
    return Asked(name, f"{name}alpha {name}beta {name}gamma", (), split, documents, titles)


class TestSettings:
    def test_shares_above_one_say_what_to_lower(self):
        with pytest.raises(ValidationError, match=r"validation 0\.5 and test 0\.6 .* lower one of them"):
            SplitsSettings(validation=0.5, test=0.6)

    def test_settings_import_nothing_heavy(self):
        code = (
            "import sys, data_builders.hygiene.settings; print([m for m in ('numpy', 'pyarrow') if m in sys.modules])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


class TestNearestSum:
    @pytest.mark.parametrize(
        ("sizes", "wanted", "expected"),
        [
            ([1, 1, 1, 1], 2, {0, 1}),  # early ones first
            ([6, 5, 5, 9], 10, {1, 2}),  # exactly, where taking the first that fit would give 6 or 11
            ([30, 30, 30], 3, {0}),  # at least one
            ([50, 20, 30], 3, {1}),  # the smallest, where every one is too much
            ([40, 60], 50, {1}),  # two sums as near as each other: the larger
            ([7], 3, set()),  # one at least is left
            ([3, 3], 6, {0}),
            ([5, 5], 0, set()),
        ],
    )
    def test_hand_worked_sums(self, sizes, wanted, expected):
        assert nearest_sum(sizes, wanted) == expected

    @given(st.lists(st.integers(1, 12), min_size=2, max_size=8), st.floats(0.1, 60))
    def test_no_other_choice_is_nearer(self, sizes, wanted):
        chosen = nearest_sum(sizes, wanted)
        choices = [c for n in range(1, len(sizes)) for c in combinations(range(len(sizes)), n)]
        best = min(abs(sum(sizes[i] for i in choice) - wanted) for choice in choices)
        assert abs(sum(sizes[i] for i in chosen) - wanted) == best


class TestSplits:
    def test_questions_of_one_document_or_title_stay_together(self):
        questions = [
            about("a", "d1"),
            about("b", "d1", "d2"),
            about("c", "d2", titles=("paris",)),
            about("d", "d3", titles=("paris",)),
            about("e", "d4"),
            about("f", "d5"),
        ]
        for seed in range(20):
            splits = split_of(questions, seed=seed, test=0.4)
            assert len(set(splits[:4])) == 1  # a-b by d1, b-c by d2, c-d by Paris: one group of four
            assert splits.count("test") == 2  # 2.4 wanted: e and f, since four is further away
        assert len({tuple(split_of(questions, seed=seed, test=0.2)) for seed in range(20)}) > 1

    def test_a_key_that_is_not_asked_for_joins_nothing(self):
        questions = [about(f"q{i}", "same", titles=("same",)) for i in range(10)]
        assert split_of(questions, by=("question",), test=0.3).count("test") == 3
        tally = Tally()
        assert split_of(questions, tally, by=("document",), test=0.3).count("test") == 0
        assert '10 of them stay together (10 share a gold document "same")' in tally.advice[0]
        assert "data.splits.by" in tally.advice[0]

    def test_few_questions_that_share_nothing_are_no_reason_for_advice(self):
        tally = Tally()
        split_of([about(f"q{i}", f"d{i}") for i in range(5)], tally, test=0.1)
        assert tally.advice == []

    def test_near_duplicate_questions_stay_together(self):
        wording = "when was the old bridge over the river in the town of {} built"
        questions = [Asked(f"q{i}", wording.format("Lom" if i % 2 else "Tarn"), documents=(f"d{i}",)) for i in range(8)]
        for seed in range(5):
            splits = split_of(questions, seed=seed, test=0.5)
            assert len(set(splits[::2])) == len(set(splits[1::2])) == 1
            assert splits.count("test") == 4

    def test_shares_are_hit_and_the_test_does_not_depend_on_the_validation_share(self):
        questions = [about(f"q{i}", f"d{i // 3}") for i in range(300)]
        splits = split_of(questions, test=0.1, validation=0.2)
        assert [splits.count(name) for name in ("test", "validation", "train")] == [30, 60, 210]
        other = split_of(questions, test=0.1)
        assert [s == "test" for s in splits] == [s == "test" for s in other]

    def test_everything_may_be_held_out(self):
        questions = [about(f"q{i}") for i in range(10)]
        assert set(split_of(questions, test=1.0)) == {"test"}
        both = split_of(questions, test=0.3, validation=0.7)
        assert (both.count("test"), both.count("validation")) == (3, 7)

    def test_the_order_of_the_questions_does_not_matter(self):
        questions = [about(f"q{i}", f"d{i % 17}", f"e{i % 11}") for i in range(40)]
        questions += [about(f"f{i}", f"d{i}", split="train") for i in range(3)]
        forward = dict(zip([q.id for q in questions], split_of(questions), strict=True))
        backward = dict(zip([q.id for q in questions[::-1]], split_of(questions[::-1]), strict=True))
        assert forward == backward

    def test_a_group_follows_the_strictest_split_a_source_names(self):
        questions = [
            about("a", "d1"),
            about("b", "d1", "d2"),
            about("c", "d2", split="test"),
            about("d", "d3"),
            about("e", "d3", split="train"),
            about("f", "d4"),
            about("g", "d4", split="validation"),
            about("h", "d5", split="train"),
        ]
        tally = Tally()
        assert split_of(questions, tally, test=0.0) == [
            "test", "test", "test", "train", "train", "validation", "validation", "train",
        ]  # fmt: skip
        assert tally.counts["questions that follow test of their group"] == 2
        assert not tally.dropped

    def test_followers_count_towards_the_share(self):
        questions = [about("fixed", "d0", split="test"), about("follower", "d0")]
        questions += [about(f"q{i}") for i in range(9)]
        splits = split_of(questions, test=0.2)  # of 10 without a split: the follower and one more
        assert splits.count("test") == 3

    def test_named_training_questions_that_touch_the_test_are_left_out_directly_only(self):
        questions = [
            about("held", "d1", split="test"),
            about("leak", "d1", "d2", split="train"),
            about("kept", "d2", "d3", split="train"),  # shares d2 with a training question only
        ]
        tally = Tally()
        assert split_of(questions, tally) == ["test", "", "train"]
        assert dict(tally.dropped) == {"train questions that share a gold document with test": 1}
        assert tally.samples["train questions that share a gold document with test"] == ["leak"]
        assert "data.splits.given: keep" in tally.advice[0]
        tally = Tally()
        assert split_of(questions, tally, given="keep") == ["test", "train", "train"]
        assert tally.counts["train questions that share a gold document with test, kept"] == 1
        assert not tally.dropped

    def test_a_bridge_between_named_splits_goes_to_the_test_and_its_training_side_is_left_out(self):
        questions = [
            about("held", "d1", split="test"),
            about("bridge", "d1", "d2"),
            about("seen", "d2", split="train"),
        ]
        assert split_of(questions) == ["test", "test", ""]

    def test_validation_that_touches_the_test_is_counted_and_kept(self):
        questions = [about("t", "d1", split="test"), about("v", "d1", split="validation")]
        tally = Tally()
        assert split_of(questions, tally) == ["test", "validation"]
        assert tally.counts["validation questions that share a gold document with test, kept"] == 1

    def test_keys_come_from_the_gold_passages(self):
        question = Question("q", "Who?", ("x",), ("p1", "p2"), source="mine")
        gold = [Passage("p1", "Old  Town", "..", "a.pdf"), Passage("p2", "", "..")]
        found = asked(question, gold)
        assert found.titles == ("old town",)
        assert found.documents == ("mine\x1fa.pdf", "mine\x1fp2")  # without a document, the passage stands for it

    def test_no_questions_give_no_splits(self):
        assert split_of([]) == []
