"""Any data set that `datasets` loads, by the names of its columns; local folders and files, no network."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.errors import RagFtError
from data_builders.files import content_hash
from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.sources.hub import Hub, HubSettings
from data_builders.sources.hub_columns import HubColumns, parse_columns
from data_builders.sources.rows import BadRow, Place


def read(tally: Tally | None = None, **settings: Any) -> list[Any]:
    checked = HubSettings.model_validate_json(json.dumps({"kind": "hub", **settings}, default=str))
    return list(Hub(checked, "mine", 0).records(tally or Tally()))


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


SQUAD_ROWS = [
    {"id": "1", "title": "Aldern", "context": "It lies on the Ruhne.", "question": "Where?",
     "answers": {"text": ["Ruhne", "the Ruhne"], "answer_start": [15, 11]}},
    {"id": "2", "title": "Aldern", "context": "It lies on the Ruhne.", "question": "When?",
     "answers": {"text": [], "answer_start": []}},
]  # fmt: skip
SQUAD_COLUMNS = {"id": "id", "answers": "answers.text", "context": "context", "title": "title"}


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def columns(row: dict[str, Any], **names: Any) -> list[Any]:
    return list(parse_columns(HubColumns(**names), row, Place("mine", "rows", 1)))


class TestHub:
    def test_a_folder_of_parquet_is_read_split_by_split(self, tmp_path):
        table(tmp_path / "set" / "train-0.parquet", SQUAD_ROWS)
        table(tmp_path / "set" / "validation-0.parquet", SQUAD_ROWS[:1])
        splits = {"train": "train", "test": "validation"}
        records = read(dataset=tmp_path / "set", splits=splits, columns=SQUAD_COLUMNS)
        id_ = f"p-{content_hash(['Aldern', 'It lies on the Ruhne.'])}"
        passage = Passage(id_, "Aldern", "It lies on the Ruhne.", "Aldern", split="train")
        assert records[:4] == [
            passage,
            Question("1", "Where?", ("Ruhne", "the Ruhne"), (id_,), source="mine", split="train"),
            passage,
            Question("2", "When?", (), (), source="mine", split="train"),
        ]
        assert [record.split for record in records[4:]] == ["test", "test"]
        shared = read(dataset=tmp_path / "set", splits=splits, columns=SQUAD_COLUMNS, corpus="shared")
        assert {passage.split for passage in shared if isinstance(passage, Passage)} == {""}

    @pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv", "tsv", "jsonl.gz"])
    def test_one_file_of_any_kind_of_table_is_read(self, tmp_path, ending):
        rows = [{"question": "Where?", "answers": "Ruhne", "context": "On the Ruhne."}]
        path = tmp_path / (f"it[is] mine.{ending}" if "gz" not in ending else f"mine.{ending}")
        if ending == "parquet":
            table(path, rows)
        elif ending.startswith("json"):
            write(path, rows)
        else:
            with path.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, rows[0], delimiter="," if ending == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        passage, question = read(dataset=path, columns={"context": "context"})
        assert (question.answers, question.gold, question.split) == (("Ruhne",), (passage.id,), "")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"columns": {"context": "paragraph"}}, "paragraph: .*only id, title, context, question, answers"),
            ({"columns": {"answers": "answers.texts"}}, "where texts should be, there is only text, answer_start"),
            ({"columns": {"answers": "title.text"}}, 'where text should be, there is a value without fields: "Aldern"'),
            ({"splits": "test"}, "has no split test, only train"),
            ({"config": "v2"}, r"'v2' not found\. Available: \['default'\]\. Set config to one of those"),
        ],
    )  # fmt: skip
    def test_what_is_not_there_is_named_with_what_is(self, tmp_path, settings, message):
        table(tmp_path / "set" / "train.parquet", SQUAD_ROWS)
        with pytest.raises(RagFtError, match=message):
            read(dataset=tmp_path / "set", **settings)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("someone/something", "HF_HUB_OFFLINE is set"),
            ("./nowhere", "cannot read the data set ./nowhere"),
            ("json", "json is a kind of file, not a data set"),
            ("notes.txt", r"notes\.txt does not end in \.parquet"),
            ("broken.parquet", r"cannot read the data set broken\.parquet"),
        ],
    )
    def test_a_data_set_that_cannot_be_had_is_one_sentence(self, tmp_path, monkeypatch, name, message):
        monkeypatch.chdir(tmp_path)
        Path("notes.txt").write_text("question,answers\n")
        Path("broken.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(RagFtError, match=message) as caught:
            read(dataset=name)
        assert "\n" not in str(caught.value)

    def test_code_in_a_data_set_is_not_run(self, tmp_path):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(RagFtError, match="Code in data sets is never run"):
            read(dataset=tmp_path / "set")
        assert not (tmp_path / "ran").exists()

    def test_a_bad_row_names_data_set_split_row_and_column(self, tmp_path):
        path = write(tmp_path / "rows.jsonl", [{"question": "a", "answers": ["b"]}, {"question": "", "answers": ["b"]}])
        with pytest.raises(RagFtError, match=r"rows\.jsonl \(train\), row 2: question is empty"):
            read(dataset=path)
        tally = Tally()
        assert len(read(tally, dataset=path, bad_rows="skip")) == 1
        assert tally.dropped == {"rows that do not fit kind hub: question": 1}


class TestColumns:
    def test_sentences_are_joined_and_gold_may_be_named_by_title(self):
        row = {
            "question": "?",
            "answer": "x",
            "context": {"title": ["A", "B", "C"], "sentences": [["One.", " Two."], ["Three."], []]},
            "supporting_facts": {"title": ["C", "A", "A"], "sent_id": [0, 0, 1]},
        }
        names = {"answers": "answer", "context": "context.sentences", "title": "context.title"}
        *passages, question = columns(row, **names, gold="supporting_facts.title")
        assert [(p.title, p.text) for p in passages] == [("A", "One. Two."), ("B", "Three."), ("C", "")]
        assert question.gold == (passages[2].id, passages[0].id)

    @pytest.mark.parametrize(
        ("gold", "expected"), [(1, [1]), ([2, 0], [2, 0]), ("b", [1]), (["c", "a"], [2, 0]), ([], [])]
    )
    def test_gold_may_be_numbers_or_texts(self, gold, expected):
        row = {"question": "?", "answers": ["x"], "docs": ["a", "b", "c"], "gold": gold}
        *passages, question = columns(row, context="docs", gold="gold")
        assert question.gold == tuple(passages[number].id for number in expected)

    def test_flags_of_structs_in_a_list_are_gold(self):
        docs = [{"passage_text": "a", "is_selected": 0}, {"passage_text": "b", "is_selected": 1}]
        row = {"question": "?", "answers": ["x"], "passages": docs}
        *passages, question = columns(row, context="passages.passage_text", is_gold="passages.is_selected")
        assert question.gold == (passages[1].id,)

    def test_several_columns_of_answers_are_joined(self):
        row = {"question": "?", "answer": {"value": "b", "aliases": ["a", "b", ""]}}
        assert columns(row, answers=("answer.value", "answer.aliases"))[-1].answers == ("b", "a")

    def test_true_and_false_are_yes_and_no(self):
        assert columns({"question": "?", "answers": True})[-1].answers == ("yes",)
        assert columns({"question": "?", "answers": False})[-1].answers == ("no",)

    def test_without_a_column_of_answers_gold_is_kept(self):
        passage, question = columns({"question": "?", "doc": "a"}, answers=None, context="doc")
        assert (question.answers, question.gold) == ((), (passage.id,))

    @pytest.mark.parametrize(
        ("row", "names", "message"),
        [
            (
                {"docs": ["a"], "gold": 1},
                {"gold": "gold"},
                "gold names 1, which is no number, text or title of its 1 passages",
            ),
            ({"docs": ["a"], "gold": True}, {"gold": "gold"}, "gold names true"),
            ({"docs": ["a", "b"], "t": ["A"]}, {"title": "t"}, "t has 1 titles for 2 passages"),
            ({"docs": [{"text": "a"}]}, {}, "docs has fields: name the one with the text, for example docs.text"),
            (
                {"docs": ["a"], "answers": {"text": ["x"], "answer_start": [3]}},
                {},
                "answers has fields: name the one with the text, for example answers.text",
            ),
            ({"docs": [None]}, {}, "docs is null, not a text"),
            ({"docs": ["a"], "f": [1, 0]}, {"is_gold": "f"}, "f is [1, 0], not true or false for each of 1 passages"),
            ({"docs": ["a"], "question": {"text": "?"}}, {}, 'question is {"text": "?"}, not a text'),
        ],
    )
    def test_a_value_that_does_not_fit_names_its_column(self, row, names, message):
        with pytest.raises(BadRow) as caught:
            columns({"question": "?", "answers": ["x"], **row}, context="docs", **names)
        assert str(caught.value).startswith(message)
