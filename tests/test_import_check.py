"""`rag-ft import-check`: which kind it finds, what it shows, and that what it says to paste works."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from data_builders.manifest import Tally
from data_builders.records import Passage, Question, Ranking
from data_builders.sources import SourceSettings, open_source
from data_builders.sources.check import check_path
from data_builders.sources.files import CORPORA, FORMATS
from data_builders.sources.hub_guess import guess_columns
from data_builders.sources.jsonl import PASSAGES, QUESTIONS
from rag_ft.cli.import_check import escaped

BRIDGE = {"title": "Aldern bridge", "text": "It was opened in 1932."}
OWN = {"id": "q1", "question": "When was it opened?", "answers": ["1932"]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *rows: Any) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def pasted(out: str) -> Any:
    """The one source of the recipe lines in what was printed, checked as a recipe's."""
    lines = out[out.index("\ndata:\n") + 1 :].split("\n\n")[0]
    (settings,) = yaml.safe_load(lines)["data"]["sources"].values()
    return TypeAdapter(SourceSettings).validate_json(json.dumps(settings))


def best(path: Path) -> str:
    return check_path(path)[0].kind


class TestBestKind:
    @pytest.mark.parametrize("format_", [QUESTIONS, PASSAGES, *FORMATS.values()], ids=lambda format_: format_.kind)
    def test_the_example_of_every_kind_is_found_to_be_of_that_kind(self, here, format_):
        row = {"data": [format_.example]} if format_.items == "data.item" else format_.example
        assert best(write("file.json", row)) == format_.kind

    @pytest.mark.parametrize("kind", CORPORA)
    def test_files_of_passages_are_found_with_the_setting_that_names_them(self, here, kind):
        field, format_ = CORPORA[kind]
        verdict = check_path(write("file.jsonl", format_.example))[0]
        assert (verdict.kind, verdict.settings[field]) == (f"{kind} ({field})", "file.jsonl")

    def test_questions_about_documents_are_told_from_questions_with_passages(self, here):
        verdict = check_path(write("file.jsonl", {**OWN, "document": "pump.pdf", "quote": "since 1932"}))[0]
        assert verdict.settings == {"kind": "documents", "path": "FOLDER", "questions": "file.jsonl"}

    def test_some_questions_about_documents_may_name_none(self, here):
        rows = {**OWN, "document": "pump.pdf"}, {"question": "Who leads it?", "answers": []}
        verdict = check_path(write("file.jsonl", *rows))[0]
        assert (verdict.kind, verdict.fits) == ("documents (questions)", True)
        assert best(write("others.jsonl", rows[1], {**rows[1], "answers": ["Ada"]})) == "jsonl"

    def test_a_list_in_one_document_is_read_too(self, here):
        Path("file.json").write_text(json.dumps([OWN, OWN], indent=2))
        assert best(Path("file.json")) == "jsonl"

    def test_a_kind_that_fits_some_rows_comes_before_those_that_fit_none(self, here):
        verdicts = check_path(write("file.jsonl", OWN, {"question": "And?"}, OWN))
        assert (verdicts[0].kind, verdicts[0].fitting, verdicts[0].rows) == ("jsonl", 2, 3)
        assert verdicts[0].reason == "row 2: answers is missing"
        assert not any(verdict.fitting for verdict in verdicts[1:])

    def test_only_the_first_twenty_rows_are_looked_at(self, here):
        path = write("file.jsonl", *[OWN] * 20, "no row")
        assert check_path(path)[0].fits

    def test_rows_of_no_kind_are_a_table_with_columns(self, here):
        row = {"query": "When?", "response": {"text": ["1932"]}, "passages": [{**BRIDGE, "is_selected": 1}]}
        verdict = check_path(write("file.jsonl", row))[0]
        assert verdict.settings == {
            "kind": "hub",
            "dataset": "file.jsonl",
            "splits": "train",
            "columns": {
                "question": "query",
                "answers": "response.text",
                "context": "passages.text",
                "title": "passages.title",
                "is_gold": "passages.is_selected",
            },
        }
        assert verdict.counts()["with gold passages"] == 1

    def test_a_table_without_a_question_lists_its_columns(self, here):
        Path("file.csv").write_text("frage,antwort\nWann?,1932\n")
        (verdict,) = check_path(Path("file.csv"))
        assert (verdict.fits, verdict.reason) == (False, "name its columns under columns: frage, antwort")


