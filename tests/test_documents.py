"""What becomes of one document: text, tables, pages, boilerplate, chunks. The source is in test_documents_source.py."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pdf_files
import pytest
from documents_made import chunks_of, dropped, settings, texts_of, written
from hypothesis import given
from hypothesis import strategies as st
from pdfplumber.page import Page

from data_builders.documents.parts import Document, Line, Part, Report, Table
from data_builders.documents.read import chunk_document, read_document
from data_builders.documents.tables import Cell, Grid, make_table

# PDF


def test_running_heads_and_page_numbers_go_and_are_counted(tmp_path: Path) -> None:
    pdf_files.write_report(tmp_path / "r.pdf")
    document = read_document(tmp_path / "r.pdf", "r.pdf", settings())
    text = " ".join(texts_of(tmp_path / "r.pdf"))
    assert "Aldern Pump Works" not in text
    assert "of 4" not in text
    assert document.report.counts["running heads and page numbers removed"] == 8
    assert [f"Hall {page} made {page * 11} pumps." in text for page in (1, 2, 3, 4)] == [True] * 4


def test_boilerplate_stays_when_the_setting_says_so(tmp_path: Path) -> None:
    pdf_files.write_report(tmp_path / "r.pdf")
    assert "Page 3 of 4" in " ".join(texts_of(tmp_path / "r.pdf", boilerplate=False))


def test_a_sentence_that_goes_on_over_the_page_stays_whole_and_has_the_page_it_begins_on(tmp_path: Path) -> None:
    pdf_files.write_report(tmp_path / "r.pdf")
    found = chunks_of(tmp_path / "r.pdf", chunk_tokens=40, overlap_tokens=0)
    sentence = (
        "The new foundry, which had been planned by the engineers of the works for many years, was opened and cast its "
        "first wheel in the autumn of that year."
    )
    (chunk,) = (chunk for chunk in found if "foundry" in chunk.passage.text)
    assert chunk.passage.text == sentence
    assert (chunk.passage.page, chunk.last_page) == (1, 2)


def test_passages_carry_file_page_title_and_an_id_made_of_them(tmp_path: Path) -> None:
    pdf_files.write_report(tmp_path / "r.pdf")
    document = read_document(tmp_path / "r.pdf", "deep/r.pdf", settings(chunk_tokens=32, overlap_tokens=0))
    passages = [
        c.passage for c in chunk_document(document, settings(chunk_tokens=32, overlap_tokens=0), frozenset())[0]
    ]
    assert passages[0].id == "deep/r.pdf#p1-1"
    assert {passage.document for passage in passages} == {"deep/r.pdf"}
    assert {passage.title for passage in passages} == {"Annual report"}
    assert [passage.page for passage in passages] == sorted(passage.page for passage in passages)
    assert {passage.page for passage in passages} == {1, 2, 3, 4}
    assert len({passage.id for passage in passages}) == len(passages)


def test_a_split_table_repeats_its_two_level_header_and_loses_no_row(tmp_path: Path) -> None:
    pdf_files.write_table(tmp_path / "t.pdf", 50)
    texts = texts_of(tmp_path / "t.pdf")
    header = (
        "| District | Pumps / 2022 | Pumps / 2023 | Wheels / 2022 | Wheels / 2023 |\n| --- | --- | --- | --- | --- |"
    )
    assert len(texts) >= 4
    assert all(text.count(header) == 1 for text in texts)
    rows = re.findall(r"^\| D\d.*$", "\n".join(texts), re.M)
    expected = [f"| D{n} \\| east | {n} | {n + 1} | {'' if n == 1 else 7} | 8 |" for n in range(50)]
    assert rows == expected


def test_words_of_table_cells_stand_only_in_the_table(tmp_path: Path) -> None:
    pdf_files.write_table(tmp_path / "t.pdf", 3)
    (text,) = texts_of(tmp_path / "t.pdf")
    before, after = text.split("| District", 1)[0], text.rsplit("|", 1)[1]
    assert before.strip() == "The table shows what was sold in each district."
    assert after.strip() == "The next table follows in spring."


def test_columns_beside_each_other_are_read_one_after_the_other(tmp_path: Path) -> None:
    pdf_files.write_columns(tmp_path / "c.pdf")
    text = " ".join(texts_of(tmp_path / "c.pdf", overlap_tokens=0))
    found = re.findall(r"Part (\w) (begins|ends)\.", text)
    assert found == [(letter, what) for letter in "ABCDEF" for what in ("begins", "ends")]


def test_korean_pdf_text_is_read(tmp_path: Path) -> None:
    text = "알데른의 등대는 1911년에 세워졌다. 등지기는 이층에 산다."
    pdf_files.write_korean(tmp_path / "k.pdf", text)
    assert texts_of(tmp_path / "k.pdf") == [text]


def test_files_that_cannot_be_read_are_counted_by_reason(tmp_path: Path) -> None:
    pdf_files.write_words(tmp_path / "locked.pdf", "Secret.", owner_password="a", user_password="b")
    pdf_files.write_report(tmp_path / "whole.pdf")
    whole = (tmp_path / "whole.pdf").read_bytes()
    assert dropped(tmp_path / "locked.pdf") == {"PDF files that need a password": 1}
    assert dropped(written(tmp_path, "cut.pdf", whole[: len(whole) // 2])) == {"PDF files that are broken": 1}
    assert dropped(written(tmp_path, "empty.pdf", b"")) == {"PDF files that are broken": 1}
    assert dropped(written(tmp_path, "bytes.txt", bytes(range(256)))) == {"files that are not text": 1}
    assert dropped(written(tmp_path, "empty.txt", b"")) == {"files without any text": 1}


def test_a_pdf_that_only_restricts_its_owner_is_read(tmp_path: Path) -> None:
    pdf_files.write_words(tmp_path / "o.pdf", "Anyone may read these words.", owner_password="a")
    assert texts_of(tmp_path / "o.pdf") == ["Anyone may read these words."]


def test_one_broken_page_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pdf_files.write_report(tmp_path / "r.pdf")
    find = Page.find_tables

    def failing(page: Page, *args: Any, **named: Any) -> Any:
        if page.page_number == 3:
            raise KeyError("a damaged object")
        return find(page, *args, **named)

    monkeypatch.setattr(Page, "find_tables", failing)
    text = " ".join(texts_of(tmp_path / "r.pdf"))
    assert "Hall 4" in text
    assert "Hall 3" not in text
    assert dropped(tmp_path / "r.pdf") == {"PDF pages that could not be read": 1}


def test_words_broken_at_line_ends_are_joined_and_compounds_keep_their_hyphen() -> None:
    def line(text: str, paragraph: int = 1) -> Line:
        return Line(text, 1, 0.0, 10.0, 1, paragraph, True)

    lines = (
        line("The informa-"),
        line("tion on the well-"),
        line("known ELE-"),
        line("MENT in non-"),
        line("EU soft\xad"),
    )
    parts: tuple[Part, ...] = (*lines, line("ware.", 1), line("A well-known element.", 2))
    found, _ = chunk_document(Document("d.pdf", "D", parts, Report()), settings(), frozenset())
    assert found[0].passage.text == (
        "The information on the well-known ELEMENT in non-EU software.\n\nA well-known element."
    )


def test_a_document_can_be_sent_between_processes(tmp_path: Path) -> None:
    pdf_files.write_table(tmp_path / "t.pdf", 3)
    document = read_document(tmp_path / "t.pdf", "t.pdf", settings())
    assert pickle.loads(pickle.dumps(document)) == document


# tables


def cells(*rows: str) -> tuple[Cell, ...]:
    """Cells from rows like "a|b": `<` continues the cell on the left, `^` the one above."""
    grid = [row.split("|") for row in rows]
    found = []
    for r, row in enumerate(grid):
        for c, text in enumerate(row):
            if text in ("<", "^"):
                continue
            width = next((n for n in range(1, len(row) - c) if row[c + n] != "<"), len(row) - c)
            height = next((n for n in range(1, len(grid) - r) if grid[r + n][c] != "^"), len(grid) - r)
            found.append(Cell(r, c, height, width, text))
    return tuple(found)


def bodies(table: Table | None) -> list[tuple[str, ...]]:
    assert table is not None
    return [row.cells for row in table.rows]


def test_levels_of_a_header_are_merged_per_column() -> None:
    _, table = make_table(Grid(cells("Town|Sold|<|Left", "^|2022|2023|^", "Aldern|1|2|3")))
    assert table is not None
    assert table.header == ("Town", "Sold / 2022", "Sold / 2023", "Left")
    assert bodies(table) == [("Aldern", "1", "2", "3")]


def test_three_levels_of_a_header_are_merged() -> None:
    _, table = make_table(Grid(cells("T|All|<|<|<", "^|A|<|B|<", "^|x|y|x|y", "r|1|2|3|4")))
    assert table is not None
    assert table.header == ("T", "All / A / x", "All / A / y", "All / B / x", "All / B / y")


def test_a_header_with_gaps_instead_of_merged_cells_has_two_levels() -> None:
    _, table = make_table(Grid(cells("|2022||2023|", "Town|Sold|Left|Sold|Left", "Aldern|1|2|3|4")))
    assert table is not None
    assert table.header == ("Town", "2022 / Sold", "2022 / Left", "2023 / Sold", "2023 / Left")


def test_an_empty_cell_of_a_plain_header_does_not_make_the_first_row_a_header() -> None:
    _, table = make_table(Grid(cells("|Length|Width", "Pump|3|4", "Wheel|5|6")))
    assert table is not None
    assert table.header == ("", "Length", "Width")
    assert bodies(table) == [("Pump", "3", "4"), ("Wheel", "5", "6")]


def test_a_cell_over_several_rows_is_repeated_and_one_over_columns_stands_first() -> None:
    _, table = make_table(Grid(cells("Land|Town|Size", "North|Aldern|3", "^|Belm|4", "Islands|<|<")))
    assert bodies(table) == [("North", "Aldern", "3"), ("North", "Belm", "4"), ("Islands", "", "")]


def test_a_first_row_over_all_columns_is_the_caption() -> None:
    caption, table = make_table(Grid(cells("Sales by town|<", "Town|Sold", "Aldern|1")))
    assert caption == "Sales by town"
    assert table is not None
    assert table.header == ("Town", "Sold")


@pytest.mark.parametrize("rows", [("only one cell",), ("a|b",), ("a|", "b|"), ("|", "|"), ("a", "b", "c")])
def test_frames_are_no_tables(rows: tuple[str, ...]) -> None:
    assert make_table(Grid(cells(*rows))) == ("", None)


def test_rows_and_columns_without_text_go() -> None:
    _, table = make_table(Grid(cells("Town||Sold", "||", "Aldern||1")))
    assert table is not None
    assert (table.header, bodies(table)) == (("Town", "Sold"), [("Aldern", "1")])


def test_a_table_goes_on_over_the_page_only_with_the_same_columns() -> None:
    def table(page: int, edges: tuple[float, ...], *rows: str) -> Table:
        found = make_table(Grid(cells(*rows), page=page, edges=edges))[1]
        assert found is not None
        return found

    first, more = table(1, (10.0, 90.0), "Town|Sold", "Aldern|1"), table(2, (10.0, 90.0), "Belm|2", "Cold|3")
    other = table(3, (10.0, 120.0), "Name|Age", "Ada|36")
    own = settings()
    (chunk,), _ = chunk_document(Document("d.pdf", "D", (first, more, other), Report()), own, frozenset())
    assert chunk.passage.text == (
        "| Town | Sold |\n| --- | --- |\n| Aldern | 1 |\n| Belm | 2 |\n| Cold | 3 |\n\n"
        "| Name | Age |\n| --- | --- |\n| Ada | 36 |"
    )
    assert (chunk.passage.page, chunk.last_page) == (1, 3)


# HTML, Markdown, text

PAGE = """<!doctype html><html><head><title> Aldern
lighthouse </title><script>steal()</script><body><nav>Home</nav><header>Site</header>
<div><h2>The tower</h2><p>It was built
in <b>19</b>11.<br>It is tall.</p><ul><li>one<li>two</ul>
<table><thead><tr><th rowspan=2>Year</th><th colspan=2>Cost</th></tr><tr><th>oil</th><th>a|b</th></tr></thead>
<tr><td rowspan=2>1911</td><td>5</td><td>6</td></tr><tr><td>7</td><td colspan=999999999>8</td></tr></table>
<table><tr><td>A frame.</td></tr></table><pre>x =  1</pre><aside>Ad</aside><footer>(c)</footer></div>"""


def test_html_keeps_headings_lists_code_and_tables_and_drops_what_is_around(tmp_path: Path) -> None:
    (chunk,) = chunks_of(written(tmp_path, "p.html", PAGE))
    assert chunk.passage.title == "Aldern lighthouse"
    assert chunk.passage.id == "p.html#1"
    assert chunk.passage.page == 0
    assert chunk.passage.text == (
        "## The tower\n\nIt was built in 1911.\nIt is tall.\n\n- one\n\n- two\n\n"
        "| Year | Cost / oil | Cost / a\\|b |\n| --- | --- | --- |\n| 1911 | 5 | 6 |\n| 1911 | 7 | 8 |\n\n"
        "A frame.\n\n```\nx =  1\n```"
    )


def test_html_nested_deeper_than_the_stack_is_read(tmp_path: Path) -> None:
    deep = "<div>" * 20_000 + "The bottom of the well." + "</div>" * 20_000
    assert texts_of(written(tmp_path, "d.htm", deep)) == ["The bottom of the well."]


def test_the_title_of_html_falls_back_to_the_first_heading_and_then_to_the_file(tmp_path: Path) -> None:
    (one,) = chunks_of(written(tmp_path, "a.html", "<h1>The <i>big</i> pump</h1><p>Works.</p>"))
    (two,) = chunks_of(written(tmp_path, "b.html", "<p>Works.</p>"))
    assert (one.passage.title, two.passage.title) == ("The big pump", "b")


MARKDOWN = """---
title: The  manual
---
# Pumps

