"""Reads documents in a process of its own, with limits of time and memory: a bad file costs itself, nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from data_builders.records import Passage
from rag_ft.app.settings import LibrarySettings

ROOT = Path(__file__).resolve().parents[2]
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "TESSDATA_PREFIX", "OMP_THREAD_LIMIT")
"""What the process sees of the environment: it needs no token of anything."""
_STARTING = 60.0  # seconds until its libraries are loaded, on a busy machine
_LOOK_EVERY = 0.5  # seconds between two looks whether anyone still wants the file
_AT_ONCE = threading.BoundedSemaphore(4)  # processes of all readers here: visitors of a page may add files together


Pages = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Read:
    """A file, read; without passages it is refused.

    Attributes:
        passages: of the file.
        problems: what is wrong with it, in sentences.
        pages: for each passage, (offset into its text, page) wherever a page begins.
    """

    passages: tuple[Passage, ...]
    problems: tuple[str, ...]
    pages: tuple[Pages, ...] = ()


class _EndedError(Exception):
    """The process ended; its limits or the file did that."""


class Reader:
    """Reads files one after the other; the process starts with the first one. Use it as a context manager.

    Args:
        settings: how files are read.
        unwanted: once it is set, the file under way is given up, and no other is begun.
    """

    def __init__(self, settings: LibrarySettings, unwanted: threading.Event | None = None) -> None:
        self._settings = settings
        self._unwanted = unwanted or threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        """Return the reader; nothing runs yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._end()

    def read(self, path: Path, name: str) -> Read:
        """Return the passages of a file, whatever is in it; `name` begins their ids.

        What cannot be read, or not within the limits of the settings, comes back without passages.
        """
        if problem := _too_large(path, self._settings):
            return Read((), (problem,))
        began = time.monotonic()
        try:
            self._start()
            found = self._asked(path, name)
        except TimeoutError as late:
            self._end()
            return Read((), (str(late),))
        except (_EndedError, OSError):
            self._end()
            seconds = time.monotonic() - began
            return Read((), (f"cannot be read: reading it broke off after {seconds:.0f} seconds",))
        passages = tuple(Passage(id_, title, text, name, page) for id_, title, text, page, _ in found["passages"])
        pages = tuple(tuple((offset, page) for offset, page in one[4]) for one in found["passages"])
        if found["megabytes"] > self._settings.memory_megabytes // 3:
            self._end()  # what a large file leaves behind in memory is not taken from the next one
        return Read(passages, tuple(found["problems"]), pages)

    def _asked(self, path: Path, name: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": str(path.absolute()), "name": name}) + "\n")
        self._process.stdin.flush()
        page, minutes = self._settings.seconds_per_page, self._settings.minutes_per_file
        end, last = time.monotonic() + 60 * minutes, 0
        while True:
            left = end - time.monotonic()
            found = self._answer(min(page, left), f"takes longer than {_of_time(page, minutes, left, last)}")
            if "page" not in found:
                return found
            last = found["page"]

    def _answer(self, seconds: float, late: str) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while True:
            self._check_wanted()
            try:
                line = self._answers.get(timeout=min(max(end - time.monotonic(), 0.0), _LOOK_EVERY))
            except queue.Empty:
                if time.monotonic() >= end:
                    raise TimeoutError(late) from None
                continue
            break
        if line is None:
            raise _EndedError
        found = json.loads(line)
        return found if isinstance(found, dict) else {}

    def _start(self) -> None:
        if self._process is not None:
            return
        while not _AT_ONCE.acquire(timeout=_LOOK_EVERY):
            self._check_wanted()
        try:
            self._process = _process(self._settings)
        except BaseException:
            _AT_ONCE.release()
            raise
        self._answers = queue.SimpleQueue()
        assert self._process.stdout is not None
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        self._answer(_STARTING, "cannot be read: the process that reads files does not start")

    def _check_wanted(self) -> None:
        if self._unwanted.is_set():
            raise _EndedError

    def _end(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        _AT_ONCE.release()
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # tesseract, where it is at work, goes too
            else:
                process.kill()
        with contextlib.suppress(OSError):
            process.communicate()


def _process(settings: LibrarySettings) -> subprocess.Popen[str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # -P: a file json.py among the documents, or where the user stands, is not ours to run
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "rag_ft.app.reader", settings.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        cwd=tempfile.gettempdir(),
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_THREAD_LIMIT": "1"},
        start_new_session=True,
    )


def _listen(stream: IO[str], answers: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed under us: nobody waits for what comes
        for line in stream:
            answers.put(line)
    answers.put(None)


def _of_time(page: int, minutes: int, left: float, last: int) -> str:
    if left <= page:
        return f"{minutes} minutes to read: set minutes_per_file={2 * minutes} to give it more"
    where = f"{page} seconds for page {last}" if last else f"{page} seconds to read"
    return f"{where}: set seconds_per_page={2 * page} to give it more"


def _too_large(path: Path, settings: LibrarySettings) -> str:
    try:
        megabytes = path.stat().st_size / 2**20
    except OSError:
        return "cannot be opened: check its permissions"
    if megabytes <= settings.max_megabytes:
        return ""
    size = int(megabytes) + 1
    return f"has {size:,} MB, more than max_megabytes={settings.max_megabytes}: set max_megabytes={size} to read it"
