"""The page of rejected labels and the lines beside it: all counted, few shown, everything escaped."""

import json
from dataclasses import replace

import pytest
from page_reader import Page
from planted_labels import planted_labels

from data_builders.errors import RagFtError
from data_builders.labels.candidate import Rejection
from data_builders.labels.gates import check
from data_builders.labels.rejected_page import LONGEST, rejected_writer
from data_builders.labels.settings import GatesSettings
from data_builders.records import Passage

HOSTILE = '</pre><script>alert("x")</script><img src=x onerror=alert(1)> {{ 7*7 }} \u202egnp.\x00'


def some_candidate():
    return next(planted.candidate for planted in planted_labels() if planted.gate == "answer")


def write(folder, rejections, kept=None):
    with rejected_writer(folder, kept) as take:
        for candidate, rejection in rejections:
            take(candidate, rejection)
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text("utf-8").splitlines()]
    return lines, (folder / "rejected.html").read_text("utf-8")


def test_table_counts_kept_and_rejected_by_gate_in_the_order_of_the_gates(tmp_path):
    found = [(planted.candidate, check(planted.candidate, GatesSettings())) for planted in planted_labels()]
    rejected = [(candidate, rejection) for candidate, rejection in found if rejection]
    lines, text = write(tmp_path, rejected, lambda: len(found) - len(rejected))
    rows = [[cell.strip() for cell in row] for row in Page(text).tables[0]["rows"]]
    assert rows[0] == ["gate", "labels", "share", "what it asks for"]
    assert rows[1][:3] == ["kept", "79", "39.5%"]
    assert [row[0] for row in rows[2:]] == [
        "well_formed",
        "citations",
        "no_evidence",
        "quotes",
        "answer",
        "support",
        "consistent",
        "leak",
        "length",
    ]
    for row in rows[2:]:
        assert int(row[1]) == sum(planted.gate == row[0] for planted in planted_labels())
        assert row[3]
    assert "121 labels turned away, 79 kept" in text
    assert len(lines) == 121


def test_lines_hold_what_is_needed_to_find_a_label_again(tmp_path):
    candidate = replace(some_candidate(), raw='{"answer": "세종"}')
    (line,), _ = write(tmp_path, [(candidate, Rejection("answer", "why so"))])
    assert line == {
        "id": "tower",
        "gate": "answer",
        "why": "why so",
        "question": "When was the Eiffel Tower completed?",
        "answers": ["31 March 1889", "1889"],
        "answerable": True,
        "passages": ["p0", "p1", "p2"],
        "raw": '{"answer": "세종"}',
    }


def test_a_gate_shows_its_first_twenty_and_lines_have_all(tmp_path):
    candidate = some_candidate()
    many = [
        (replace(candidate, asked=replace(candidate.asked, id=f"q{number}")), Rejection("leak", f"reason {number}."))
        for number in range(25)
    ]
    lines, text = write(tmp_path, many)
    assert len(lines) == 25
    page = Page(text)
    assert sum(tag == "article" for tag, _ in page.tags) == 20
    assert "reason 19." in text
    assert "reason 20." not in text
    assert "leak: 25" in text
    assert "share" not in text


def test_calls_without_an_answer_are_listed_beside_the_gates(tmp_path):
    rejection = Rejection("no_reply", "HTTP 400: refused")
    (line,), text = write(tmp_path, [(replace(some_candidate(), raw=""), rejection)])
    assert line["gate"] == "no_reply"
    assert "HTTP 400: refused" in text
    assert "(no output)" in text


def test_outputs_questions_and_passages_run_nothing(tmp_path):
    candidate = some_candidate()
    asked = replace(candidate.asked, id=HOSTILE, question=HOSTILE, answers=(HOSTILE,))
    hostile = replace(candidate, passages=(Passage(HOSTILE, HOSTILE, HOSTILE),), asked=asked, raw=HOSTILE)
    (line,), text = write(tmp_path, [(hostile, Rejection(HOSTILE, HOSTILE))])
    assert line["raw"] == HOSTILE
    page = Page(text)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "src"]
    assert "default-src 'none'" in text
    assert "{{ 7*7 }}" in text
    assert "".join(page.texts).count('</pre><script>alert("x")') == 9


def test_text_that_is_no_unicode_is_written_and_read_back(tmp_path):
    (line,), text = write(tmp_path, [(replace(some_candidate(), raw="a\ud800b"), Rejection("leak", "why"))])
    assert line["raw"] == "a\ud800b"
    assert "a?b" in text


def test_long_outputs_are_cut_on_the_page_only(tmp_path):
    (line,), text = write(tmp_path, [(replace(some_candidate(), raw="x" * (LONGEST + 5)), Rejection("leak", "why"))])
    assert len(line["raw"]) == LONGEST + 5
    assert "(5 characters more)" in text


def test_nothing_rejected_leaves_an_empty_page(tmp_path):
    lines, text = write(tmp_path / "new", [], lambda: 3)
    assert lines == []
    assert "0 labels turned away, 3 kept" in text


def test_a_build_that_breaks_off_leaves_neither_file(tmp_path):
    def broken():
        yield some_candidate(), Rejection("leak", "why")
        raise RagFtError("the budget is spent")

    with pytest.raises(RagFtError, match="the budget is spent"):
        write(tmp_path, broken())
    assert list(tmp_path.iterdir()) == []
