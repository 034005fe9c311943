"""Importers of other people's QA formats: rows and files that do not fit, and files written in unusual ways."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from imported import CASES, Read, opened, refused, written

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.sources.files import FORMATS

# rows that do not fit


def _without(row: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != field}


def _squad_with(**fields: Any) -> dict[str, Any]:
    row = copy.deepcopy(FORMATS["squad"].example)
    row["paragraphs"][0]["qas"][0].update(fields)
    return {"data": [FORMATS["squad"].example, row]}


_CTX = {"title": "t", "text": "x"}


def _kilt_to(last: int) -> dict[str, Any]:
    span = {"wikipedia_id": "1", "start_paragraph_id": 3, "end_paragraph_id": last}
    return {"id": "1", "input": "q", "output": [{"answer": "a", "provenance": [span]}]}


BAD_ROWS = {
    "squad: a flat row": ("squad", {"data": [{"context": "x"}] * 2}, "paragraphs is missing"),
    "squad: no question": ("squad", _squad_with(question=None), "paragraphs.0.qas.0.question is null"),
    "squad: possible without answer": ("squad", _squad_with(answers=[]), "qas.0.answers holds no answer"),
    "squad: impossible with answer": ("squad", _squad_with(is_impossible=True), "answers holds an answer although"),
    "squad: impossible or not": ("squad", _squad_with(is_impossible="no"), 'is_impossible is "no"'),
    "squad: place as text": (
        "squad", _squad_with(answers=[{"text": "1932", "answer_start": "47"}]), "qas.0.answers.0.answer_start is"
    ),
    "dpr: no passages": ("dpr", {"question": "q", "answers": ["a"]}, "positive_ctxs is missing, and so is ctxs"),
    "dpr: no answers": ("dpr", {"question": "q", "ctxs": []}, "answers is missing"),
    "dpr: empty answers": ("dpr", {"question": "q", "answers": [], "ctxs": []}, "answers holds no answer"),
    "dpr: a passage as text": ("dpr", {"question": "q", "answers": ["a"], "ctxs": ["x"]}, 'ctxs is ["x"]'),
    "dpr: a passage without text": (
        "dpr", {"question": "q", "answers": ["a"], "positive_ctxs": [_CTX, {"title": "t"}]},
        "positive_ctxs.1.text is missing",
    ),
    "dpr: a score that is none": (
        "dpr", {"question": "q", "answers": ["a"], "ctxs": [{**_CTX, "score": "high"}]}, 'ctxs.0.score is "high"'
    ),
    "dpr: a score beyond numbers": (
        "dpr", {"question": "q", "answers": ["a"], "ctxs": [{**_CTX, "score": float("nan")}]}, "ctxs.0.score is NaN"
    ),
    "dpr: half a character": ("dpr", {"question": "\ud83d", "answers": ["a"], "ctxs": []}, "question has half a"),
    "kilt: without answers": ("kilt", {"id": "1", "input": "q", "output": []}, "output holds no answer"),
    "kilt: a backward span": ("kilt", _kilt_to(2), "output.0.provenance.0.end_paragraph_id is 2"),
    "kilt: an endless span": ("kilt", _kilt_to(10**9), "output.0.provenance.0.end_paragraph_id is 1000000000"),
    "hotpotqa: no answer": ("hotpotqa", _without(FORMATS["hotpotqa"].example, "answer"), "answer is missing"),
    "hotpotqa: a fact elsewhere": (
        "hotpotqa", {**FORMATS["hotpotqa"].example, "supporting_facts": [["Ilse", 0]]},
        'supporting_facts.0 names "Ilse", which is no title in context',
    ),
    "hotpotqa: unequal lists": (
        "hotpotqa", {**FORMATS["hotpotqa"].example, "context": {"title": ["a"], "sentences": []}},
        "context needs lists of the same length under title and sentences",
    ),
    "hotpotqa: sentences as one text": (
        "hotpotqa", {**FORMATS["hotpotqa"].example, "context": [["Aldern", "It lies there."]]}, "context.0.1 is"
    ),
    "litm: no gold": (
        "lost_in_the_middle", {"question": "q", "answers": ["a"], "ctxs": [_CTX]}, "ctxs has no passage with isgold"
    ),
    "rgb: no answer": ("rgb", {"id": 1, "query": "q", "positive": [], "negative": []}, "answer is missing"),
    "rgb: an empty part": (
        "rgb", {"id": 1, "query": "q", "answer": ["a", []], "positive": [], "negative": []}, "answer.1 is empty"
    ),
    "rgb: a part without passages": (
        "rgb", {"id": 1, "query": "q", "answer": ["a", "b"], "positive": [["x"], []]}, "positive.1 is empty"
    ),
    "flashrag: no answers": ("flashrag", {"id": "1", "question": "q"}, "golden_answers is missing"),
    "raft: no answer": (
        "raft", {**FORMATS["raft"].example, "cot_answer": "It is 1932."}, "cot_answer has no <ANSWER>:"
    ),
    "raft: flat context": ("raft", {**FORMATS["raft"].example, "context": {"sentences": ["x"]}}, "context.sentences"),
    "a list as a row": ("flashrag", [1], "the row is [1], not an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_that_does_not_fit_is_named_by_file_row_and_field_beside_a_right_row(tmp_path: Path, case: str) -> None:
    kind, row, says = BAD_ROWS[case]
    path = tmp_path / "rows.json"
    if kind == "squad":
        written(path, row)
    else:
        path.write_text(f"{json.dumps(FORMATS[kind].example)}\n{json.dumps(row)}\n", encoding="utf-8")
    message = refused(kind, path)
    assert message.startswith(f"{path}, row {1 if 'flat row' in case else 2}: ")
    assert says in message
    assert json.dumps(FORMATS[kind].example, ensure_ascii=False) in message
    assert "bad_rows: skip" in message


def test_rows_that_do_not_fit_can_be_left_out_and_are_counted_by_field(tmp_path: Path) -> None:
    right = FORMATS["dpr"].example
    bad = [{**right, "ctxs": [_CTX] * n + [{"title": "t"}]} for n in range(3)]
    read = Read("dpr", written(tmp_path / "rows.jsonl", right, *bad, {}, right), bad_rows="skip")
    assert len([record for record in read.records if isinstance(record, Question)]) == 2
    assert read.tally.dropped == {
        "rows that do not fit kind dpr: ctxs.*.text": 3,
        "rows that do not fit kind dpr: positive_ctxs": 1,
    }
    assert read.tally.samples["rows that do not fit kind dpr: ctxs.*.text"][0] == "rows.jsonl row 2"


def test_a_corpus_row_that_does_not_fit_is_refused_or_left_out_like_any_other(tmp_path: Path) -> None:
    pages = written(tmp_path / "pages.jsonl", {"wikipedia_id": "1", "wikipedia_title": "t", "text": ["x", 3, None]})
    message = refused("kilt", CASES / "kilt.jsonl", knowledge_source=str(pages))
    assert message.startswith(f"{pages}, row 1: text.2 is null, not a text")
    read = Read("kilt", CASES / "kilt.jsonl", knowledge_source=str(pages), bad_rows="skip")
    assert sum(read.tally.dropped.values()) == 1
    assert len(read.questions) == 2


def test_lines_that_are_not_json_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", FORMATS["dpr"].example, FORMATS["dpr"].example)
    with path.open("ab") as file:
        file.write(b'{"question": "cut o\n\xff\xfe\n' + b"[" * 100_000 + b"\n[]\n")
    assert f"{path}, line 3 is not JSON" in refused("dpr", path)
    read = Read("dpr", path, bad_rows="skip")
    assert sum(isinstance(record, Question) for record in read.records) == 2
    not_json, not_a_row = (f"rows that do not fit kind dpr: {field}" for field in ("not JSON", "the row"))
    assert read.tally.dropped == {not_json: 3, not_a_row: 1}
    assert read.tally.samples[not_json] == ["rows.jsonl row 3", "rows.jsonl row 4", "rows.jsonl row 5"]


def test_a_document_that_is_not_json_stops_even_where_bad_rows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('{"data": [{"title": ', encoding="utf-8")
    with pytest.raises(RagFtError, match="is not JSON from end to end"):
        Read("squad", path, bad_rows="skip")


# files


@pytest.mark.parametrize("name", ["squad.json", "dpr.json", "hotpotqa.json"])
@pytest.mark.parametrize("form", ["gz", "bom", "one line", "one line gz", "windows"])
def test_a_document_reads_the_same_however_it_is_written(tmp_path: Path, name: str, form: str) -> None:
    kind, data = name.partition(".")[0], (CASES / name).read_bytes()
    if form.startswith("one line"):
        data = json.dumps(json.loads(data), ensure_ascii=False).encode()
    if form == "windows":
        data = data.replace(b"\n", b"\r\n")
    if form in ("bom", "windows"):
        data = b"\xef\xbb\xbf" + data
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    assert Read(kind, path).records == Read(kind, CASES / name).records


def test_rows_longer_than_any_buffer_are_read_from_lines_and_from_one_line(tmp_path: Path) -> None:
    text = "알던은 루네강에 있다. " * 20_000
    row = {**FORMATS["dpr"].example, "ctxs": [{"title": "", "text": text}]}
    lines = Read("dpr", written(tmp_path / "a.jsonl", row, row))
    one = Read("dpr", written(tmp_path / "b.json", [row, row]))
    assert lines.records == one.records
    article = {"title": "", "paragraphs": [{"context": text, "qas": []}]}
    read = Read("squad", written(tmp_path / "c.json", {"version": "1.1", "data": [article]}))
    assert [passage.text for passage in read.passages.values()] == [text]


def test_records_come_before_the_file_was_read_to_its_end(tmp_path: Path) -> None:
    article = json.dumps(FORMATS["squad"].example)
    path = tmp_path / "cut.json"
    path.write_text('{"data": [' + f"{article}, " * 3000 + '{"title": ', encoding="utf-8")
    records: Iterator[Any] = opened("squad", path).records(Tally())
    assert isinstance(next(records), Passage)
    assert sum(1 for _ in islice(records, 3000)) == 3000
    with pytest.raises(RagFtError, match="is not JSON from end to end"):
        list(records)


def test_an_empty_file_has_no_rows_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    written(tmp_path / "full.jsonl", FORMATS["dpr"].example)
    read = Read("dpr", tmp_path / "*.jsonl")
    assert len(read.questions) == 1
    assert read.tally.counts == {"files without rows": 1}
    assert read.tally.samples == {"files without rows": ["empty.jsonl"]}


def _gzip_cut(path: Path) -> None:
    data = gzip.compress((CASES / "kilt.jsonl").read_bytes())
    path.write_bytes(data[: len(data) // 2])


BAD_FILES: dict[str, tuple[str, Any, str]] = {
    "a cut .gz of lines": ("kilt", _gzip_cut, "cannot read "),
    "a cut .gz of a document": ("squad", _gzip_cut, "cannot read "),
    "a cut document": ("hotpotqa", b'[{"_id": "h1", ', "is not JSON from end to end"),
    "a cut line": ("kilt", b'{"id": "k1", "inp', "line 1 is not JSON"),
    "a binary file": ("dpr", b"PAR1\x15\x04\x15\x00\xff\xfe\x00", "line 1 is not JSON"),
    "a binary file for a document": ("squad", b"\x00\x01\x02\xff" * 9000, "is not JSON"),
    "UTF-16": ("dpr", '{"question": "q"}'.encode("utf-16"), "line 1 is not JSON"),
    "a table": ("flashrag", b"id,question\n1,when\n", "with `rag-ft import-check FILE`"),
    "a pretty document for lines": ("dpr", b'{\n "data": []\n}', "line 1 is not JSON"),
    "a one-line document for lines": ("dpr", b'{"data": [{"title": "x"}]}', "row 1: positive_ctxs is missing"),
    "lines for a document": ("squad", b'{"id": "1", "question": "q"}\n{"id": "2"}\n', "row 1: paragraphs is missing"),
    "another document": ("squad", b'{"articles": []}\n', "row 1: paragraphs is missing"),
    "a document without rows": ("squad", b'{\n "data": []\n}', 'has no rows under "data"'),
    "a list for a document": ("squad", b'[{"title": "x", "paragraphs": []}]', 'has no rows under "data"'),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_rows_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    kind, content, says = BAD_FILES[case]
    path = tmp_path / "given"
    content(path) if callable(content) else path.write_bytes(content)
    message = refused(kind, path)
    assert str(path) in message
    assert says in message


def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    assert "data.sources.mine.path: there is no file" in refused("dpr", tmp_path / "no.json")
    message = refused("flashrag", CASES / "flashrag.jsonl", corpus_path=str(tmp_path / "no.jsonl"))
    assert "data.sources.mine.corpus_path: there is no file" in message
