"""Importers of other people's QA formats: what each row becomes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imported import CASES, Read, written

from data_builders.records import Passage, Question, Ranking, record_table
from data_builders.sources.files import CORPORA, FORMATS, FileSourceSettings
from data_builders.sources.rgb import spoken_answers
from data_builders.sources.rows import BadRow, Format, Place
from data_builders.sources.squad import quote_around

ALL_FORMATS = {format_.kind: format_ for format_ in (*FORMATS.values(), *(corpus for _, corpus in CORPORA.values()))}

# what rows become


def test_a_squad_question_has_its_paragraph_as_gold_and_quotes_the_sentence_around_the_answer() -> None:
    read = Read("squad", CASES / "squad.json")
    asked = read.questions["a1"]
    assert asked.question == "Who built the bridge?"
    assert asked.answers == ("Dr. Mira Voss", "Mira Voss")
    (quote,) = asked.evidence
    assert asked.gold == (quote.passage_id,)
    assert quote.quote == "Its bridge was built by Dr. Mira Voss in 1932!"
    assert quote.reason == "It states the answer."
    passage = read.passages[quote.passage_id]
    assert (passage.title, passage.document) == ("Aldern", "Aldern")
    assert passage.text.startswith("Aldern lies on the Ruhne. Its bridge")
    assert "a1" not in read.rankings


def test_a_squad_question_that_is_impossible_has_no_gold_but_a_ranking_with_its_own_paragraph_first() -> None:
    read = Read("squad", CASES / "squad.json")
    asked = read.questions["a2"]
    assert (asked.answers, asked.gold, asked.evidence) == ((), (), ())
    assert read.rankings["a2"] == Ranking("a2", "source", read.questions["a1"].gold, (1.0,))


def test_a_squad_answer_that_is_not_where_its_row_says_is_quoted_alone_or_not_at_all() -> None:
    read = Read("squad", CASES / "squad.json")
    assert [item.quote for item in read.questions["a3"].evidence] == ["a market"]
    assert read.questions["a4"].evidence == ()
    assert read.questions["a4"].gold == read.questions["a3"].gold


def test_a_squad_quote_stays_on_one_line_and_korean_sentences_end_too() -> None:
    read = Read("squad", CASES / "squad.json")
    assert [item.quote for item in read.questions["5"].evidence] == ["The ferry stopped in 1940"]
    assert [item.quote for item in read.questions["k1"].evidence] == ["다리는 1932년에 놓였다."]
    assert read.questions["k1"].answers == ("1932년",)


def test_squad_paragraphs_of_articles_with_the_same_title_have_ids_of_their_own() -> None:
    read = Read("squad", CASES / "squad.json")
    assert len(read.passages) == 3
    assert [id_.partition("-")[0] for id_ in read.passages] == ["Aldern#0", "Aldern#1", "Aldern#0"]


@pytest.mark.parametrize(
    ("text", "answer", "quote"),
    [
        ("He met J. R. Hale. Then he left.", "Hale", "He met J. R. Hale."),
        ("They met. Dr. J. R. Hale left. He ran.", "Hale", "Dr. J. R. Hale left."),
        ("It cost 3.5 million. Then 4.", "3.5 million", "It cost 3.5 million."),
        ('He said "no." She left.', "She", "She left."),
        ("它在1932年建成。后来毁了。", "1932年", "它在1932年建成。"),
        ("One. Two three. Four.", "One. Two", "One. Two three."),
        ("a\nb", "a\nb", ""),
        ("word " * 200 + "end", "end", "end"),
    ],
)
def test_a_quote_is_the_sentence_around_the_answer(text: str, answer: str, quote: str) -> None:
    assert quote_around(text, answer, text.index(answer)) == quote


@settings(deadline=None)
@given(st.text(alphabet="aB3.!?。 \n\"')다", max_size=60), st.integers(-2, 60), st.integers(1, 10))
def test_a_quote_stands_in_the_text_on_one_line_and_holds_the_answer(text: str, start: int, length: int) -> None:
    answer = text[max(start, 0) : start + length]
    quote = quote_around(text, answer, start)
    assert quote in text
    assert "\n" not in quote
    assert ("\n" in answer.strip()) == (answer.strip() not in quote)


def test_the_first_positive_of_a_dpr_row_is_gold_and_the_others_are_alternatives() -> None:
    read = Read("dpr", CASES / "dpr.json")
    asked = read.asked("when was the aldern bridge opened")
    assert asked.answers == ("1932", "in 1932")
    assert (asked.gold, asked.alternatives) == (("7",), ("12",))
    assert read.ranked(asked.id) == [
        ("It was opened in 1932.", 1000.0),
        ("Aldern lies on the Ruhne.", 9.25),
        ("The first bridge, of 1932, is at Aldern.", 8.5),
        ("The mole digs.", 0.0),
    ]
    assert read.passages["9"] == Passage("9", "Aldern", "Aldern lies on the Ruhne.", "Aldern")


def test_a_dpr_row_without_positives_has_no_annotated_gold_and_its_unscored_list_keeps_its_order() -> None:
    read = Read("dpr", CASES / "dpr.json")
    asked = read.asked("who built it")
    assert (asked.answers, asked.gold, asked.alternatives) == (("Mira Voss",), (), ())
    assert read.ranked(asked.id) == [("Nobody knows.", 1.0), ("Aldern lies on the Ruhne.", 0.5)]


def test_retrieval_output_is_ranked_by_its_scores_which_may_be_written_as_texts() -> None:
    read = Read("dpr", CASES / "contriever.jsonl")
    assert read.questions["nq-4"].gold == ()
    assert read.rankings["nq-4"] == Ranking("nq-4", "source", ("wiki:8", "wiki:2"), (80.25, 71.5))


def test_the_first_kilt_output_with_paragraphs_is_gold_as_a_whole_and_others_are_alternatives() -> None:
    read = Read("kilt", CASES / "kilt.jsonl")
    asked = read.questions["k1"]
    assert asked.answers == ("Voss", "Mira Voss")
    assert asked.gold == ("41#1", "41#2", "40#1")
    assert asked.alternatives == ("43#1",)
    assert read.texts(asked.gold) == ["It stands in Aldern.", "Mira Voss built it.", "Aldern lies on the Ruhne."]


def test_kilt_provenance_that_names_pages_only_is_no_gold() -> None:
    asked = Read("kilt", CASES / "kilt.jsonl").questions["k2"]
    assert (asked.answers, asked.gold) == (("yes",), ())


def test_kilt_pages_become_paragraphs_without_the_empty_ones_and_headings() -> None:
    read = Read("kilt", CASES / "kilt.jsonl")
    assert sorted(read.passages) == ["40#1", "41#1", "41#2"]
    assert read.tally.dropped == {
        "paragraphs that are the title of their page": 2,
        "paragraphs that are the heading of a section": 1,
    }
    assert read.tally.samples["paragraphs that are the title of their page"] == ["40#0", "41#0"]
    assert read.passages["41#1"] == Passage("41#1", "Aldern bridge", "It stands in Aldern.", "Aldern bridge")


def test_kilt_headings_that_a_provenance_names_stay(tmp_path: Path) -> None:
    span = {"wikipedia_id": "40", "start_paragraph_id": 1, "end_paragraph_id": 3}
    title = {"wikipedia_id": "41", "start_paragraph_id": 0}
    output = [{"answer": "a", "provenance": [span]}, {"answer": "a", "provenance": [title]}]
    asked = written(tmp_path / "asked.jsonl", {"id": "k", "input": "q", "output": output})
    read = Read("kilt", {"test": str(asked)})
    assert sorted(read.passages) == ["40#1", "40#3", "41#0", "41#1", "41#2"]
    assert read.passages["40#3"].text == "Section::::Market."
    assert read.tally.dropped == {"paragraphs that are the title of their page": 1}


def test_hotpotqa_gold_is_every_paragraph_with_a_supporting_fact_quoted_by_sentence() -> None:
    read = Read("hotpotqa", CASES / "hotpotqa.json")
    asked = read.questions["h1"]
    assert (asked.answers, asked.group) == (("Ruhne",), "bridge")
    assert read.texts(asked.gold) == [
        "It stands in Aldern. It was opened in 1932.",
        "Aldern lies on the Ruhne. It has a market.",
    ]
    assert [(item.passage_id, item.quote) for item in asked.evidence] == [
        (asked.gold[0], "It was opened in 1932."),
        (asked.gold[1], "Aldern lies on the Ruhne."),
    ]
    assert [text for text, _ in read.ranked("h1")] == [
        "The mole digs.",
        "Aldern lies on the Ruhne. It has a market.",
        "It stands in Aldern. It was opened in 1932.",
    ]
    assert [score for _, score in read.ranked("h1")] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_hotpotqa_rows_of_the_hub_read_the_same() -> None:
    read = Read("hotpotqa", CASES / "hotpotqa.json")
    asked = read.questions["h2"]
    assert asked.group == "comparison"
    assert read.texts(asked.gold) == ["The Ruhne is a river. It is 90 km long.", "The Ilse is 20 km long."]
    assert [item.quote for item in asked.evidence] == ["It is 90 km long.", "The Ilse is 20 km long."]


def test_lost_in_the_middle_keeps_the_order_of_its_experiment() -> None:
    read = Read("lost_in_the_middle", CASES / "lost_in_the_middle.jsonl")
    asked = read.asked("when was the aldern bridge opened")
    assert read.texts(asked.gold) == ["It was opened in 1932."]
    ranked = read.ranked(asked.id)
    assert [text for text, _ in ranked] == ["Aldern lies on the Ruhne.", "It was opened in 1932.", "The mole digs."]
    assert [score for _, score in ranked] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_lost_in_the_middle_retrieval_output_takes_gold_from_its_annotation() -> None:
    read = Read("lost_in_the_middle", CASES / "lost_in_the_middle.jsonl")
    asked = read.asked("who built it")
    assert [read.passages[id_].title for id_ in asked.gold] == ["Mira Voss"]
    assert read.ranked(asked.id) == [("Aldern lies on the Ruhne.", 0.75), ("The mole digs.", 0.5)]


def test_any_positive_of_rgb_answers_alone() -> None:
    read = Read("rgb", CASES / "rgb.json")
    asked = read.questions["rgb-0"]
    assert (asked.answers, asked.group) == (("1932", "in 1932"), "")
    assert read.texts(asked.gold) == ["The Aldern bridge was opened in 1932."]
    assert read.texts(asked.alternatives) == ["1932 saw a new bridge at Aldern."]
    assert [text for text, _ in read.ranked("rgb-0")][-1] == "Aldern lies on the Ruhne."


def test_an_integration_question_of_rgb_needs_a_passage_and_an_answer_for_each_part() -> None:
    read = Read("rgb", CASES / "rgb.json")
    asked = read.questions["rgb-1"]
    assert asked.group == "integration"
    assert asked.answers == ("1932, 1950", "MCMXXXII, 1950", "1932 and 1950", "MCMXXXII and 1950")
    assert read.texts(asked.gold) == ["Aldern's bridge is of 1932.", "Ilmen's bridge is of 1950."]
    assert read.texts(asked.alternatives) == ["Aldern built a bridge in 1932."]


def test_counterfactual_passages_of_rgb_are_ranked_before_the_negative_ones() -> None:
    read = Read("rgb", CASES / "rgb.json")
    asked = read.questions["rgb-2"]
    assert (asked.answers, asked.group) == (("Mira Voss",), "counterfactual")
    assert [text for text, _ in read.ranked("rgb-2")] == [
        "Mira Voss built the Aldern bridge.",
        "Jon Hale built the Aldern bridge.",
        "The mole digs.",
    ]


def test_an_answer_of_many_parts_is_said_in_a_bounded_number_of_ways() -> None:
    parts = [[f"{part}{alias}" for alias in range(9)] for part in "abcdefgh"]
    answers = spoken_answers(parts)
    assert answers[0] == "a0, b0, c0, d0, e0, f0, g0, h0"
    assert "a0, b0, c0, d0, e0, f0, g0 and h0" in answers
    assert len(answers) == 24


def test_flashrag_questions_have_no_gold_and_its_corpus_cuts_titles_off() -> None:
    read = Read("flashrag", CASES / "flashrag.jsonl", corpus_path=str(CASES / "flashrag_corpus.jsonl"))
    assert read.questions["test_0"] == Question(
        "test_0", "when was the aldern bridge opened", ("1932", "in 1932"), (), source="mine"
    )
    assert list(read.passages.values()) == [
        Passage("7", "Aldern bridge", "It was opened in 1932.\nMira Voss built it.", "Aldern bridge"),
        Passage("8", "", "A text without a title."),
        Passage("9", "Aldern", "Aldern lies on the Ruhne.", "Aldern"),
    ]
    assert Read("flashrag", CASES / "flashrag.jsonl").passages == {}


def test_raft_quotes_count_where_they_stand_in_the_oracle_document() -> None:
    read = Read("raft", CASES / "raft.jsonl")
    asked = read.questions["seed_task_0"]
    assert asked.answers == ("1932",)
    assert read.texts(asked.gold) == ["The bridge stands in Aldern.\nIt was opened in 1932."]
    assert [item.quote for item in asked.evidence] == ["It was opened in 1932."]
    assert asked.analysis == "The text says It was opened in 1932. and not It opened in 1933. ."
    assert read.ranked("seed_task_0")[0] == ("Aldern lies on the Ruhne.", 1.0)
    assert {passage.title for passage in read.passages.values()} == {"", "Aldern"}


def test_a_raft_oracle_document_that_was_left_out_of_the_context_is_gold_all_the_same() -> None:
    read = Read("raft", CASES / "raft.jsonl")
    asked = read.asked("Who built it?")
    assert read.texts(asked.gold) == ["Mira Voss built it."]
    assert read.ranked(asked.id) == [("Aldern lies on the Ruhne.", 1.0)]
    assert asked.analysis == ""


# all formats alike


def test_every_kind_has_settings_and_a_format() -> None:
    kinds = [get_args(one.model_fields["kind"].annotation)[0] for one in get_args(FileSourceSettings)]
    assert kinds == list(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_documents_itself(kind: str) -> None:
    (own,) = (one for one in get_args(FileSourceSettings) if kind in get_args(one.model_fields["kind"].annotation))
    assert own.__doc__
    assert all(field.description for field in own.model_fields.values())


@pytest.mark.parametrize("format_", ALL_FORMATS.values(), ids=ALL_FORMATS)
def test_every_example_row_is_a_right_row(format_: Format) -> None:
    records = list(format_.parse(format_.example, Place("mine", "file.json", 1)))
    passages = {record.id: record.text for record in records if isinstance(record, Passage)}
    for asked in (record for record in records if isinstance(record, Question)):
        assert asked.answers[0] in ("1932", "Ruhne")
        assert all(item.quote in passages[item.passage_id] for item in asked.evidence)
        assert format_.kind in ("kilt", "flashrag") or set(asked.gold) <= set(passages)
        assert asked.gold or format_.kind == "flashrag"
    for ranking in (record for record in records if isinstance(record, Ranking)):
        assert set(ranking.passages) <= set(passages)
        assert list(ranking.scores) == sorted(ranking.scores, reverse=True)


def test_reading_twice_gives_the_same_records() -> None:
    for kind, file in [("squad", "squad.json"), ("dpr", "dpr.json"), ("rgb", "rgb.json"), ("raft", "raft.jsonl")]:
        assert Read(kind, CASES / file).records == Read(kind, CASES / file).records


def test_questions_and_passages_carry_the_split_of_their_file_but_a_common_corpus_carries_none() -> None:
    files = {"train": str(CASES / "kilt.jsonl"), "test": [str(CASES / "kilt.jsonl")]}
    read = Read("kilt", files)
    assert {passage.split for passage in read.passages.values()} == {""}
    assert [record.split for record in read.records if isinstance(record, Question)] == ["train"] * 2 + ["test"] * 2
    own = Read("dpr", {"validation": str(CASES / "dpr.json")})
    assert {passage.split for passage in own.passages.values()} == {"validation"}
    shared = Read("dpr", {"validation": str(CASES / "dpr.json")}, corpus="shared")
    assert {passage.split for passage in shared.passages.values()} == {""}


def _changed(value: Any, path: list[int], new: Any) -> Any:
    """Put `new` where `path` leads in a copy of `value`."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not keys or not path:
        return new
    key = keys[path[0] % len(keys)]
    value = copy.copy(value)
    value[key] = _changed(value[key], path[1:], new)
    return value


def _parsed(format_: Format, row: dict[str, Any]) -> tuple[list[Any], str]:
    """Return the records of a row, or none and the field at fault."""
    try:
        return list(format_.parse(row, Place("mine", "file.json", 1))), ""
    except BadRow as error:
        return [], error.field


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", " ", "\ud83d", "x\ny", "1e999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["title", "text"]), inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", ALL_FORMATS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_a_scrambled_row_gives_records_that_can_be_kept_or_names_its_field(kind: str, data: st.DataObject) -> None:
    path = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=7))
    row = _changed(ALL_FORMATS[kind].example, path, data.draw(_ANYTHING))
    records, field = _parsed(ALL_FORMATS[kind], row)
    assert field.split(".")[0] in {"", *ALL_FORMATS[kind].example, "ctxs"}
    for type_ in (Passage, Question, Ranking):
        record_table(type_, [record for record in records if isinstance(record, type_)])
    assert all(record.answers for record in records if isinstance(record, Question) and record.gold)
