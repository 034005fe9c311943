"""Settings of a folder of documents; what reads them is in documents.py here and in data_builders/documents."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_builders.sources.rows import Files, RowSettings


class DocumentsSettings(RowSettings):
    """A folder of .txt, .md, .html and .pdf files, and questions about them."""

    kind: Literal["documents"]
    """Your own documents, cut into passages."""
    path: str
    """The folder; folders in it are read too."""
    include: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Patterns of paths from the folder to read, such as manuals/*; `*` stands for anything, slashes too."""
    chunk_tokens: Annotated[int, Field(ge=32)] = 256
    """Most tokens of a passage; lower it where many passages must fit a prompt, raise it for long arguments."""
    overlap_tokens: Annotated[int, Field(ge=0)] = 32
    """Most tokens of whole sentences that a passage repeats of the one before; 0 repeats nothing."""
    tokenizer: str | None = None
    """A tokenizer.json, a folder with one or a Hub id, to count tokens as your model does; null estimates them."""
    ocr: Literal["auto", "off"] = "auto"
    """Read PDF pages without text with tesseract; off leaves them out, which saves time if they do not matter."""
    ocr_languages: Annotated[str, Field(pattern=r"^[A-Za-z]\w*(/\w+)?(\+[A-Za-z]\w*(/\w+)?)*$")] = "eng"
    """Languages of scanned pages by tesseract's names, joined by +, such as kor+eng."""
    ocr_dpi: Annotated[int, Field(ge=72, le=600)] = 300
    """Resolution scanned pages are read at; 200 is faster, 400 helps small print."""
    boilerplate: bool = True
    """Remove running heads, page numbers and lines that most files share; false keeps every line."""
    min_words: Annotated[int, Field(ge=0)] = 5
    """Passages of fewer words are left out."""
    questions: Files | None = None
    """JSON Lines of questions with the document, page or quote that answers them; null takes the passages alone."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if self.overlap_tokens > self.chunk_tokens // 2:
            raise ValueError(
                f"overlap_tokens {self.overlap_tokens} is more than half of chunk_tokens {self.chunk_tokens}: "
                "passages would mostly repeat each other. Lower overlap_tokens"
            )
        return self
