"""What becomes of the parts of a document: boilerplate, chunks, tokens, quotes. Formats are in test_documents.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pdf_files
import pytest
from documents_made import blocks_to_texts, chunks_of, settings
from hypothesis import given
from hypothesis import strategies as st

from data_builders.documents.boilerplate import LineCounts, without_repeated_lines, without_running_heads
from data_builders.documents.chunks import chunk_blocks
from data_builders.documents.evidence import fold, verbatim
from data_builders.documents.parts import Block, Document, Line, Part, Report, Row, Table
from data_builders.documents.read import chunk_document
from data_builders.documents.tokens import estimate, token_counter
from data_builders.errors import RagFtError
from data_builders.sentences import sentences

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
