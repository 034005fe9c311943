"""Our own JSON Lines and BEIR folders: what rows become, and what is said of bad ones."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Passage, Question, Ranking, record_table
from data_builders.sources.beir import Beir, BeirSettings, parse_judgement
from data_builders.sources.jsonl import QUESTIONS, Jsonl, JsonlSettings
from data_builders.sources.rows import BadRow, Place

SHARED = Path(__file__).parents[2] / "shared" / "data"
KINDS: dict[str, tuple[Any, Any]] = {
    "jsonl": (Jsonl, JsonlSettings),
    "beir": (Beir, BeirSettings),
}
BRIDGE = {"id": "p7", "title": "Aldern bridge", "text": "It was opened in 1932."}
TOWN = {"id": "p9", "title": "Aldern", "text": "Aldern lies on the Ruhne."}


def read(kind: str, tally: Tally | None = None, **settings: Any) -> list[Any]:
    source, cls = KINDS[kind]
    checked = cls.model_validate_json(json.dumps({"kind": kind, **settings}, default=str))
    return list(source(checked, "mine", 0).records(tally or Tally()))


def of(records: list[Any], cls: type) -> list[Any]:
    return [record for record in records if isinstance(record, cls)]


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def parse(row: dict[str, Any]) -> list[Any]:
    return list(QUESTIONS.parse(row, Place("mine", "rows.jsonl", 1)))


def asked(**fields: Any) -> Question:
    (question,) = of(parse({"question": "When?", **fields}), Question)
    return question


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_ANYTHING = _LEAVES | st.lists(_LEAVES, max_size=2) | st.dictionaries(st.text(max_size=3), _LEAVES, max_size=2)


def _fields(**likely: Any) -> Any:
    """Objects whose fields mostly hold what they should."""
    return st.fixed_dictionaries({}, optional={name: value | value | _ANYTHING for name, value in likely.items()})


_ID = st.sampled_from(["p1", "p2", "p3", 7])
ROWS = _fields(
    id=st.text(min_size=1, max_size=4),
    question=st.just("When?"),
    answers=st.lists(st.sampled_from(["a", "b", 3, ""]), max_size=2),
    answerable=st.booleans(),
    gold=st.lists(_ID, max_size=2),
    split=st.sampled_from(["train", "dev"]),
    evidence=st.lists(_fields(passage=st.integers(0, 2) | _ID, quote=st.just("q")), max_size=2),
    passages=st.lists(
        _fields(
            id=_ID,
            text=st.just("t"),
            score=st.floats(-1, 1) | st.integers(0, 2),
            is_gold=st.booleans(),
            retriever=st.sampled_from(["bm25", "e5"]),
            page=st.integers(0, 3),
        ),
        max_size=4,
    ),
)


def parsed_or_field(row: dict[str, Any]) -> tuple[list[Any], str]:
    try:
        return parse(row), ""
    except BadRow as error:
        return [], error.field


class TestJsonl:
    def test_a_row_becomes_its_passages_its_question_and_a_ranking(self, tmp_path):
        row = {
            "id": "q1",
            "question": "When was it opened?",
            "answers": ["1932", "in 1932"],
            "group": "dates",
            "analysis": "The bridge's page says so.",
            "evidence": [{"passage": 0, "quote": "opened in 1932", "reason": "It names the year."}],
            "passages": [
                {**BRIDGE, "is_gold": True, "score": 7},
                {**TOWN, "score": 9.5, "page": 3, "document": "Towns"},
            ],
        }
        path = write(tmp_path / "rows.jsonl.gz", [row])
        assert read("jsonl", path=path) == [
            Passage("p7", "Aldern bridge", "It was opened in 1932.", "Aldern bridge"),
            Passage("p9", "Aldern", "Aldern lies on the Ruhne.", "Towns", 3),
            Question(
                "q1", "When was it opened?", ("1932", "in 1932"), ("p7",),
                (GoldEvidence("p7", "opened in 1932", "It names the year."),),
                "The bridge's page says so.", "mine", "dates",
            ),
            Ranking("q1", "source", ("p9", "p7"), (9.5, 7.0)),
        ]  # fmt: skip

    def test_each_retriever_ranks_what_it_scored_and_ties_keep_the_order_of_the_file(self):
        def item(id_, **fields):
            return {"id": id_, "text": id_, **fields}

        passages = [
            item("g", is_gold=True),
            item("a", score=1.0, retriever="bm25"),
            item("b", score=2.0, retriever="bm25"),
            item("c", score=2.0, retriever="bm25"),
            item("b", score=0.5, retriever="e5"),
            item("a", score=0.1, retriever="bm25"),
        ]
        records = parse({"id": "q", "question": "?", "answer": "x", "passages": passages})
        assert [passage.id for passage in of(records, Passage)] == ["g", "a", "b", "c"]
        assert of(records, Ranking) == [
            Ranking("q", "bm25", ("b", "c", "a"), (2.0, 2.0, 1.0)),
            Ranking("q", "e5", ("b",), (0.5,)),
        ]

    def test_missing_ids_are_hashes_of_the_text(self):
        records = parse(
            {"question": "When?", "answer": "x", "passages": [{"title": "T", "text": "A.", "is_gold": True}]}
        )
        expected = f"p-{content_hash(['T', 'A.'])}"
        assert records[0].id == expected
        assert (records[1].id, records[1].gold) == (f"q-{content_hash(['When?', 'x'])}", (expected,))

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"answer": "a"}, ("a",)),
            ({"answer": "a", "answers": ["b", "a"]}, ("a", "b")),
            ({"answer": 1932}, ("1932",)),
            ({"answers": "a"}, ("a",)),
            ({"answers": []}, ()),
        ],
    )
    def test_answers_may_be_one_or_many(self, fields, expected):
        assert asked(**fields).answers == expected

    def test_gold_is_what_the_row_names_and_flags(self):
        passages = [{**BRIDGE, "is_gold": True}, {**TOWN, "is_gold": False}]
        assert asked(answer="x", gold=["p1", "p7"], passages=passages).gold == ("p1", "p7")
        assert asked(answer="x", gold=["p1"], alternatives=["p3"]).alternatives == ("p3",)

    def test_quoted_passages_are_gold_where_none_is_named(self):
        evidence = [{"passage_id": "p7", "quote": "1932"}, {"passage": "p9", "quote": "Ruhne"}]
        assert asked(answer="x", evidence=evidence).gold == ("p7", "p9")

    @pytest.mark.parametrize(
        "fields",
        [{"answers": []}, {"answerable": False}, {"answerable": False, "answers": ["plausible"], "gold": ["p7"]}],
    )
    def test_an_unanswerable_question_has_neither_answers_nor_gold_but_keeps_its_ranking(self, fields):
        records = parse({"id": "q", "question": "?", **fields, "passages": [{**BRIDGE, "score": 2}]})
        (question,) = of(records, Question)
        assert (question.answers, question.gold) == ((), ())
        assert of(records, Ranking) == [Ranking("q", "source", ("p7",), (2.0,))]

    @pytest.mark.parametrize(
        ("given", "ours"),
        [("train", "train"), ("Dev", "validation"), ("val", "validation"), ("test", "test"), (None, "")],
    )
    def test_splits_have_their_usual_names(self, given, ours):
        records = parse(
            {"question": "?", "answer": "x", "split": given, "passages": [BRIDGE, {**TOWN, "split": "test"}]}
        )
        assert [record.split for record in records] == [ours, "test", ours]

    def test_further_files_of_passages_join_the_corpus_of_the_split_their_rows_name(self, tmp_path):
        questions = write(tmp_path / "q.jsonl", [{"question": "?", "answer": "x", "gold": "p7"}])
        passages = write(tmp_path / "p.jsonl", [{**BRIDGE, "split": "train"}, TOWN])
        own = read("jsonl", path={"test": str(questions)}, passages=str(passages))
        assert [(r.id, r.split) for r in own[:2]] == [("p7", "train"), ("p9", "")]
        assert own[2].split == "test"
        shared = read("jsonl", path={"test": str(questions)}, passages=str(passages), corpus="shared")
        assert [r.split for r in shared] == ["", "", "test"]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"question": None}, "question is null"),
            ({"question": "  "}, "question is empty"),
            ({"answers": None}, "answers is missing"),
            ({"answers": [""]}, "answers holds an empty text"),
            ({"answers": {"text": ["a"]}}, 'answers is {"text": ["a"]}, not a text'),
            ({"split": "gold"}, 'split is "gold", not train, validation or test'),
            ({"answerable": "no"}, 'answerable is "no", not true or false'),
            ({"passages": [{"id": "p"}]}, "passages.0.text is missing"),
            ({"passages": ["p"]}, 'passages is ["p"], not a list of objects'),
            ({"passages": [{**BRIDGE, "score": "high"}]}, 'passages.0.score is "high", not a number'),
            ({"passages": [{**BRIDGE, "score": float("nan")}]}, "passages.0.score is NaN, not a number"),
            ({"passages": [{**BRIDGE, "score": 10**400}]}, "not a number"),
            ({"passages": [{**BRIDGE, "page": -1}]}, "passages.0.page is -1, not a whole number"),
            ({"evidence": [{"quote": "x"}]}, "evidence.0.passage_id is missing"),
            ({"evidence": [{"quote": " ", "passage_id": "p"}]}, "evidence.0.quote is empty"),
            ({"evidence": [{"quote": "x", "passage": 2}], "passages": [BRIDGE]}, "passage is 2, but the row has 1"),
            ({"question": "half \ud83d"}, "question has half a character"),
        ],
    )  # fmt: skip
    def test_a_row_that_does_not_fit_names_the_field(self, fields, message):
        with pytest.raises(BadRow) as caught:
            parse({"question": "When?", "answers": ["x"], **fields})
        assert message in str(caught.value)

    def test_a_bad_row_stops_with_file_row_and_example_or_is_counted(self, tmp_path):
        path = write(tmp_path / "rows.jsonl", [{"question": "a", "answer": "b"}, {"question": "c"}])
        with pytest.raises(
            RagFtError, match=r"rows\.jsonl, row 2: answers is missing\. .*for example: \{\"id\": \"q1\""
        ):
            read("jsonl", path=path)
        tally = Tally()
        assert len(read("jsonl", tally, path=path, bad_rows="skip")) == 1
        assert tally.dropped == {"rows that do not fit kind jsonl: answers": 1}

    def test_missing_passages_name_the_setting(self, tmp_path):
        path = write(tmp_path / "rows.jsonl", [])
        with pytest.raises(RagFtError, match=r"data\.sources\.mine\.passages: there is no file nowhere\.jsonl"):
            read("jsonl", path=path, passages="nowhere.jsonl")

    def test_rows_longer_than_any_buffer_and_cut_gzip_files_are_told_apart(self, tmp_path):
        long = {"question": "?", "answer": "x", "passages": [{"id": "p", "text": "word " * 40_000}]}
        path = write(tmp_path / "rows.jsonl.gz", [long, long])
        assert len(of(read("jsonl", path=path), Question)) == 2
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(RagFtError, match="cannot read"):
            read("jsonl", path=path)

    @given(ROWS)
    def test_any_row_gives_records_that_can_be_written_or_names_its_field(self, row):
        records, field = parsed_or_field(row)
        assert field.split(".")[0] in {*row, "", "question", "answers"}
        for kind in {type(record) for record in records}:
            assert record_table(kind, of(records, kind)).num_rows
        for ranking in of(records, Ranking):
            assert sorted(ranking.scores, reverse=True) == list(ranking.scores)
            assert set(ranking.passages) <= {passage.id for passage in of(records, Passage)}


def shared_file(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"the real data set {name} is not on this machine")
    return path


class TestRealFiles:
    def test_real_questions_with_their_passages_are_read_as_they_are(self):
        path = shared_file("dev/nq_open_dev_bm25.jsonl.gz")
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        records = read("jsonl", path={"validation": path})
        questions, rankings = of(records, Question), of(records, Ranking)
        assert [question.id for question in questions] == [row["id"] for row in rows]
        assert len(of(records, Passage)) == sum(len(row["passages"]) for row in rows)
        assert {len(question.gold) for question in questions} == {1}
        scored = [[p["score"] for p in row["passages"] if p["score"] is not None] for row in rows]
        assert [len(ranking.scores) for ranking in rankings] == [len(scores) for scores in scored if scores]
        assert {ranking.retriever for ranking in rankings} == {"bm25"}

    def test_a_real_corpus_and_its_questions_are_read_as_they_are(self):
        paths = shared_file("corpus/squad11_questions.jsonl.gz"), shared_file("corpus/squad11_passages.jsonl.gz")
        records = read("jsonl", path=paths[0], passages=paths[1])
        counts = Counter((type(record).__name__, record.split) for record in records)
        assert sum(count for (name, _), count in counts.items() if name == "Question") == 87_599
        assert sum(count for (name, _), count in counts.items() if name == "Passage") == 18_896
        assert {split for _, split in counts} == {"train", "validation"}
        ids = {passage.id: passage.split for passage in of(records, Passage)}
        assert all(ids[question.gold[0]] == question.split for question in of(records, Question))


@pytest.fixture
def beir(tmp_path):
    """Three documents, four queries; q1 has two relevant documents in train, q2 is judged in dev and test."""
    write(tmp_path / "corpus.jsonl.gz", [
        {"_id": "d1", "title": "Aldern", "text": "A town."},
        {"_id": "d2", "title": "", "text": "A bridge."},
        {"_id": "d3", "title": "Ruhne", "text": "A river."},
    ])  # fmt: skip
    write(tmp_path / "queries.jsonl", [
        {"_id": "q1", "text": "which town", "metadata": {"answer": "Aldern"}},
        {"_id": "q2", "text": "which river", "answers": ["Ruhne", "the Ruhne"]},
        {"_id": "q3", "text": "which road"},
        {"_id": "q4", "text": "which bridge"},
    ])  # fmt: skip
    (tmp_path / "qrels").mkdir()
    header = "query-id\tcorpus-id\tscore\n"
    (tmp_path / "qrels" / "train.tsv").write_text(f"{header}q1\td2\t1\nq1\td1\t2\nq1\td3\t0\nq4\td2\t1\n")
    (tmp_path / "qrels" / "dev.tsv").write_text(f"{header}q2\td1\t1\n")
    (tmp_path / "qrels" / "test.tsv").write_text("q2\td3\t1\nq3\td1\t0\n")
    return tmp_path


class TestBeir:
    def test_the_best_judged_passage_is_gold_and_the_others_are_alternatives(self, beir):
        tally = Tally()
        assert read("beir", tally, path=beir) == [
            Passage("d1", "Aldern", "A town.", "Aldern"),
            Passage("d2", "", "A bridge."),
            Passage("d3", "Ruhne", "A river.", "Ruhne"),
            Question("q1", "which town", ("Aldern",), ("d1",), source="mine", split="train", alternatives=("d2",)),
            Question("q2", "which river", ("Ruhne", "the Ruhne"), ("d3",), source="mine", split="test"),
            Question("q4", "which bridge", (), ("d2",), source="mine", split="train"),
        ]
        assert tally.dropped == {"queries without a relevant passage": 1}
        assert tally.samples["queries without a relevant passage"] == ["q3"]

    def test_all_relevant_passages_may_be_needed(self, beir):
        question = of(read("beir", path=beir, all_gold=True), Question)[0]
        assert (question.gold, question.alternatives) == (("d1", "d2"), ())

    def test_answers_may_stand_in_a_file_of_their_own(self, beir):
        answers = write(
            beir / "answers.jsonl", [{"_id": "q4", "answers": ["the old one"]}, {"_id": "q1", "answer": "no"}]
        )
        found = {q.id: q.answers for q in of(read("beir", path=beir, answers=answers), Question)}
        assert found == {"q1": ("Aldern",), "q2": ("Ruhne", "the Ruhne"), "q4": ("the old one",)}

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("q1\td 1\t2", ("q1", "d 1", 2.0)),
            ("q1 0 d1 1", ("q1", "d1", 1.0)),
            ("query-id\tcorpus-id\tscore", None),
            ("q1\td1", None),
            ("q1\td1\tnan", None),
        ],
    )
    def test_a_judgement_has_the_columns_of_beir_or_trec(self, line, expected):
        assert parse_judgement(line) == expected

    def test_a_bad_judgement_stops_with_its_line_or_is_counted(self, beir):
        (beir / "qrels" / "train.tsv").write_text("q1\td1\t1\nq1;d2;1\n")
        with pytest.raises(RagFtError, match=r"train\.tsv, line 2 is not a judgement"):
            read("beir", path=beir)
        tally = Tally()
        read("beir", tally, path=beir, bad_rows="skip")
        assert tally.dropped["judgements that do not fit kind beir"] == 1

    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("corpus.jsonl.gz", r"has no corpus\.jsonl or corpus\.jsonl\.gz"),
            ("queries.jsonl", r"has no queries\.jsonl"),
            ("qrels", r"has none of train\.tsv, dev\.tsv and test\.tsv"),
        ],
    )
    def test_a_missing_part_is_named(self, beir, gone, message):
        (beir / gone).rename(beir / "elsewhere")
        with pytest.raises(RagFtError, match=message):
            read("beir", path=beir)

    def test_bad_rows_name_the_file_and_field(self, beir):
        write(beir / "queries.jsonl", [{"_id": "q1", "text": "?", "metadata": {"answers": [""]}}])
        with pytest.raises(RagFtError, match=r"queries\.jsonl, row 1: metadata\.answers holds an empty text"):
            read("beir", path=beir)
        with pytest.raises(RagFtError, match=r"data\.sources\.mine\.answers: there is no file nowhere"):
            read("beir", path=beir, answers="nowhere")
