"""A persistent library of documents: files are read once, their passages embedded, kept, and found by questions."""

from __future__ import annotations

import importlib.util
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock, Timeout

from data_builders.errors import RagFtError
from data_builders.files import cache_folder, content_hash, file_hash
from data_builders.progress import Progress
from rag_ft.app import Added, Found
from rag_ft.app.embedding import LibraryEmbedder, open_embedder
from rag_ft.app.listing import Listed, kind_refusal, list_documents, printable_name
from rag_ft.app.reading import Reader
from rag_ft.app.settings import LibrarySettings

if TYPE_CHECKING:
    from rag_ft.app.index import Index
    from rag_ft.app.kept import Kept

_OF_READING = ("chunk_tokens", "overlap_tokens", "ocr", "ocr_languages", "ocr_dpi")
_LIMITS = ("max_megabytes", "max_pages", "max_passages", "seconds_per_page", "minutes_per_file", "memory_megabytes")
_NEEDED = {"chromadb": "chromadb", "pdfplumber": "pdfplumber", "bs4": "beautifulsoup4"}


def store_of(documents: Path) -> Path:
    """Return where the library of a file or folder is kept, unless another place is named."""
    return cache_folder() / "libraries" / content_hash(str(documents.expanduser().resolve()))


def open_library(
    store: Path | None,
    *,
    settings: LibrarySettings | None = None,
    embedder: LibraryEmbedder | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> KeptLibrary:
    """Open a library; close it, or use it as a context manager.

    Args:
        store: its folder, made where there is none, which no other process opens meanwhile; None keeps it in memory,
            apart from every other.
        settings: how documents are read and embedded.
        embedder: a model that is loaded already; None loads that of the settings.
        report: is told how reading goes on, a line now and then.

    Raises:
        RagFtError: another process has it open, it is damaged, the model cannot be loaded, or something is not
            installed.
    """
    _check_installed()
    from rag_ft.app.index import Index
    from rag_ft.app.kept import Kept

    chosen = settings or LibrarySettings()
    lock = _locked(store) if store is not None else None
    try:
        model = embedder or open_embedder(chosen)
        kept = Kept(store / "library.sqlite" if store else None)
        index = Index(store / "chroma" if store else None, "passages" if store else f"session-{uuid.uuid4().hex}")
        return KeptLibrary(kept, index, model, settings=chosen, lock=lock, report=report)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


class KeptLibrary:
    """Documents that can be asked, by several threads at once. `open_library` makes one."""

    def __init__(
        self,
        kept: Kept,
        index: Index,
        embedder: LibraryEmbedder,
        *,
        settings: LibrarySettings,
        lock: FileLock | None,
        report: Callable[[str], None],
    ) -> None:
        self._kept, self._index, self._embedder = kept, index, embedder
        self._settings, self._lock, self._report = settings, lock, report
        self._limits = _limits(settings)
        self._changing = threading.RLock()  # one change at a time
        self._inside = threading.RLock()  # one thread at a time in the tables
        self._closed = threading.Event()
        self._begin()

    def __enter__(self) -> Self:
        """Return the library."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def update(self, documents: Path) -> Added:
        """Make the library hold what a file or folder holds: only files whose content changed are read again.

        A file becomes part of the library as a whole when it has been read. What a killed update leaves, the next one
        finishes.

        Raises:
            RagFtError: there is no such file or folder.
        """
        listed = list_documents(documents)
        with self._changing:
            with self._inside:
                gone = sorted(self._kept.files().keys() - {one.name for one in listed if not one.refusal})
            return self._changed(listed, tuple(gone))

    def add_file(self, path: Path, name: str) -> Added:
        """Add one file under a name of its own, in the place of what has that name.

        Args:
            path: of the file; its ending says its kind.
            name: as citations give it.
        """
        with self._changing:
            return self._changed([Listed(path, printable_name(name), kind_refusal(path))])

    def remove_file(self, name: str) -> None:
        """Take a file and its passages out; a name that is not there is no error."""
        with self._changing:
            self._changed([], (name,))

    def search(self, question: str, k: int) -> list[Found]:
        """Return the best `k` passages, best first.

        Raises:
            RagFtError: the library was closed.
        """
        vector = self._embedder.question(question)
        with self._inside:
            self._check_open()
            near = self._nearest(vector, k)
            passages = self._kept.passages([number for number, _ in near])
        found = [(*passages[number], score) for number, score in near if number in passages]
        return [Found(one, one.document, one.page or None, score, pages) for one, pages, score in found]

    def close(self) -> None:
        """Let go of the files; a library in memory is gone then. A file that another thread adds is given up."""
        self._closed.set()
        with self._changing, self._inside:
            if self._lock is None:
                self._index.drop()
            else:
                self._index.close()
                self._lock.release()
            self._kept.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RagFtError("the library was closed meanwhile.")

    def _nearest(self, vector: np.ndarray[Any, Any], k: int) -> list[tuple[int, float]]:
        from chromadb.errors import ChromaError

        try:
            return self._index.nearest(vector, k)
        except ChromaError:  # its files are damaged
            self._index.remake(self._kept.vectors(1000))
            return self._index.nearest(vector, k)

    def _begin(self) -> None:
        """Forget passages embedded by another model, and mend what a killed process left."""
        if self._kept.fact("embedder") != self._embedder.identity:
            self._kept.note({"changing": "yes"})
            self._kept.clear()
            self._kept.note({"embedder": self._embedder.identity})
        self._mend()

    def _mend(self) -> None:
        """Make the index anew where a change of it was killed or failed."""
        if self._kept.fact("changing") == "yes" or self._index.count() != self._kept.count():
            self._index.remake(self._kept.vectors(1000))
            self._kept.note({"changing": ""})

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Mark the index as not to be trusted while it changes; a killed process leaves the mark."""
        with self._inside:
            self._kept.note({"changing": "yes"})
        yield
        with self._inside:
            self._kept.note({"changing": ""})

    def _changed(self, listed: Sequence[Listed], gone: tuple[str, ...] = ()) -> Added:
        """Take files out, read those that are new, and tell of all."""
        self._check_open()
        with self._inside:
            self._mend()
        read: list[str] = []
        unchanged: list[str] = []
        refused: list[tuple[str, str]] = []
        new = self._new(listed, refused, unchanged)
        if gone or new:
            with self._marked():
                for name in gone:
                    with self._inside:
                        self._index.delete(self._kept.remove(name))
                read, problems = self._read(new)
                refused += problems
        with self._inside:
            there, count = self._kept.names_with_passages(), self._kept.count()
        return Added(
            read=tuple(name for name in read if name in there),
            unchanged=tuple(name for name in unchanged if name in there),
            removed=gone,
            refused=tuple(sorted(refused)),
            passages=count,
        )

    def _read(self, new: Sequence[tuple[Listed, str]]) -> tuple[list[str], list[tuple[str, str]]]:
        """Read files, one after the other; return their names, and what is wrong with which."""
        problems: list[tuple[str, str]] = []
        with Progress("files", len(new), self._report) as progress, Reader(self._settings, self._closed) as reader:
            for one, key in new:
                problems += [(one.name, problem) for problem in self._take(one, key, reader)]
                progress.advance(1)
        return [one.name for one, _ in new], problems

    def _new(
        self, listed: Sequence[Listed], refused: list[tuple[str, str]], unchanged: list[str]
    ) -> list[tuple[Listed, str]]:
        """Return what has to be read, with its key; tell of the rest."""
        with self._inside:
            kept = self._kept.files()
        new: list[tuple[Listed, str]] = []
        for one in listed:
            key = "" if one.refusal else _key(one.path, self._settings)
            before = kept.get(one.name)
            if one.refusal:
                refused.append((one.name, one.refusal))
            elif before and key == before.key and (not before.problems or before.limits == self._limits):
                unchanged.append(one.name)
                refused += [(one.name, problem) for problem in before.problems]
            else:
                new.append((one, key))
        return new

    def _take(self, one: Listed, key: str, reader: Reader) -> tuple[str, ...]:
        """Read and embed a file, then put it in; return what is wrong with it."""
        from rag_ft.app.kept import KeptFile

        found = reader.read(one.path, one.name)
        self._check_open()  # else the reader was ended by that, and says nothing of the file
        texts = [_embedded(passage.title, passage.text) for passage in found.passages]
        vectors = self._embedder.passages(texts, self._check_open)
        file = KeptFile(key, self._limits, found.problems)
        with self._inside:
            new, gone = self._kept.replace(one.name, file, found, vectors)
            self._index.add(new, vectors)
            self._index.delete(gone)
        return found.problems


def _embedded(title: str, text: str) -> str:
    return f"{title}\n{text}" if title else text


def _limits(settings: LibrarySettings) -> str:
    """Name what decides whether a file can be read, tesseract included: once it is installed, scans are read."""
    import pytesseract

    from data_builders.documents.ocr import Ocr, ocr_problem

    ocr = Ocr(settings.ocr, settings.ocr_languages, settings.ocr_dpi)
    problem = ocr_problem(ocr, pytesseract.pytesseract.tesseract_cmd)
    return content_hash([settings.model_dump(include=set(_LIMITS)), problem])


def _key(path: Path, settings: LibrarySettings) -> str:
    """Name the content of a file and how it is read; one that is too large to be read is known by size and time."""
    try:
        state = path.stat()
        large = state.st_size > settings.max_megabytes * 2**20
        content = f"{state.st_size} {state.st_mtime_ns}" if large else file_hash(path)
    except OSError:
        return ""
    return content_hash([content, path.suffix.lower(), settings.model_dump(include=set(_OF_READING))])


def _locked(store: Path) -> FileLock:
    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store / "lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise RagFtError(
            f"another process uses the library in {store}. Wait until it has ended, or keep one of your own with "
            "--store FOLDER."
        ) from None
    except OSError as error:
        raise RagFtError(
            f"the library cannot be kept in {store}: {error.strerror}. Name another folder with --store FOLDER, or "
            f"another place for all of them in the environment: RAG_FT_CACHE={os.sep}PATH."
        ) from error
    return lock


def _check_installed() -> None:
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise RagFtError(
            f"libraries of documents need {' and '.join(missing)}, not installed here. "
            "Install with `pip install 'rag-ft[demo,retrieval,documents]'`."
        )
