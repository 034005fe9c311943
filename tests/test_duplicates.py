"""Near-duplicate questions, repeated texts, decontamination. Splits are in test_hygiene.py."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.hygiene import questions as joins
from data_builders.hygiene.decontamination import Fingerprints, contaminations, ngram_hashes
from data_builders.hygiene.duplicates import duplicate_of, repeated_questions
from data_builders.hygiene.forms import question_form
from data_builders.hygiene.questions import near_duplicate_groups
from data_builders.hygiene.settings import HygieneSettings
from data_builders.hygiene.splits import Asked
from data_builders.manifest import Tally
from data_builders.records import Passage, Question, Ranking
from data_builders.text import answer_tokens

DATA = Path(__file__).parents[2] / "shared/data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real sets of ../shared/data are not on this machine")


def jaccard(one, other):
    return len(one & other) / len(one | other)


def groups_by_hand(sets, threshold):
    """Connected components of the graph of all similar pairs, by flooding."""
    labels = list(range(len(sets)))
    for start in range(len(sets)):
        reached, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            near = {i for i, other in enumerate(sets) if jaccard(sets[here], other) >= threshold}
            waiting += near - reached
            reached |= near
        labels[start] = min(reached)
    return labels


WORDS = ["red", "blue", "green", "1999", "서울", "고양이", "مدينة", "東京", "где", "кто", "über", "x"]


class TestNearDuplicates:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.sets(st.sampled_from(WORDS), min_size=1), max_size=20),
        st.sampled_from([0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0]),
        st.sampled_from([1, 3, 20, 700]),
        st.sampled_from([100, 1 << 22]),
    )
    def test_groups_are_those_of_all_pairs(self, sets, threshold, subsets, hashes):
        """At every depth of the filter, from single words (1) to whole sets (700), in one part and in many."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joins, "_SUBSETS", subsets)
            patch.setattr(joins, "_HASHES_AT_ONCE", hashes)
            found = near_duplicate_groups([" ".join(sorted(words)) for words in sets], threshold)
        assert found.tolist() == groups_by_hand([set(answer_tokens(" ".join(words))) for words in sets], threshold)

    def test_similarity_at_the_threshold_counts(self):
        nine = "one two three four five six seven eight nine"
        assert near_duplicate_groups([nine, f"{nine} ten"], 0.9).tolist() == [0, 0]  # 9 of 10
        assert near_duplicate_groups([nine, f"{nine} ten"], 0.91).tolist() == [0, 1]

    def test_chains_are_one_group(self):
        texts = ["ab bb cc dd", "bb cc dd ee", "cc dd ee ff", "zz yy"]  # neighbours share 3 of 5, the outer two 2 of 6
        assert near_duplicate_groups(texts, 0.6).tolist() == [0, 0, 0, 3]

    def test_questions_without_words_are_compared_as_they_are(self):
        assert near_duplicate_groups(["???", "!!", "???", "12345678?", ""], 0.9).tolist() == [0, 1, 0, 3, 4]

    @pytest.mark.parametrize(("threshold", "words"), [(0.9, 37), (0.8, 26)])
    def test_a_shared_hash_is_proof_up_to_the_sizes_the_page_names(self, threshold, words):
        def is_proof(size):
            need = joins._least_shared(size, size, threshold)
            return joins._depth(size - need, need) == need

        assert all(is_proof(size) for size in range(1, words + 1))
        assert not is_proof(words + 1)

    def test_questions_of_one_template_are_done_in_seconds(self):
        """Every pair shares five of six words, so lists of single words would hold five million pairs."""
        names = [f"{a}{b}{c}" for a in "bdgklmnprst" for b in "aeiou" for c in "bdgklmnprst"]
        questions = [f"What is the altitude of {names[i % 605]} {names[i // 605]}berg?" for i in range(20000)]
        assert near_duplicate_groups(questions, 0.8).tolist() == list(range(20000))