class TestFolders:
    def test_a_beir_folder_and_a_file_of_it(self, here):
        write("set/corpus.jsonl", {"_id": "d1", **BRIDGE})
        write("set/queries.jsonl", {"_id": "q1", "text": "When?"})
        Path("set/qrels").mkdir()
        Path("set/qrels/test.tsv").write_text("q1\td1\t1\n")
        for path in ("set", "set/queries.jsonl"):
            (verdict,) = check_path(Path(path))
            assert (verdict.settings, verdict.fits) == ({"kind": "beir", "path": "set"}, True)
            assert "no answers" in verdict.note
            assert verdict.examples()[0].passage == Passage("d1", **BRIDGE, document="Aldern bridge")

    def test_a_broken_beir_folder_says_what_is_missing(self, here):
        write("set/corpus.jsonl", {"_id": "d1", **BRIDGE})
        (verdict,) = check_path(Path("set"))
        assert not verdict.fits
        assert "queries.jsonl" in verdict.reason

    def test_a_flashrag_folder_is_no_broken_beir_folder(self, here):
        write("set/corpus.jsonl", {"id": "0", "contents": "Aldern bridge\nIt was opened in 1932."})
        write("set/test.jsonl", {"id": "test_0", "question": "When was it opened?", "golden_answers": ["1932"]})
        assert check_path(Path("set"))[0].settings["corpus_path"] == "set/corpus.jsonl"

    def test_documents_are_counted_by_ending_without_papers_about_the_data(self, here):
        for name in ("docs/a.PDF", "docs/b.md", "docs/in/c.md", "docs/README.md", "docs/.git/d.md"):
            write(name)
        (verdict,) = check_path(Path("docs"))
        assert verdict.settings == {"kind": "documents", "path": "docs"}
        assert "2 .md, 1 .pdf" in verdict.note

    def test_one_document_stands_for_its_folder(self, here):
        assert check_path(write("docs/a.pdf"))[0].settings == {"kind": "documents", "path": "docs"}

    def test_a_folder_of_rows_is_judged_by_its_first_file(self, here):
        write("set/b.jsonl", OWN)
        write("set/a.jsonl", OWN)
        verdict = check_path(Path("set"))[0]
        assert (verdict.kind, verdict.settings["path"]) == ("jsonl", "set/a.jsonl")
        assert "a.jsonl alone" in verdict.note

    def test_a_folder_of_tables_gets_the_splits_it_has(self, here):
        for split in ("train", "validation"):
            write(f"set/{split}.csv")
            Path(f"set/{split}.csv").write_text("question,answer,text\nWhen?,1932,In 1932.\n")
        verdict = check_path(Path("set"))[0]
        assert (verdict.kind, verdict.settings["splits"]) == ("hub", {"train": "train", "validation": "validation"})
        assert verdict.counts()["with gold passages"] == 1


