"""Vectors of passages in Chroma, by number: a folder, or memory. What they are the vectors of, kept.py knows."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.errors import RagFtError

_AT_ONCE = 1000
_CLOSE = {"space": "cosine", "ef_search": 200, "ef_construction": 200}  # nearly exact, and still a few milliseconds

Vectors = np.ndarray[Any, Any]


class Index:
    """One collection: what is in it, no search in another finds.

    Args:
        folder: where Chroma keeps it; None keeps it in memory.
        name: of the collection, letters, digits and dashes.

    Raises:
        RagFtError: Chroma cannot open the folder.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._client, self._name = _client(folder), name
        self._collection = self._made()

    def _made(self) -> Any:
        # without an embedding function: Chroma's own would download a model
        return self._client.get_or_create_collection(
            self._name, embedding_function=None, configuration={"hnsw": _CLOSE}
        )

    def add(self, numbers: Sequence[int], vectors: Vectors) -> None:
        """Add vectors, float32 [numbers, dimension]."""
        for start in range(0, len(numbers), _AT_ONCE):
            ids = [str(number) for number in numbers[start : start + _AT_ONCE]]
            self._collection.add(ids=ids, embeddings=vectors[start : start + _AT_ONCE])

    def delete(self, numbers: Sequence[int]) -> None:
        """Take vectors out."""
        for start in range(0, len(numbers), _AT_ONCE):
            self._collection.delete(ids=[str(number) for number in numbers[start : start + _AT_ONCE]])

    def nearest(self, vector: Vectors, k: int) -> list[tuple[int, float]]:
        """Return at most `k` numbers and their cosine similarities to a vector, best first."""
        found = self._collection.query(query_embeddings=vector[None], n_results=k, include=["distances"])
        return [
            (int(id_), 1.0 - float(distance))
            for id_, distance in zip(found["ids"][0], found["distances"][0], strict=True)
        ]

    def count(self) -> int:
        """Return how many vectors there are."""
        return int(self._collection.count())

    def remake(self, batches: Iterable[tuple[list[int], Vectors]]) -> None:
        """Begin anew with these numbers and vectors."""
        self.drop()
        self._collection = self._made()
        for numbers, vectors in batches:
            self.add(numbers, vectors)

    def drop(self) -> None:
        """Delete the collection."""
        self._client.delete_collection(self._name)

    def close(self) -> None:
        """Let go of the folder."""
        self._client.close()


def _client(folder: Path | None) -> Any:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    if folder is None:
        return chromadb.EphemeralClient(settings)
    if folder.is_dir() and not _is_database(
        folder / "chroma.sqlite3"
    ):  # Chroma fails once for all on a folder that it cannot read
        shutil.rmtree(folder, ignore_errors=True)  # the tables beside it have all that was in it
    try:
        return chromadb.PersistentClient(folder, settings)
    except Exception as error:  # whatever its database and its bindings raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RagFtError(
            f"Chroma cannot use {folder}: {reason}. Delete {folder.parent}: the next question makes the library again."
        ) from error


def _is_database(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file)) as base:
            base.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.Error:
        return False
    return True
