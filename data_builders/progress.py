"""Progress of long work: a bar with rate and time left in a terminal, a line now and then in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

_LONG = 2.0  # seconds; what is over sooner needs no line


class Progress:
    """Counts `unit`s up to `total` (None: nobody knows); use it as a context manager."""

    def __init__(
        self, unit: str, total: int | None, report: Callable[[str], None], every_seconds: float = 20.0
    ) -> None:
        self.unit, self.total, self.report, self.every = unit, total, report, every_seconds
        self.done = self._before = 0
        self.began = self.last = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Show the bar, in a terminal."""
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.description}"),
                progress.TaskProgressColumn(show_speed=True),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.unit, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def start_at(self, count: int) -> None:
        """Say that `count` were done before this run; they are not part of the rate."""
        self.done = self._before = count
        if self._bar is not None:
            self._bar.update(self._task, completed=count)

    def advance(self, count: int, *, before: int | None = None, unit: str | None = None) -> None:
        """Count `count` more as done.

        `before` says anew how many of all were done before this run, `unit` what is counted.
        """
        self.done += count
        self._before = self._before if before is None else before
        self.unit = unit or self.unit
        if self._bar is not None:
            self._bar.update(self._task, advance=count, description=self.unit)
            return
        now = time.monotonic()
        if now - self.last >= self.every or (self.done == self.total and now - self.began >= _LONG):
            self.last = now
            self.report(f"  {self._line(now)}")

    def _line(self, now: float) -> str:
        rate = (self.done - self._before) / max(now - self.began, 1e-9)
        if self.total is None or not rate:
            of = "" if self.total is None else f"/{self.total}"
            return f"{self.done}{of} {self.unit}  {rate:.1f}/s"
        left = max(0, self.total - self.done) / max(rate, 1e-9)
        return f"{self.done}/{self.total} {self.unit}  {rate:.1f}/s  {left / 60:.1f} min left"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and notes of transformers for a moment; errors still show."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
