"""Runs the shards of a job over processes or a Ray cluster. What a shard gives depends on nothing but its number.

Every finished shard is a file, so a killed build goes on with the shards it lacks, and the bytes of the whole do not
depend on how many processes there were. Knows nothing of what a job computes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from data_builders.manifest import Tally
from data_builders.progress import Progress

ExecutorKind = Literal["processes", "ray"]


class Job(Protocol):
    """Work that is cut into ranges of rows. Pickled to every process, so what it opens it opens when first run."""

    def run(self, start: int, stop: int, tally: Tally) -> pa.Table:
        """Return what rows `start` up to `stop` give; tell the tally what was counted and left out."""
        ...


@dataclass(frozen=True)
class Executor:
    """Where shards run. `processes` None takes every core."""

    kind: ExecutorKind = "processes"
    processes: int | None = None

    def workers(self, shards: int) -> int:
        """Return how many processes are worth starting for so many shards."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(shards, self.processes or cores))

    @contextmanager
    def mapper(self) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]]:
        """Give an ordered `map` over processes that takes only a few items ahead of what was asked for."""
        workers = self.workers(1 << 16)
        if workers == 1:
            yield map
            return
        pool = _pool(workers, None)
        try:
            yield partial(_mapped, pool, 2 * workers)
        except BrokenProcessPool as error:
            raise _died() from error
        finally:
            pool.shutdown(cancel_futures=True)


def _mapped(pool: ProcessPoolExecutor, ahead: int, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for item in items:
        with _interrupts_held_back():
            waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(frozen=True)
class Shards:
    """A job cut into ranges of `size` rows; `folder` takes a file for each, `name` is what progress calls the rows.

    The files stay when all are there: whoever ran the shards removes the folder once the whole is safe.
    """

    job: Job
    rows: int
    size: int
    folder: Path
    name: str

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def path(self, number: int) -> Path:
        """Return the file of one shard."""
        return self.folder / f"{number:06d}.arrow"

    def write(self, number: int) -> int:
        """Run one shard and write its file; return how many rows it covers."""
        start, stop = number * self.size, min((number + 1) * self.size, self.rows)
        tally = Tally()
        table = self.job.run(start, stop, tally)
        table = table.replace_schema_metadata({"tally": json.dumps(tally.state())})
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            atomic_path(self.path(number)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, table.schema, options=options) as writer,
        ):
            writer.write_table(table)
        return stop - start


def run_shards(shards: Shards, executor: Executor, report: Callable[[str], None]) -> Iterator[tuple[pa.Table, Tally]]:
    """Run the shards that are not on disk yet, then yield every shard's table and tally in order.

    Raises:
        RagFtError: what a shard raises, or a process died (memory, a signal); the finished shards stay.
    """
    shards.folder.mkdir(parents=True, exist_ok=True)
    pending = [number for number in range(len(shards)) if not shards.path(number).is_file()]
    with Progress(shards.name, shards.rows, report) as progress:
        progress.start_at(shards.rows - sum(_rows_of(shards, number) for number in pending))
        for covered in _finished(shards, pending, executor):
            progress.advance(covered)
    for number in range(len(shards)):
        table = pa.ipc.open_file(pa.memory_map(str(shards.path(number)))).read_all()
        yield table, Tally.of_state(json.loads(table.schema.metadata[b"tally"]))


def _rows_of(shards: Shards, number: int) -> int:
    return min((number + 1) * shards.size, shards.rows) - number * shards.size


def _finished(shards: Shards, pending: Sequence[int], executor: Executor) -> Iterator[int]:
    workers = executor.workers(len(pending))
    if executor.kind == "ray" and pending:
        return _on_ray(shards, pending, executor)
    return _in_processes(shards, pending, workers) if workers > 1 else map(shards.write, pending)


def _in_processes(shards: Shards, pending: Sequence[int], workers: int) -> Iterator[int]:
    pool = _pool(workers, shards)
    try:
        with _interrupts_held_back():
            running = [pool.submit(_write_shard, number) for number in pending]
        for done in as_completed(running):
            yield done.result()
    except BrokenProcessPool as error:
        raise _died() from error
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, shards: Shards | None) -> ProcessPoolExecutor:
    from multiprocessing import get_context

    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(shards,))


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait while processes start. They inherit that, also before their first line of Python has run.

    A terminal sends Ctrl-C to every process. Only the parent hears it then; its processes end the shards they are at.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _died() -> RagFtError:
    return RagFtError(
        "a building process died, most likely for want of memory. Run the same command again, it goes on where it "
        "stopped; data.processes=1 needs least memory."
    )


_SHARDS: Shards | None = None


def _start_worker(shards: Shards | None) -> None:
    """Keep the job for this process's life, on one thread, and end with the parent even if that was killed."""
    global _SHARDS
    _SHARDS = shards
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pa.set_cpu_count(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _write_shard(number: int) -> int:
    assert _SHARDS is not None
    return _SHARDS.write(number)


class _RayWorker:
    """Holds the job on a Ray worker, so that it opens its files once."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"covered": self._shards.write(int(row["number"]))}


def _on_ray(shards: Shards, pending: Sequence[int], executor: Executor) -> Iterator[int]:
    """Map the shards with Ray Data over the cluster that RAY_ADDRESS names, or a local one of this machine's cores."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RagFtError(
            'data.executor=ray needs Ray, which is not installed: pip install "rag-ft[ray]", '
            "or set data.executor=processes."
        ) from error
    if not ray.is_initialized():
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else executor.workers(len(pending)), log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([{"number": number} for number in pending], override_num_blocks=len(pending))
    worker: Any = _RayWorker
    done = rows.map(worker, fn_constructor_args=(shards,), concurrency=executor.workers(len(pending)))
    for row in done.iter_rows():
        yield int(row["covered"])
