import hashlib
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache

import bm25s
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_builders.records import Passage, Question
from data_builders.sources.invented_world import InventedWorld, InventedWorldSettings, QuestionCounts, facts_per_passage
from data_builders.sources.invented_world_blocks import BLOCK, FAMILY, GRAMMAR, draw_block
from data_builders.sources.invented_world_names import SPLITS, pseudo_word
from data_builders.text import answer_tokens, contains_answer

BOUNDS = [(40, 40), (40, 60), (40, 120), (61, 63), (85, 120), (120, 120)]
DIGEST = """
import hashlib
from data_builders.sources.invented_world import InventedWorld, InventedWorldSettings
world = InventedWorld(InventedWorldSettings(), "world", 3)
rows = [*world.passages("test"), *world.questions("test")]
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


def build(split="train", seed=0, count=600, words=(40, 120), share=0.25):
    counts = QuestionCounts(**{"train": 0, "validation": 0, "test": 1, split: count})
    world = InventedWorld(InventedWorldSettings(questions=counts, words=words, two_hop_share=share), "world", seed)
    return list(world.passages(split)), list(world.questions(split))


@cache
def world(split="train", seed=0):
    passages, questions = build(split, seed)
    return {passage.id: passage for passage in passages}, questions


def family_of(passage_id):
    return int(passage_id.split("-p")[1]) // FAMILY


def entity_of(passage_id, seed=0, facts=6):
    number = int(passage_id.split("-p")[1])
    families = draw_block(seed, passage_id.split("-")[0], number // BLOCK, facts)
    return next(e for family in families.values() for e in family if e.id == passage_id)


@pytest.mark.parametrize("words", BOUNDS)
def test_every_passage_keeps_the_word_bounds(words):
    for seed in range(3):
        passages, _ = build(seed=seed, words=words, count=50)
        assert all(words[0] <= len(passage.text.split()) <= words[1] for passage in passages)


def test_passage_lengths_spread_over_the_range():
    lengths = [len(passage.text.split()) for passage in world()[0].values()]
    assert min(lengths) < 65
    assert max(lengths) > 110


def test_same_seed_gives_the_same_bytes_in_any_process_and_another_seed_does_not():
    rows = [*build("test", 3, 200)[0], *build("test", 3, 200)[1]]
    here = hashlib.sha256(repr(rows).encode()).hexdigest()
    for hash_seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == here
    assert not {p.title for p in build("test", 3, 1)[0]} & {p.title for p in build("test", 4, 1)[0]}


def test_asking_more_keeps_what_was_asked_before():
    few_passages, few = build(count=100)
    passages, questions = build(count=900)
    assert questions[:100] == few
    assert passages[: len(few_passages)] == few_passages


def test_splits_share_no_entity_and_no_invented_word():
    common = {"the", "Institute", "Museum"}
    words, ids = {}, {}
    for split, count in zip(SPLITS, (900, 200, 50), strict=True):
        passages, questions = build(split, count=count)
        ids[split] = {passage.id for passage in passages} | {question.id for question in questions}
        pairs = (zip(p.title.split(), p.title.split()[1:], strict=False) for p in passages)
        words[split] = {pair for some in pairs for pair in some if not set(pair) & common}
        assert len({passage.title for passage in passages}) == len(passages)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not words[one] & words[other]
        assert not ids[one] & ids[other]


def test_pseudo_words_never_repeat_even_when_short_ones_run_out():
    numbers = [*range(400), *range(30_000, 40_000), 5_000_000, 500_000_000]
    for seed in (0, 1):
        words = [pseudo_word(seed, split, number) for split in SPLITS for number in numbers]
        assert len(set(words)) == len(words)
        assert all(re.fullmatch("[A-Z][a-z]{2,}", word) for word in words)


def test_evidence_is_verbatim_and_a_one_hop_quote_holds_the_answer():
    passages, questions = world()
    for question in questions:
        assert [item.passage_id for item in question.evidence] == list(question.gold)
        for item in question.evidence:
            text = passages[item.passage_id].text
            assert text.count(item.quote) == 1
            assert item.quote.endswith(".")
        assert question.answers[0] in question.evidence[-1].quote
        assert question.answers[0] in question.analysis


def test_a_fact_is_stated_once_in_its_passage():
    passages, questions = world()
    for question in questions:
        tokens, answer = answer_tokens(passages[question.gold[-1]].text), answer_tokens(question.answers[0])
        starts = [i for i in range(len(tokens)) if tokens[i : i + len(answer)] == answer]
        assert len(starts) == 1, question


def test_the_answer_is_unique_among_the_near_namesakes():
    passages, questions = world()
    for question in questions:
        gold = question.gold[-1]
        namesakes = [p for p in passages.values() if family_of(p.id) == family_of(gold) and p.id != gold]
        assert len(namesakes) == 11
        for namesake in namesakes:
            assert not contains_answer(namesake.text, question.answers), (question, namesake)


def test_near_namesakes_share_name_words_and_attributes_with_other_values():
    for kind, family in draw_block(0, "train", 1, 6).items():
        assert len({frozenset(entity.values) for entity in family}) == 1
        for name in family[0].values:
            assert len({entity.values[name] for entity in family}) == len(family), (kind, name)
        for entity in family:
            own = set(entity.name.split()) - {"The"}
            sharing = [other for other in family if other != entity and own & set(other.name.split())]
            assert len(sharing) >= 8


def test_bm25_ranks_passages_with_a_wrong_value_of_the_asked_attribute_near_the_gold():
    passages, questions = world()
    ids = list(passages)
    retriever = bm25s.BM25()
    texts = [f"{passage.title} {passage.text}" for passage in passages.values()]
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    asked = [question for question in questions if question.group == "one_hop"][:150]
    ranked, _ = retriever.retrieve(
        bm25s.tokenize([q.question for q in asked], show_progress=False), k=15, show_progress=False
    )
    found, wrongs = 0, []
    for question, row in zip(asked, ranked, strict=True):
        gold = entity_of(question.gold[0])
        attribute = next(name for name, value in gold.values.items() if value == question.answers[0])
        neighbours = [entity_of(ids[index]) for index in row if ids[index] != gold.id]
        wrongs.append(len({n.values[attribute] for n in neighbours if attribute in n.values} - {question.answers[0]}))
        found += any(ids[index] == gold.id for index in row)
    assert sum(wrong >= 5 for wrong in wrongs) >= 0.95 * len(asked)
    assert sorted(wrongs)[len(wrongs) // 2] >= 8
    assert found >= 0.95 * len(asked)


def test_two_hop_questions_lead_through_the_first_passage_to_the_second():
    passages, questions = world()
    two_hop = [question for question in questions if question.group == "two_hop"]
    assert len(two_hop) == 150
    for question in two_hop:
        first, second = (passages[id_] for id_ in question.gold)
        assert second.title in question.evidence[0].quote
        assert first.title in question.question
        assert second.title not in question.question
        assert question.answers[0] in question.evidence[1].quote
        assert not contains_answer(question.question, question.answers)


def test_the_first_passage_of_two_hops_does_not_give_the_answer_away():
    passages, questions = world()
    for question in questions:
        if question.group == "two_hop" and not question.answers[0][0].isdigit():
            assert not contains_answer(passages[question.gold[0]].text, question.answers[:1]), question


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_two_hops_is_kept_and_no_fact_is_asked_twice(share):
    _, questions = build(share=share, count=1000, words=(40, 50))
    assert sum(question.group == "two_hop" for question in questions) == 1000 * share
    assert len({(question.gold, question.answers) for question in questions}) == 1000
    assert len({question.question for question in questions}) == 1000


def test_each_passage_is_asked_about_five_times_by_default():
    _, questions = build(count=2400)
    asked = [question.gold[-1] for question in questions]
    assert 4 <= len(asked) / len(set(asked)) <= 6


def test_passages_state_more_facts_where_there_is_room():
    for words, facts in (((40, 50), 4), ((40, 60), 5), ((40, 120), 6), ((90, 120), 7)):
        assert facts_per_passage(words) == facts
        families = draw_block(0, "test", 0, facts)
        assert {len(entity.values) for family in families.values() for entity in family} == {facts}


def test_quantities_may_be_answered_without_unit_or_thousands_separator():
    _, questions = world()
    answers = [question.answers for question in questions]
    assert any(re.fullmatch(r"\d+ metres", a[0]) and a[1] == a[0].split()[0] for a in answers)
    assert any(re.fullmatch(r"[\d,]+,\d{3}", a[0]) and a[1] == a[0].replace(",", "") for a in answers)


def test_events_of_a_life_come_in_a_possible_order():
    for number in range(20):
        families = draw_block(5, "train", number, 7)
        for work in families["work"]:
            creator = families["person"][work.targets["creator"]] if "creator" in work.targets else None
            if creator and "year" in work.values and "birth_year" in creator.values:
                assert 20 <= int(work.values["year"]) - int(creator.values["birth_year"]) <= 45


def test_sentences_have_no_gaps_no_wrong_articles_and_no_doubled_words():
    passages, questions = world()
    for text in [p.text for p in passages.values()] + [q.question for q in questions]:
        assert not re.search(r"[{}]|  | ,|\ba [aeiou]|\ban [^aeiou\W]|\b(\w+) \1\b", text), text
        assert not re.search(r"\bThe (\w+) is an? \1\b|\b(It|She|He), ", text), text
    for sentence in re.findall(r"[^.]+\.", " ".join(p.text for p in passages.values())):
        assert sentence.strip()[0].isupper() or sentence.strip()[0].isdigit(), sentence


def test_every_attribute_has_paraphrases_and_an_opening_sentence():
    for kind in GRAMMAR.values():
        for attribute in kind.attributes.values():
            assert len(set(attribute.questions)) >= 4
            assert len(set(attribute.sentences)) >= 4
            assert any(sentence.startswith(("{S}", "{P}")) for sentence in attribute.sentences)
            assert bool(attribute.descriptions) == bool(attribute.target)


def test_a_split_without_questions_is_empty_and_a_single_question_has_a_corpus_to_search():
    assert build("validation", count=0) == ([], [])
    passages, questions = build("test", count=1)
    assert len(questions) == 1
    assert len(passages) == 240


def test_reversed_word_bounds_are_refused_with_the_line_to_write():
    with pytest.raises(ValidationError, match=r"write words: \[50, 90\]"):
        InventedWorldSettings(words=(90, 50))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 300),
    words=st.tuples(st.integers(40, 120), st.integers(40, 120)).map(lambda pair: tuple(sorted(pair))),
    share=st.floats(0, 1),
    split=st.sampled_from(SPLITS),
)
def test_any_world_is_well_formed(seed, count, words, share, split):
    passages, questions = build(split, seed, count, words, share)
    texts = {passage.id: passage.text for passage in passages}
    assert len(texts) == len(passages)
    assert len({question.id for question in questions}) == len(questions) == count
    assert all(words[0] <= len(text.split()) <= words[1] for text in texts.values())
    for question in questions:
        assert len(question.gold) == (2 if question.group == "two_hop" else 1)
        assert all(item.quote in texts[item.passage_id] for item in question.evidence)
        assert question.answers[0] in question.evidence[-1].quote
        assert set(asdict(question)) == set(Question.__dataclass_fields__)
    assert all(isinstance(passage, Passage) for passage in passages)