class TestRepeatedTexts:
    def test_passages_are_the_same_up_to_case_width_and_spacing(self):
        texts = ["Old Town.", "new town", " old\u00a0 TOWN. ", "Old Town", "ＮＥＷ\ntown", "old town."]  # noqa: RUF001
        assert list(duplicate_of(texts)) == [0, 1, 0, 3, 1, 0]

    @given(st.lists(st.integers(0, 40), max_size=60))
    def test_the_first_of_equal_texts_is_named_in_any_order_of_blocks(self, numbers):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("data_builders.hygiene.duplicates._BLOCK", 4)
            found = list(duplicate_of(str(number) for number in numbers))
        assert found == [numbers.index(number) for number in numbers]

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("Who won?", "who won", True),
            ("Who  won (really)?", "who won really", True),
            ("수도는 어디입니까?", "수도는 어디입니까？", True),  # noqa: RUF001
            ("北京在哪里？", "北京在哪里", True),  # noqa: RUF001
            ("What is C++?", "What is C?", False),
            ("What is C#?", "What is C?", False),
            ("What is 5 - 3?", "What is 5 + 3?", False),
            ("Who beat France?", "France beat who?", False),
            ("???", "!!!", False),
        ],
    )
    def test_questions_are_the_same_up_to_sentence_marks(self, one, other, same):
        assert (question_form(one) == question_form(other)) is same

    def test_repeated_questions_are_counted_by_whether_their_answers_agree(self):
        tally = Tally()
        questions = [
            Asked("a", "Who won?", ("Ann",)),
            Asked("b", "who won", ("ANN.", "Ann Lee")),
            Asked("c", "Who won?", ("Bob",)),
            Asked("d", "Who lost?", ("Bob",)),
        ]
        assert repeated_questions(questions, tally) == [False, True, True, False]
        assert dict(tally.dropped) == {"questions asked twice": 1, "questions asked twice with other answers": 1}
        assert tally.samples["questions asked twice with other answers"] == ["c"]

    def test_of_repeated_questions_the_one_in_the_test_is_kept(self):
        tally = Tally()
        splits = ["", "train", "validation", "test", "test"]
        questions = [Asked(f"q{i}", "Who won?", ("Ann",), split) for i, split in enumerate(splits)]
        assert repeated_questions(questions, tally) == [True, True, True, False, True]
        assert dict(tally.dropped) == {"questions asked twice, in two splits": 3, "questions asked twice": 1}


TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
HELD = HygieneSettings()


def reasons(records, settings=HELD, questions=("Who built the old bridge of Lom?",), texts=(TEXT,)):
    return list(contaminations(records, {"dev": Fingerprints.of(questions, texts, settings)}, settings))


