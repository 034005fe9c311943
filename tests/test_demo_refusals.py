"""What visitors of the demo are told when something goes wrong: without paths of the machine, and in their language."""

import re
from pathlib import Path

import pytest

from data_builders.documents.ocr import SKIPPED
from data_builders.errors import RagFtError
from rag_ft.app.demo_refusals import in_words
from rag_ft.app.demo_talk import told
from rag_ft.app.reader import _BEGINNINGS, _SENTENCES, memory_problem
from rag_ft.app.reader import read as read_file
from rag_ft.app.reading import _of_time
from rag_ft.app.settings import LibrarySettings


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("no such file: /home/ada/notes/a.txt.", "no such file: ..."),
        ("cannot read '/srv/x/y': gone", "cannot read '...': gone"),
        (r"cannot read C:\Users\ada\a.txt, sorry", "cannot read ..., sorry"),
        ("see ~/x/y now", "see ... now"),
        ("the server http://127.0.0.1:8000/v1/chat says no", "the server http://127.0.0.1:8000/v1/chat says no"),
        ("24 km/h and/or 3/4 of it", "24 km/h and/or 3/4 of it"),
    ],
)
def test_paths_of_this_machine_are_taken_out_of_what_is_told(message, wanted):
    assert told(RagFtError(message)) == wanted


def test_paths_are_those_of_this_machine_too(tmp_path):
    assert str(tmp_path) not in told(RagFtError(f"in {tmp_path} and {Path.cwd()}"))


def sentences_of_readers():
    """Return every sentence that readers say of a file, as visitors get them: without the advice."""
    settings = LibrarySettings()
    large = [_of_time(60, 30, left, page) for left, page in ((1.0, 0), (99.0, 3), (99.0, 0))]
    scans = ["ocr is off", "tesseract is not installed", "tesseract has no language kor"]
    told_of = [
        *(one.replace("{count}", "1,234") for one in _SENTENCES.values() if "{ocr}" not in one),
        *(_SENTENCES[SKIPPED].replace("{count}", "3").replace("{ocr}", one) for one in scans),
        *(f"takes longer than {one}" for one in large),
        memory_problem(settings),
        "cannot be read: reading it broke off after 3 seconds",
        "cannot be read: the process that reads files does not start",
        "cannot be read (ValueError)",
    ]
    return [re.sub(r": set \w+=.*$", "", one) for one in told_of]


@pytest.mark.parametrize("sentence", sentences_of_readers())
def test_what_is_wrong_with_a_file_is_korean_on_the_korean_page(sentence):
    assert in_words("en", sentence) == sentence
    rest = re.sub(r"PDF|OCR|MB|HTML|Markdown|tesseract|kor|ValueError", "", in_words("ko", sentence))
    assert not re.search("[A-Za-z]", rest), rest


def test_bad_files_of_every_kind_are_korean_on_the_korean_page(tmp_path):
    """The sentences are those of the real reader."""
    for number, (beginning, _, suffix) in enumerate(_BEGINNINGS):
        path = tmp_path / f"{number}{'.txt' if suffix or number % 2 else '.pdf'}"
        path.write_bytes(beginning + b"0" * 8)
        (problem,) = read_file(path, path.name, LibrarySettings(), lambda page: None)["problems"]
        assert "whatever its name says" in problem
        rest = re.sub(r"PDF|HTML|Markdown|zip|\.docx|Office|gzip|\.pdf", "", in_words("ko", problem))
        assert not re.search("[A-Za-z]", rest), rest
    (tmp_path / "long.txt").write_text("Some words of a text that goes on. " * 400)
    for name, setting in (("max_passages", {"max_passages": 1}),):
        (problem,) = read_file(tmp_path / "long.txt", "a", LibrarySettings(**setting), lambda page: None)["problems"]
        assert name in problem
        assert "최대 1개" in in_words("ko", re.sub(r": set \w+=.*$", "", problem))