Some text that
goes on. And **more**.

| A | B |
|---|:-:|
| 1 \\| 2 | x |
| 3 |

```python
# no heading

x = 1
```
"""


def test_markdown_stays_as_it_is_with_its_title_from_the_front_matter(tmp_path: Path) -> None:
    (chunk,) = chunks_of(written(tmp_path, "m.md", MARKDOWN))
    assert chunk.passage.title == "The manual"
    assert chunk.passage.text == (
        "# Pumps\n\nSome text that\ngoes on. And **more**.\n\n"
        "| A | B |\n| --- | --- |\n| 1 \\| 2 | x |\n| 3 |  |\n\n```python\n# no heading\n\nx = 1\n```"
    )
    (plain,) = chunks_of(written(tmp_path, "n.md", "Intro.\n\n## First *part* ##\n\nText."))
    assert plain.passage.title == "First *part*"


@pytest.mark.parametrize(
    ("data", "expected", "counted"),
    [
        ("Der Turm heißt Ärmel.".encode(), "Der Turm heißt Ärmel.", ""),
        ("Der Turm.".encode("utf-8-sig"), "Der Turm.", ""),
        ("Der Turm heißt Ärmel.".encode("utf-16"), "Der Turm heißt Ärmel.", "files read as utf-16"),
        ("Der Turm heißt “Ärmel”.".encode("cp1252"), "Der Turm heißt “Ärmel”.", "files read as cp1252"),
        ("등대는 1911년에 세워졌다.".encode("cp949"), "등대는 1911년에 세워졌다.", "files read as cp949"),
    ],
)
def test_encodings_are_told_apart(tmp_path: Path, data: bytes, expected: str, counted: str) -> None:
    path = written(tmp_path, "t.txt", data)
    assert texts_of(path) == [expected]
    counts = read_document(path, "t.txt", settings()).report.counts
    assert [name for name, amount in counts.items() if amount and name.startswith("files read")] == (
        [counted] if counted else []
    )


def test_html_is_decoded_as_it_declares(tmp_path: Path) -> None:
    page = '<meta charset="shift_jis"><p>灯台は海にある。</p>'.encode("shift_jis")
    assert texts_of(written(tmp_path, "j.html", page)) == ["灯台は海にある。"]


@given(st.text(max_size=400))
def test_any_text_and_markdown_and_html_can_be_chunked(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    for suffix in ("txt", "md", "html"):
        path = folder / f"a.{suffix}"
        path.write_text(text, encoding="utf-8", errors="replace")
        for found in texts_of(path, chunk_tokens=32, overlap_tokens=8):
            found.encode()
            assert found.strip() == found != ""