class TestVerb:
    def test_it_shows_three_rows_and_lines_that_load_the_same_records(self, here, run_verb):
        passages = [{"id": "p1", **BRIDGE, "is_gold": True, "score": 2.5, "retriever": "bm25"}]
        rows = [
            {**OWN, "id": f"q{number}", "question": f"Asked {number}?", "passages": passages} for number in range(5)
        ]
        write("my rows.jsonl", *rows)
        code, out, err = run_verb("import-check", "my rows.jsonl")
        assert (code, err) == (0, "")
        assert out.startswith(
            "my rows.jsonl fits kind jsonl (5 rows looked at)\n5 questions; 5 with answers; 5 with gold"
        )
        assert re.findall(r"question  Asked (\d)\?", out) == ["0", "1", "2"]
        assert out.count("passage   [p1] Aldern bridge | It was opened in 1932.") == 3
        assert out.count("gold      p1\n") == out.count("ranking   bm25: p1 2.5\n") == 3
        assert "  dpr                       row 1: positive_ctxs is missing, and so is ctxs\n" in out
        records = Counter(type(record) for record in open_source("mine", pasted(out), 0).records(Tally()))
        assert records == {Passage: 5, Question: 5, Ranking: 5}

    def test_gold_without_passages_asks_for_the_file_that_holds_them(self, here, run_verb):
        write("rows.jsonl", OWN, {**OWN, "gold": ["p7"]})
        _, out, _ = run_verb("import-check", "rows.jsonl")
        hint = "the file that holds the passages named by gold"
        assert f"\n      passages: YOUR_PASSAGES.jsonl  # {hint}\n" in out
        assert pasted(out).passages == "YOUR_PASSAGES.jsonl"
        write("rows.jsonl", {**OWN, "gold": ["p7"], "passages": [{"id": "p7", **BRIDGE}]})
        _, out, _ = run_verb("import-check", "rows.jsonl")
        assert pasted(out).passages is None

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
    @pytest.mark.parametrize("text", ["", "\n \n"])
    def test_an_empty_file_is_said_to_be_empty(self, here, run_verb, name, text):
        Path(name).write_text(text)
        code, out, _ = run_verb("import-check", name)
        assert code == 1
        assert "  hub                       the file is empty\n" in out

    @pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda format_: format_.kind)
    def test_the_lines_for_every_kind_are_a_valid_source(self, here, run_verb, format_):
        write("rows.json", {"data": [format_.example]} if format_.items == "data.item" else format_.example)
        code, out, _ = run_verb("import-check", "rows.json")
        assert code == 0
        assert pasted(out).kind == format_.kind

    def test_some_bad_rows_are_a_finding(self, here, run_verb):
        write("rows.jsonl", OWN, {"question": "And?"})
        code, out, _ = run_verb("import-check", "rows.jsonl")
        assert code == 1
        assert "fits kind jsonl in 1 of 2 rows: mend the others or set bad_rows: skip. row 2: answers is missing" in out

    def test_nothing_that_fits_is_a_finding_with_reasons(self, here, run_verb):
        write("rows.jsonl", {"name": "Aldern"})
        code, out, _ = run_verb("import-check", "rows.jsonl")
        assert code == 1
        assert out.startswith("no kind fits rows.jsonl")
        assert "  jsonl                     row 1: question is missing\n" in out
        assert "data:" not in out

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere", "there is no file or folder nowhere"),
            ("noise.bin", "noise.bin, line 1 is not JSON"),
            ("bare", "bare holds no rows or tables"),
        ],
    )
    def test_what_cannot_be_read_is_one_sentence(self, here, run_verb, name, message):
        Path("noise.bin").write_bytes(bytes(range(128, 256)))
        Path("bare").mkdir()
        code, out, err = run_verb("import-check", name)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1

    def test_files_cannot_reach_the_terminal(self, here, run_verb):
        evil = "\x1b[31m\x9b\u202e\x07\r\n\u2028"
        row = {
            "question": f"a{evil}",
            "answers": [evil],
            "group": evil,
            "passages": [{"text": evil, "score": 1, "id": evil}],
        }
        write("rows.jsonl", row)
        write("other.jsonl", {evil: "x", "answers": {evil: evil}, "question": "?"})
        for name in ("rows.jsonl", "other.jsonl"):
            _, out, err = run_verb("import-check", name)
            assert not set(out + err) & set(evil) - {"\n"} - set("[31m")


class TestEscaped:
    @given(st.text(st.characters()))
    def test_every_character_is_printable(self, text):
        assert all(char.isprintable() or char.isspace() for char in escaped(text))
        assert "\n" not in escaped(text)
        escaped(text).encode()

    def test_ordinary_text_of_any_script_stays(self):
        assert escaped("Röntgen, 汶川, 다리") == "Röntgen, 汶川, 다리"
        assert escaped("a" * 20, 10) == "aaaaaaa..."


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "?", "answer": "x"}, {"question": "question", "answers": "answer"}),
        ({"question": "?"}, {"question": "question", "answers": None}),
        (
            {"question": "?", "answer": {"value": "a", "aliases": ["b"]}},
            {"question": "question", "answers": ["answer.value", "answer.aliases"]},
        ),
        (
            {"id": "1", "question": "?", "answer": "a", "context": {"title": ["A"], "sentences": [["B."]]}},
            {
                "question": "question", "answers": "answer", "id": "id",
                "context": "context.sentences", "title": "context.title",
            },
        ),
        (
            {"question": "?", "answers": [], "title": "T", "context": "C"},
            {"question": "question", "answers": "answers", "context": "context", "title": "title"},
        ),
        ({"name": "x"}, {}),
    ],
)  # fmt: skip
def test_columns_are_guessed_by_their_names(row, expected):
    assert guess_columns(row) == expected
