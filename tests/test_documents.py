"""What becomes of one document: text, tables, pages, boilerplate, chunks. The source is in test_documents_source.py."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pdf_files
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdfplumber.page import Page

from data_builders.documents.boilerplate import LineCounts, without_repeated_lines, without_running_heads
from data_builders.documents.chunks import Chunk, chunk_blocks
from data_builders.documents.evidence import fold, verbatim
from data_builders.documents.parts import Block, Document, Line, Part, Report, Row, Table
from data_builders.documents.read import chunk_document, read_document
from data_builders.documents.tables import Cell, Grid, make_table
from data_builders.documents.tokens import estimate, token_counter
from data_builders.errors import RagFtError
from data_builders.sentences import sentences
from data_builders.sources.documents_settings import DocumentsSettings


def settings(**changes: Any) -> DocumentsSettings:
    return DocumentsSettings(**{"kind": "documents", "path": "docs", "min_words": 1, **changes})


def chunks_of(path: Path, **changes: Any) -> list[Chunk]:
    own = settings(**changes)
    return chunk_document(read_document(path, path.name, own), own, frozenset())[0]


def texts_of(path: Path, **changes: Any) -> list[str]:
    return [chunk.passage.text for chunk in chunks_of(path, **changes)]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def dropped(path: Path, **changes: Any) -> dict[str, int]:
    return dict(read_document(path, path.name, settings(**changes)).report.dropped)


def blocks_to_texts(blocks: list[Block | Table], **changes: Any) -> list[str]:
    document = Document("d.txt", "D", (), Report())
    return [chunk.passage.text for chunk in chunk_blocks(document, blocks, settings(**changes), Report())]


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


# boilerplate


def test_heads_of_left_and_right_pages_go_and_other_edges_stay() -> None:
    parts: list[Part] = []
    for page in range(1, 9):
        head = "The book of pumps" if page % 2 else "Chapter on wheels"
        for top, text in enumerate((head, f"Own line {'x' * page}", f"- {page} -")):
            parts.append(Line(text, page, float(top), 10.0, page, 10 * page + top, True))
    kept, gone = without_running_heads(tuple(parts))
    assert [part.text for part in kept if isinstance(part, Line)] == [f"Own line {'x' * page}" for page in range(1, 9)]
    assert gone == 16


def at_top(*texts: str, size: float = 10.0) -> tuple[Line, ...]:
    return tuple(Line(text, page, 0.0, size, page, page, True) for page, text in enumerate(texts, start=1))


def test_a_head_of_one_chapter_with_its_page_number_goes() -> None:
    lines = at_top("Preface", "One 2", "One 3", "One 4", "Own words", "Two 6", "Two 7", "More words", "Even more")
    kept, gone = without_running_heads(lines)
    assert [line.text for line in kept if isinstance(line, Line)] == [
        "Preface", "Own words", "Two 6", "Two 7", "More words", "Even more",
    ]  # fmt: skip
    assert gone == 3


def test_the_title_stays_where_it_is_the_running_head_too() -> None:
    title, *heads = at_top("The pump", "The pump", "The pump", "The pump")
    title = replace(title, size=20.0)
    assert without_running_heads((title, *heads)) == ((title,), 3)


def test_the_title_of_a_pdf_is_what_is_largest_on_its_first_page() -> None:
    small = [Line("Many words of the usual size stand here.", 1, 9.0, 10.0, 1, 9, True)] * 3
    lines = (
        Line("A series", 1, 0.0, 14.0, 1, 1, True),
        Line("The pump", 1, 1.0, 20.0, 1, 2, True),
        Line("and the wheel", 1, 2.0, 20.0, 1, 2, True),
        *small,
    )
    (chunk,), _ = chunk_document(Document("a/d.pdf", "", lines, Report()), settings(), frozenset())
    assert chunk.passage.title == "The pump and the wheel"
    (plain,), _ = chunk_document(Document("a/d.pdf", "", tuple(small), Report()), settings(), frozenset())
    assert plain.passage.title == "d"


@pytest.mark.parametrize(
    ("title", "kept"),
    [("Pump manual 2.10", True), ("문서 관리 규정", True), ("pump.docx", False), ("문서1", False), ("Untitled", False),
     ("Microsoft Word - pump", False), ("PowerPoint Presentation", False), (" ", False)],
)  # fmt: skip
def test_titles_that_programs_leave_behind_are_not_taken(tmp_path: Path, title: str, kept: bool) -> None:
    pdf_files.write_words(tmp_path / "f.pdf", "Some words.", title=title)
    assert chunks_of(tmp_path / "f.pdf")[0].passage.title == (title if kept else "f")


def test_a_number_that_does_not_rise_with_the_pages_is_no_page_number() -> None:
    lines = at_top("Total 7", "Total 3", "Total 9", "Total 1")
    assert without_running_heads(lines) == (lines, 0)


def text_document(number: int, *lines: str) -> Document:
    return Document(f"{number}.txt", "", (Block("\n".join(lines)),), Report())


def test_lines_of_most_files_go_and_headings_and_short_lines_stay() -> None:
    counts = LineCounts()
    for number in range(6):
        counts.add(text_document(number, "All rights reserved by Aldern", f"Own line of file {number}", "the end"))
    counts.add(Document("h.md", "", (Block("# All rights reserved by Aldern", "heading"),), Report()))
    parts, gone = without_repeated_lines(
        text_document(9, "All  rights reserved by ALDERN", "the end").parts, counts.repeated()
    )
    assert (parts, gone) == ((Block("the end"),), 1)


def test_lines_of_few_files_or_of_half_of_them_stay() -> None:
    few, half = LineCounts(), LineCounts()
    for number in range(4):
        few.add(text_document(number, "All rights reserved by Aldern"))
    for number in range(6):
        half.add(text_document(number, "All rights reserved by Aldern" if number % 2 else f"Something else {number}"))
    assert few.repeated() == half.repeated() == frozenset()


def test_lines_are_forgotten_only_if_they_are_rare() -> None:
    counts = LineCounts()
    for number in range(3000):
        shared = ["A line that comes late"] if number >= 1400 else []
        counts.add(text_document(number, *shared, f"One of its own {number}"))
    assert len(counts.repeated()) == 1
    assert len(counts._counts) < 1100


# chunks


def test_chunks_are_cut_between_sentences_and_repeat_the_last_ones() -> None:
    # 8 tokens a sentence: seven words and the stop
    numbers = ["one", "two", "three", "four", "five", "six"]
    text = " ".join(f"The old pump of town {n} works." for n in numbers)
    assert estimate("The old pump of town one works.") == 8
    assert blocks_to_texts([Block(text)], chunk_tokens=32, overlap_tokens=8) == [
        " ".join(f"The old pump of town {n} works." for n in numbers[:4]),
        " ".join(f"The old pump of town {n} works." for n in numbers[3:]),
    ]
    assert blocks_to_texts([Block(text)], chunk_tokens=32, overlap_tokens=7) == [
        " ".join(f"The old pump of town {n} works." for n in numbers[:4]),
        " ".join(f"The old pump of town {n} works." for n in numbers[4:]),
    ]


def test_a_heading_goes_with_what_it_heads() -> None:
    blocks: list[Block | Table] = [
        Block("The old pump of town one works. " * 3),
        Block("## Wheels", "heading"),
        Block("The new wheel of town two turns well."),
    ]
    first, second = blocks_to_texts(blocks, chunk_tokens=32, overlap_tokens=16)
    assert "Wheels" not in first
    assert second == "## Wheels\n\nThe new wheel of town two turns well."


def test_a_sentence_longer_than_a_chunk_is_cut_between_words() -> None:
    text = " ".join(f"word{n}" for n in range(100))
    found = blocks_to_texts([Block(text)], chunk_tokens=32, overlap_tokens=0)
    assert " ".join(found).split() == text.split()
    assert max(map(estimate, found)) <= 32


def test_a_row_longer_than_a_chunk_stays_whole_and_is_counted() -> None:
    table = Table(("A", "B"), (Row(("x", "word " * 50)), Row(("y", "z"))))
    report = Report()
    found = list(
        chunk_blocks(Document("d", "D", (), Report()), [table], settings(chunk_tokens=32, overlap_tokens=0), report)
    )
    assert [chunk.passage.text.count("\n") for chunk in found] == [2, 2]
    assert report.counts["chunks longer than chunk_tokens for a single table row"] == 1


def test_short_chunks_are_left_out_and_counted() -> None:
    report = Report()
    blocks: list[Block | Table] = [Block("Two words.")]
    assert not list(chunk_blocks(Document("d", "D", (), Report()), blocks, settings(min_words=3), report))
    assert report.dropped == {"chunks of fewer than min_words words": 1}


words = st.sampled_from(
    ["Pump", "pumps.", "Well?", "well", "1911", "3,5", "등대는", "있다.", "塔。", "e.g.", "Dr.", "(so)"]
)
paragraphs = st.lists(words, min_size=1, max_size=60).map(" ".join)


@given(st.lists(paragraphs, min_size=1, max_size=6), st.integers(32, 64), st.integers(0, 16))
def test_chunks_keep_every_letter_in_order_and_stay_within_the_limit(
    texts: list[str], limit: int, overlap: int
) -> None:
    blocks: list[Block | Table] = [Block(text) for text in texts]
    found = blocks_to_texts(blocks, chunk_tokens=limit, overlap_tokens=overlap, min_words=0)
    assert all(estimate(text) <= limit for text in found)
    if overlap == 0:
        assert "".join("".join(found).split()) == "".join("".join(texts).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It works. It lasts! Does it? Yes.", ["It works.", "It lasts!", "Does it?", "Yes."]),
        ("Dr. Berg met J. Ode at 5 p.m. yesterday.", ["Dr. Berg met J. Ode at 5 p.m. yesterday."]),
        ("He said “Go.” Then he went.", ["He said “Go.”", "Then he went."]),
        ("등대가 있다. 밤에 빛난다.", ["등대가 있다.", "밤에 빛난다."]),
        ("塔がある。夜に光る。", ["塔がある。", "夜に光る。"]),
        ("Parts:\n- a wheel\n- a pump", ["Parts:", "- a wheel", "- a pump"]),
        ("It costs 3.5 marks. Cheap.", ["It costs 3.5 marks.", "Cheap."]),
    ],
)
def test_sentence_borders(text: str, expected: list[str]) -> None:
    assert [text[start:end].strip() for start, end in sentences(text)] == expected


@given(st.text(max_size=200))
def test_sentences_are_the_whole_text(text: str) -> None:
    assert "".join(text[start:end] for start, end in sentences(text)) == text


# tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("pump", 1), ("lighthouse", 2), ("1911", 2), ("a-b", 3), ("등대는", 2), ("灯台", 2), ("3.5 %", 4)],
)
def test_estimated_tokens(text: str, tokens: int) -> None:
    assert estimate(text) == tokens


def test_a_tokenizer_file_counts_as_the_tokenizer_does(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert token_counter(str(tmp_path))(["one two three", ""]) == [3, 0]
    text = " ".join(f"Sentence {n} has five words." for n in range(20))  # ten words fit 32 tokens six times
    found = blocks_to_texts(
        [Block(text)], chunk_tokens=32, overlap_tokens=0, tokenizer=str(tmp_path / "tokenizer.json")
    )
    assert [len(one.split()) for one in found] == [30, 30, 30, 10]


def test_a_tokenizer_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(RagFtError, match=r"cannot load the tokenizer .*t\.json: .*`tokenizer` of the documents"):
        token_counter(str(tmp_path / "t.json"))


# quotes


@pytest.mark.parametrize(
    ("text", "quote", "expected"),
    [
        ("It was\nbuilt  in 1911.", "was built in", "was\nbuilt  in"),
        ("He said “no” \u2013 twice.", 'said "no" - twice', "said “no” \u2013 twice"),
        ("Caf\u0065\u0301 open", "Café open", "Caf\u0065\u0301 open"),
        ("Cafés", "Cafe", ""),
        ("the o\ufb03ce door", "office", "o\ufb03ce"),
        ("등\u1103\u1173\u11bc대", "등등대", "등\u1103\u1173\u11bc대"),
        ("soft\xadware", "software", "soft\xadware"),
    ],
)
def test_quotes_are_found_in_any_spelling_and_given_back_verbatim(text: str, quote: str, expected: str) -> None:
    assert verbatim(text, fold(quote)) == expected


@given(st.text("ab é\u0301ﬃ“등\u1103\u1173\n", max_size=30), st.data())
def test_every_part_of_a_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    quote = fold(text[start : data.draw(st.integers(start, len(text)))])
    found = verbatim(text, quote)
    assert found in text
    assert not found or fold(found).find(quote) >= 0