class TestDecontamination:
    def test_reasons_by_hand(self):
        words = TEXT.split()
        found = reasons(
            [
                ("who built the old bridge of Lom", ()),
                ("The old bridge of Lom: who built?", ()),  # the same words in another order
                ("Who built the old bridge of Tarn?", ()),  # 6 words shared of 8
                ("Something else", [" ".join(words[1:14]) + " and on"]),  # 13 in a row
                ("Something else", [" ".join(words[1:13]) + " and on"]),  # 12 in a row
                ("Something else", ["Nothing shared.", "So, TWO three: " + " ".join(words[3:])]),  # marks do not count
                ("Something else", [" ".join(words[::-1])]),
            ]
        )
        assert found == [
            "the same question is in dev",
            "near-duplicate question in dev",
            "",
            "gold passage shares 13 words with one of dev",
            "",
            "gold passage shares 13 words with one of dev",
            "",
        ]

    def test_threshold_and_ngram_are_settings(self):
        close = ("Who built the very old bridge of Lom?", ["three four five six seven"])
        assert reasons([close]) == [""]  # 6 of 7 words
        assert reasons([close], HygieneSettings(near_duplicate=0.85)) == ["near-duplicate question in dev"]
        assert reasons([close], HygieneSettings(ngram=5)) == ["gold passage shares 5 words with one of dev"]
        assert reasons([close], HygieneSettings(ngram=5, passages=False)) == [""]

    def test_short_passages_are_compared_whole(self):
        short = "Lom is a small town."
        assert reasons([("x", ["lom is small town"])], texts=[short]) == [
            "gold passage shares 13 words with one of dev"
        ]
        assert reasons([("x", [f"{short} It is old."]), ("x", ["Lom is"]), ("x", [""])], texts=[short, ""]) == [
            "",
            "",
            "",
        ]

    def test_the_first_evaluation_set_that_holds_it_is_named(self):
        against = {name: Fingerprints.of([question], (), HELD) for name, question in [("a", "Who won?"), ("b", "Why?")]}
        assert list(contaminations([("why", ()), ("who won", ()), ("when", ())], against, HELD)) == [
            "the same question is in b", "the same question is in a", "",
        ]  # fmt: skip

    def test_a_source_gives_its_held_out_questions_and_their_gold_passages_in_any_order(self):
        records = [
            Passage("gold", "", TEXT),
            Question("q1", "Who won?", (), ("gold",), split="test"),
            Ranking("q1", "bm25", ("gold",), (1.0,)),
            Question("q2", "Who lost?", (), ("other",), split="train"),
            Passage("other", "", "a passage of the training split " * 5),
        ]
        held = Fingerprints.of_source(lambda: iter(records), HELD)
        assert held.contaminated("Who won", (), HELD) == "the same question is in it"
        assert held.contaminated("Who lost", (records[-1].text,), HELD) == ""
        assert held.contaminated("Why", (TEXT,), HELD) != ""

    @given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
    def test_ngram_hashes_meet_where_ngrams_do(self, one, other):
        def ngrams(tokens):
            width = min(4, len(tokens))
            return {tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)} - {()}

        assert bool({*ngram_hashes(one, 4)} & {*ngram_hashes(other, 4)}) is bool(ngrams(one) & ngrams(other))

    def test_blocks_do_not_change_the_reasons(self):
        records = [(f"Who built the old bridge of {'Lom' if i % 3 else i}?", [TEXT] * (i % 2)) for i in range(10)]
        whole = reasons(records)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("data_builders.hygiene.decontamination._BLOCK", 3)
            assert reasons(records) == whole


def test_results_do_not_depend_on_hash_randomisation():
    code = (
        "from data_builders.hygiene.splits import *\n"
        "from data_builders.hygiene.questions import *\n"
        "from data_builders.hygiene.decontamination import *\n"
        "q = [Asked(f'q{i}', f'who met number {i % 50} near the old bridge of Lom', documents=(f'd{i % 70}',))"
        " for i in range(200)]\n"
        "print(assign_splits(q, SplitsSettings(), 0.9, 1, Tally()))\n"
        "print(near_duplicate_groups([x.question for x in q], 0.8).tolist(), ngram_hashes(['a', 'b'], 1).tolist())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert outputs[0].stdout == outputs[1].stdout


def squad(name):
    with gzip.open(DATA / name, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["question"], [passage["text"] for passage in row["passages"] if passage["is_gold"]]


@real_data
def test_articles_apart_leave_little_in_common():
    """SQuAD split by article: what is found is what a count with Python's own sets finds."""
    held = list(squad("dev/squad11_dev_bm25.jsonl.gz"))
    train = list(squad("train/squad11_train_bm25.jsonl.gz"))[:1000]
    loose = HygieneSettings(near_duplicate=0.8)
    known = Fingerprints.of((q for q, _ in held), (text for _, texts in held for text in texts), loose)
    found = Counter(reason for reason in contaminations(train, {"dev": known}, loose) if reason)

    def ngrams(texts):
        tokens = [answer_tokens(text) for text in texts]
        return {tuple(one[i : i + 13]) for one in tokens for i in range(max(1, len(one) - 12))}

    words = [set(answer_tokens(question)) for question, _ in held]
    asked_for = [set(answer_tokens(question)) for question, _ in train]
    alike = [any(len(one & other) >= 0.8 * len(one | other) for other in words) for one in asked_for]
    there = ngrams(text for _, texts in held for text in texts)
    shared = [bool(ngrams(texts) & there) and not near for near, (_, texts) in zip(alike, train, strict=True)]
    assert sum(count for reason, count in found.items() if "question" in reason) == sum(alike)
    assert found["gold passage shares 13 words with one of dev"] == sum(shared)
