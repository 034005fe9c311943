"""Documents of tests: settings, files written, and what reading and chunking make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_builders.documents.chunks import Chunk, chunk_blocks
from data_builders.documents.parts import Block, Document, Report, Table
from data_builders.documents.read import chunk_document, read_document
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
