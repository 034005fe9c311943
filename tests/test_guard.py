"""The false-negative guard: answers, near-duplicates of gold, and a real (tiny, random) cross-encoder."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.guard import CrossEncoderGuard, Lookups, as_good_as_gold, guard_reasons
from data_builders.guard_settings import CrossEncoderSettings, GuardSettings
from data_builders.records import PASSAGE_SCHEMA
from data_builders.shingles import FEW, SIZE, near_duplicates, shingles
from data_builders.text import AnswerMatcher, joined

WORDS = [f"w{chr(97 + one)}{chr(97 + two)}" for one in range(20) for two in range(10)]  # waa, wab, ...: 200 words


def text(start, count, words=WORDS):
    return " ".join(words[start : start + count])


def runs(passage, size=SIZE):
    """The shingles of a passage as tuples of words, the slow way."""
    words = joined(passage).split()
    width = min(size, len(words))
    return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)} if words else set()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["aa", "bb", "cc", "서울", "3.5"]), max_size=30), st.integers(1, 13))
def test_shingles_are_the_distinct_runs_of_words(words, size):
    passage = " ".join(words)
    found = shingles(joined(passage), size)
    assert len(found) == len(runs(passage, size))
    assert found.dtype == np.uint32
    assert np.all(found[1:] > found[:-1])


def test_a_run_has_the_same_hash_wherever_it_stands_and_on_every_machine():
    """The polynomial over its bytes and the space behind them, from the power 1 on, worked out with Python integers."""
    value = sum(
        byte * pow(0x9E3779B97F4A7C15, power, 1 << 64) for power, byte in enumerate(b"one two three four 5 ", 1)
    )
    value %= 1 << 64
    value ^= value >> 32
    expected = (value * 0xD6E8FEB86659FD93 % (1 << 64)) >> 32
    assert shingles(joined("one two three four 5")).tolist() == [expected]
    assert expected in shingles(joined(f"{text(0, 90)}, one two three four 5 and more"))


@pytest.mark.parametrize(
    ("gold", "other", "expected"),
    [
        (text(0, 100), text(0, 100), True),  # a copy
        (text(0, 100), text(30, 100), True),  # 66 of 96 runs: a chunk cut 30 words later
        (text(0, 100), text(50, 100), False),  # 46 of 96
        (text(0, 100), text(20, 40), True),  # inside gold
        (text(20, 40), text(0, 100), True),  # gold is inside
        (text(0, 100), text(100, 100), False),  # nothing in common
        (text(0, 100), f"{text(0, 6)} {text(120, 3)}", False),  # short, 2 of 5 runs
        (text(0, 100), text(40, 6), True),  # short, all of it inside gold
        (text(0, 3), text(0, 3), True),  # shorter than a run, the same
        (text(0, 3), text(0, 2), False),  # shorter than a run, another
        (text(0, 100), "", False),
        ("", text(0, 100), False),
        ("", "", False),
    ],
)
def test_near_duplicates_share_most_runs_of_the_smaller_passage(gold, other, expected):
    found = near_duplicates([shingles(joined(gold))], [shingles(joined(other))], 0.6)
    assert found.tolist() == [expected]


def test_near_duplicate_of_any_gold_passage_counts():
    gold = [shingles(joined(text(0, 50))), shingles(joined(text(100, 50)))]
    others = [shingles(joined(text(start, 50))) for start in (5, 60, 110)]
    assert near_duplicates(gold, others, 0.6).tolist() == [True, False, True]
    assert near_duplicates([], others, 0.6).tolist() == [False] * 3
    assert near_duplicates(gold, [], 0.6).tolist() == []


PASSAGES = st.lists(st.sampled_from(WORDS[:6]), max_size=40).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(PASSAGES, max_size=3), st.lists(PASSAGES, max_size=6), st.sampled_from([0.1, 0.5, 0.75, 1.0]))
def test_near_duplicates_are_what_sets_of_runs_say(gold, others, threshold):
    def duplicate(one, other):
        smaller = min(len(one), len(other))
        return smaller > 0 and len(one & other) >= (smaller if smaller < FEW else threshold * smaller)

    expected = [any(duplicate(runs(one), runs(other)) for one in gold) for other in others]
    found = near_duplicates([shingles(joined(g)) for g in gold], [shingles(joined(o)) for o in others], threshold)
    assert found.tolist() == expected


TEXTS = [
    f"The tower of Aldo was built in 1802. {text(0, 60)}",  # 0: gold
    f"Visitors know the tower. {text(0, 60)} It opens at nine.",  # 1: nearly gold, without the answer
    "Berin was born in 1,802 in Corin.",  # 2: holds the answer
    f"The tower of Berin has a bell. {text(100, 60)}",  # 3: a true negative
    "",  # 4
]
LOOKUPS = Lookups(lambda position: joined(TEXTS[position]), lambda position: shingles(joined(TEXTS[position])))
MATCHER = AnswerMatcher.of(["1802"], "When was the tower of Aldo built?")


def reasons(**changes):
    return guard_reasons(MATCHER, {0}, [3, 1, 0, 2, 4], LOOKUPS, GuardSettings(**changes))


def test_guard_names_why_a_hit_may_not_be_a_negative():
    assert reasons() == ["", "near_duplicate", "gold", "answer", ""]


def test_each_test_of_the_guard_can_be_switched_off():
    assert reasons(answers=False) == ["", "near_duplicate", "gold", "", ""]
    assert reasons(near_duplicates=None) == ["", "", "gold", "answer", ""]
    assert reasons(near_duplicates=1.0) == ["", "", "gold", "answer", ""]


def test_guard_of_a_question_without_gold_goes_by_answers_alone():
    assert guard_reasons(MATCHER, (), [1, 2], LOOKUPS, GuardSettings()) == ["", "answer"]
    assert guard_reasons(AnswerMatcher(), {0}, [], LOOKUPS, GuardSettings()) == []


def test_lookups_read_title_and_text_of_a_corpus():
    row = {"id": "p", "title": "The Tower", "text": "Built by Röntgen.", "document": "", "page": 0, "split": ""}
    lookups = Lookups.of(Corpus(pa.Table.from_pylist([row], schema=PASSAGE_SCHEMA)))
    assert lookups.joined(0) == " tower built by rontgen "
    assert lookups.shingles(0).tolist() == shingles(" tower built by rontgen ").tolist()


@pytest.mark.parametrize("change", [{"near_duplicates": 0.0}, {"near_duplicates": 1.1}, {"cross_encoder": {}}])
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ValidationError):
        GuardSettings.model_validate(change)


@pytest.mark.parametrize(
    ("gold", "hits", "margin", "expected"),
    [
        ([0.8], [0.9, 0.8, 0.76, 0.75, 0.0], 0.05, [True, True, True, False, False]),
        ([0.8], [0.81, 0.8, 0.79], 0.0, [True, True, False]),
        ([0.9, 0.01], [0.5, 0.9], 0.05, [False, True]),  # two hops: the first is what the model can recognise
    ],
)
def test_hits_are_held_against_the_highest_gold_score(gold, hits, margin, expected):
    assert as_good_as_gold(np.array(gold), np.array(hits), margin).tolist() == expected


def write_model(folder, outputs=1):
    """Save a random BERT of two layers that scores pairs of texts."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    folder.mkdir()
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["the", "tower", "of", "aldo", "berin", "was", "built", "in", "bell", "opens"],
    ]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.6,
        num_labels=outputs,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "reranker")


