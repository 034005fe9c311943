"""A question put to one or two generators, and what they have said so far. Knows no browser and no language."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Stoppable
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from data_builders.errors import RagFtError
from rag_ft.app import Found
from rag_ft.generator import Answer, Generator

T = TypeVar("T")
Streams: TypeAlias = Mapping[str, Callable[[], Iterator[T]]]
Pieces: TypeAlias = Iterator[str | Answer]

_LOG = logging.getLogger(__name__)
_SHOWN_EVERY = 0.1  # seconds between two states of a growing answer: more is work for nobody's eyes
_PATH = re.compile(r"(?:(?<![\w.:/])|(?<=file:))(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\":;,]+){2,}[/\\]?")


@dataclass(frozen=True)
class Said:
    """What one generator has said about a question.

    Attributes:
        written: its output so far.
        answer: what was read from all of it; None while it writes and where it failed.
        problem: why it failed, for the person who asked; `failed` where the log knows more.
    """

    written: str = ""
    answer: Answer | None = None
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether it is going to write no more."""
        return self.answer is not None or bool(self.problem)


@dataclass(frozen=True)
class Turn:
    """A question with the passages found for it, in the order of the prompt, and what each generator says."""

    question: str
    found: tuple[Found, ...]
    said: Mapping[str, Said]

    @property
    def done(self) -> bool:
        """Whether nobody is going to write more."""
        return all(one.done for one in self.said.values())

    def stopped(self) -> Turn:
        """Return the turn as it is if nobody writes any more."""
        said = {name: one if one.done else replace(one, problem="stopped") for name, one in self.said.items()}
        return replace(self, said=said)


def talk(question: str, found: Sequence[Found], speakers: Mapping[str, Callable[[], Pieces]]) -> Iterator[Turn]:
    """Let every speaker answer, and yield the turn as it grows; the last one is whole.

    Closing the iterator stops the speakers after the piece they are at.
    """
    turn = Turn(question, tuple(found), dict.fromkeys(speakers, Said()))
    yield turn
    shown_at = 0.0
    for name, piece in at_once(speakers):
        turn = replace(turn, said={**turn.said, name: _with(turn.said[name], piece)})
        if time.monotonic() - shown_at >= _SHOWN_EVERY or not isinstance(piece, str):
            yield turn
            shown_at = time.monotonic()


def streamed(generator: Generator, question: str, found: Sequence[Found]) -> Callable[[], Pieces]:
    """Return the speaker that answers from all passages, piece by piece."""
    return lambda: generator.stream(question, [one.passage for one in found])


def at_once(streams: Streams[T]) -> Iterator[tuple[str, T | Exception]]:
    """Yield what several streams give, as it comes, each with its name; an error ends its own stream only."""
    arrived: queue.Queue[tuple[str, T | Exception | None]] = queue.Queue(maxsize=64)
    left = threading.Event()
    for name, begin in streams.items():
        threading.Thread(target=_pump, args=(name, begin, arrived, left), daemon=True).start()
    going = len(streams)
    try:
        while going:
            name, piece = arrived.get()
            if piece is None:
                going -= 1
            else:
                yield name, piece
    finally:
        left.set()


def _pump(
    name: str,
    begin: Callable[[], Iterator[T]],
    arrived: queue.Queue[tuple[str, T | Exception | None]],
    left: threading.Event,
) -> None:
    """Put all that a stream gives into the queue, and None at its end; give up once nobody reads."""
    try:
        stream = begin()
        for piece in stream:
            if not _put(arrived, (name, piece), left):
                if isinstance(stream, Stoppable):
                    stream.close()  # stops its model
                return
    except Exception as error:
        _put(arrived, (name, error), left)
    _put(arrived, (name, None), left)


def _put(to: queue.Queue[T], item: T, left: threading.Event) -> bool:
    while not left.is_set():
        try:
            to.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False


def _with(said: Said, piece: str | Answer | Exception) -> Said:
    if isinstance(piece, Exception):
        return replace(said, problem=told(piece))
    if isinstance(piece, str):
        return replace(said, written=said.written + piece)
    return replace(said, written=piece.output, answer=piece)


def without_paths(text: str) -> str:
    """Return a sentence without the paths of this machine."""
    return _PATH.sub("...", text)


def told(error: Exception) -> str:
    """Return what a person in a browser may know of an error: a mistake's sentence without paths, or `failed`.

    What is not a mistake is our bug: it goes to the log with its traceback.
    """
    if isinstance(error, RagFtError):
        return without_paths(str(error))
    _LOG.error("the demo could not answer", exc_info=error)
    return "failed"
