"""Dense retrieval: passages embedded once by a sentence-transformers model, searched by inner product with faiss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.corpus import Corpus
from data_builders.files import atomic_path
from data_builders.progress import Progress
from data_builders.retrievers import Found, Query
from data_builders.retrievers.dense_model import ModelPlace, check_installed, find_model, load_embedder
from data_builders.retrievers.embedder import Embedder
from data_builders.retrievers.settings import DenseSettings

CHUNK = 2048  # passages embedded between two files; what a killed build loses
VECTORS = "vectors.npy"


class Dense:
    """Any sentence-transformers model over title and text, joined by a line break.

    The model and its vectors are heavy and use all threads, so one process searches for all.
    """

    parallel = False

    def __init__(self, settings: DenseSettings) -> None:
        check_installed()
        self._settings = settings
        self._index: Any = None

    @cached_property
    def _place(self) -> ModelPlace:
        return find_model(self._settings.model, self._settings.revision)

    @cached_property
    def _embedder(self) -> Embedder:
        return load_embedder(self._place, self._settings)

    def index_settings(self) -> dict[str, Any]:
        """Return what the vectors of passages depend on: the bytes of the model, how passages are written and batched.

        Not the device: an index made on a GPU serves on a machine without one.

        Raises:
            RagFtError: the model does not exist.
        """
        names = ("kind", "passage_prefix", "normalize", "max_length", "index", "batch_size")
        return {"model": self._place.identity, **{name: getattr(self._settings, name) for name in names}}

    def build(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        """Embed the corpus by chunks, a file each, so that a killed build goes on; then join them and index them.

        Raises:
            RagFtError: the model cannot be loaded or its vectors are broken.
        """
        from data_builders.retrievers.dense_index import build_index

        for leftover in folder.glob(".*.tmp"):  # of a build that was killed; only one builds in a folder
            leftover.unlink(missing_ok=True)
        if not (folder / VECTORS).is_file():
            self._embed(corpus, folder, report)
            _join(_chunks(folder, len(corpus)), folder / VECTORS)
        for path in _chunks(folder, len(corpus)).values():
            path.unlink(missing_ok=True)
        build_index(_mapped(folder), self._settings.index, folder, report)
        self.__dict__.pop("_embedder", None)  # whoever searches loads its own

    def _embed(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        chunks = _chunks(folder, len(corpus))
        sizes = {start: min(CHUNK, len(corpus) - start) for start in chunks}
        missing = {start: path for start, path in chunks.items() if not _is_whole(path, sizes[start])}
        with Progress("passages embedded", len(corpus), report) as progress:
            progress.start_at(len(corpus) - sum(sizes[start] for start in missing))
            for start, path in missing.items():
                texts = [text.strip() for text in corpus.texts(start, start + sizes[start])]
                vectors = self._embedder.passages(texts, progress.advance)
                with atomic_path(path) as temporary, temporary.open("wb") as stream:
                    np.save(stream, vectors)

    def open(self, corpus: Corpus, folder: Path) -> None:
        """Map the vectors and the index; the model is loaded by the first search."""
        from data_builders.retrievers.dense_index import DenseIndex

        self._index = DenseIndex.open(_mapped(folder), self._settings.index, self._settings.probes, folder)

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return, per query, the `depth` passages of the highest inner product, ties by position."""
        if not queries or not len(self._index.vectors):
            return [Found(np.zeros(0, np.int32), np.zeros(0, np.float32)) for _ in queries]
        found: list[Found] = self._index.search(self._embedder.queries([query.text for query in queries]), depth)
        return found


def _chunks(folder: Path, count: int) -> dict[int, Path]:
    """Return the file of each chunk by its first position."""
    return {start: folder / f"vectors-{start:010d}.npy" for start in range(0, count, CHUNK)}


def _join(chunks: dict[int, Path], target: Path) -> None:
    """Write all chunks into one file that can be mapped; memory holds one chunk."""
    first = next((np.load(path, mmap_mode="r") for path in chunks.values()), np.zeros((0, 1), np.float32))
    rows = sum(len(np.load(path, mmap_mode="r")) for path in chunks.values())
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, first.shape[1])}
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for path in chunks.values():
            stream.write(np.load(path).astype("<f4").tobytes())


def _is_whole(path: Path, rows: int) -> bool:
    """Tell whether a chunk is there in full; a machine that lost power may leave one that is not."""
    try:
        return len(np.load(path, mmap_mode="r")) == rows
    except (OSError, ValueError, EOFError):
        return False


def _mapped(folder: Path) -> np.ndarray[Any, Any]:
    return np.asarray(np.load(folder / VECTORS, mmap_mode="r"))