QUESTION = "Who built the tower?"
SHOWN = ["The tower was built in Aldo.", "The bell of Berin", "the tower of the bell opens", "Berin built the tower."]


def reference_scores(folder, question, passages):
    """One pair at a time, through transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    pairs = (tokenizer(question, passage, return_tensors="pt") for passage in passages)
    with torch.inference_mode():
        return [torch.sigmoid(model.eval()(**pair).logits)[0, 0].item() for pair in pairs]


def test_cross_encoder_scores_are_its_logits_through_a_sigmoid(reranker):
    expected = reference_scores(reranker, QUESTION, SHOWN)
    assert max(expected) - min(expected) > 0.01
    guard = CrossEncoderGuard(CrossEncoderSettings(model=str(reranker), batch_size=2, device="cpu"))
    assert guard.scores(QUESTION, SHOWN) == pytest.approx(expected, abs=1e-5)


def test_cross_encoder_flags_what_scores_like_gold(reranker):
    ranked = sorted(zip(reference_scores(reranker, QUESTION, SHOWN), SHOWN, strict=True))
    worst, low, gold, best = (passage for _, passage in ranked)
    guard = CrossEncoderGuard(CrossEncoderSettings(model=str(reranker), margin=0.0, top=3, device="cpu"))
    assert guard.flagged(QUESTION, [gold], [low, best, worst, best]) == [False, True, False, False]
    assert guard.flagged(QUESTION, [worst, best], [gold, low]) == [False, False]
    assert guard.flagged(QUESTION, [], [best]) == [False]
    assert guard.flagged(QUESTION, [gold], []) == []


def test_model_with_several_outputs_is_refused(tmp_path):
    with pytest.raises(RagFtError, match="3 outputs, so it gives no single score"):
        CrossEncoderGuard(CrossEncoderSettings(model=str(write_model(tmp_path / "classifier", 3)), device="cpu"))


def test_bare_encoder_is_refused_because_its_scores_would_be_noise(tmp_path, reranker):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(reranker).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(reranker).save_pretrained(tmp_path)
    with pytest.raises(RagFtError, match="is a BertModel, which was not trained to score pairs"):
        CrossEncoderGuard(CrossEncoderSettings(model=str(tmp_path), device="cpu"))


def test_model_that_is_not_there_is_one_sentence(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(RagFtError, match=r"guard\.cross_encoder\.model .*nowhere cannot be loaded: .*or set") as caught:
        CrossEncoderGuard(CrossEncoderSettings(model=str(missing), device="cpu"))
    assert "\n" not in str(caught.value)
