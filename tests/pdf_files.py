"""Real PDF files for the tests of documents, made with fpdf2, Pillow and, for Korean, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFont

LETTERS = "The lighthouse of Aldern was built in 1911."


class Report(FPDF):
    """Pages with a running head and a page number."""

    def header(self) -> None:
        self.set_font("helvetica", "I", 8)
        self.cell(0, 8, "Aldern Pump Works", new_x="LMARGIN", new_y="NEXT")

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("helvetica", "", 8)
        self.cell(0, 10, f"Page {self.page_no()} of 4", align="C")


def write_report(path: Path) -> None:
    """Four pages of prose; a sentence about the foundry goes on from page 1 to page 2."""
    pdf = Report()
    pdf.set_title("Annual report")
    for page in range(1, 5):
        pdf.add_page()
        pdf.set_font("helvetica", "B", 16)
        if page == 1:
            pdf.cell(0, 12, "The year of the pump", new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("helvetica", "", 11)
        if page == 2:
            pdf.multi_cell(0, 6, "and cast its first wheel in the autumn of that year.", new_x="LMARGIN", new_y="NEXT")
            pdf.ln(6)
        text = f"Chapter {page} tells how the works went on. " + f"Hall {page} made {page * 11} pumps. " * 6
        pdf.multi_cell(0, 6, text.strip(), new_x="LMARGIN", new_y="NEXT")
        if page == 1:
            pdf.ln(6)
            end = "The new foundry, which had been planned by the engineers of the works for many years, was opened"
            pdf.multi_cell(0, 6, end, new_x="LMARGIN", new_y="NEXT")
    pdf.output(str(path))


def write_table(path: Path, rows: int) -> None:
    """A table whose header has two levels, over as many pages as its rows need, between two sentences."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("helvetica", "", 10)
    pdf.multi_cell(0, 6, "The table shows what was sold in each district.", new_x="LMARGIN", new_y="NEXT")
    with pdf.table(num_heading_rows=2) as table:
        upper = table.row()
        upper.cell("District", rowspan=2)
        upper.cell("Pumps", colspan=2)
        upper.cell("Wheels", colspan=2)
        lower = table.row()
        for label in ("2022", "2023", "2022", "2023"):
            lower.cell(label)
        for number in range(rows):
            row = table.row()
            for cell in (f"D{number} | east", str(number), str(number + 1), "" if number == 1 else "7", "8"):
                row.cell(cell)
    pdf.multi_cell(0, 6, "The next table follows in spring.")
    pdf.output(str(path))


def write_columns(path: Path) -> None:
    """A headline over two columns of prose; words of the two columns stand beside each other."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("times", "B", 18)
    pdf.cell(0, 12, "A headline over the whole width of this page", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("times", "", 11)
    with pdf.text_columns(ncols=2, gutter=8) as columns:
        for letter in "ABCDEF":
            columns.write(f"Part {letter} begins. " + "Some more prose stands in this part of the page. " * 14)
            columns.write(f"Part {letter} ends.\n\n")
    pdf.output(str(path))


def write_words(path: Path, text: str, title: str = "", **encryption: Any) -> None:
    """One page with one paragraph."""
    pdf = FPDF()
    if encryption:
        pdf.set_encryption(**encryption)
    if title:
        pdf.set_title(title)
    pdf.add_page()
    pdf.set_font("helvetica", "", 11)
    pdf.multi_cell(0, 6, text)
    pdf.output(str(path))


def write_scan(path: Path, pages: int = 1) -> None:
    """Pages that are pictures of a text."""
    picture = Image.new("L", (1700, 500), 255)
    drawing, font = ImageDraw.Draw(picture), ImageFont.load_default(48)
    for number, line in enumerate((LETTERS, "Its keeper lives on the second floor.")):
        drawing.text((80, 80 + 90 * number), line, fill=0, font=font)
    pdf = FPDF()
    for _ in range(pages):
        pdf.add_page()
        pdf.image(picture, x=10, y=20, w=180)
    pdf.output(str(path))


def write_korean(path: Path, text: str) -> None:
    """One line in a Korean font that every reader brings along, so that none has to be at hand."""
    stream = f"BT /F1 14 Tf 60 700 Td <{text.encode('utf-16-be').hex()}> Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /HYSMyeongJo-Medium /Encoding /UniKS-UCS2-H "
        b"/DescendantFonts [6 0 R] >>",
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HYSMyeongJo-Medium /DW 1000 /FontDescriptor 7 0 R "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Korea1) /Supplement 1 >> >>",
        b"<< /Type /FontDescriptor /FontName /HYSMyeongJo-Medium /Flags 4 /Ascent 880 /Descent -120 "
        b"/FontBBox [0 -120 1000 880] /ItalicAngle 0 /CapHeight 880 /StemV 80 >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))
    path.write_bytes(body + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table) + trailer)
