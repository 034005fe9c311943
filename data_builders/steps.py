"""Runs steps: skips what stands, rebuilds what is stale and says why. Knows nothing of what a step does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from data_builders.errors import RagFtError
from data_builders.executor import Executor, Job, Shards, run_shards
from data_builders.files import atomic_path, content_hash, file_hash
from data_builders.manifest import MANIFEST, Identity, Tally, why_stale, write_manifest
from data_builders.step_report import report_lines


@dataclass(frozen=True)
class Bench:
    """What a step works with.

    Attributes:
        target: the folder it fills.
        parts: a folder for finished parts; it outlives a kill, and goes when the step is complete.
        executor: where parts are computed.
        tally: takes what is counted and left out.
        report: takes lines about the progress of long work.
    """

    target: Path
    parts: Path
    executor: Executor
    tally: Tally
    report: Callable[[str], None]

    def tables(self, job: Job, rows: int, size: int, name: str) -> Iterator[pa.Table]:
        """Yield what a job gives, in order, and add its tallies to the step's. `name` must be this job's own."""
        shards = Shards(job, rows, size, self.parts / name.replace(" ", "-"), name)
        for table, tally in run_shards(shards, self.executor, self.report):
            self.tally.add(tally)
            yield table

    def write(self, file: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
        """Write tables into one Parquet file of the step, one row group each."""
        rows, path = 0, self.target / file
        with atomic_path(path) as temporary, parquet_writer(temporary, schema) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
                rows += table.num_rows
            if not rows:
                writer.write_table(schema.empty_table())
        self.tally.rows[file] = rows


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet file for writing. Texts rarely repeat within a row group, so dictionaries would only cost time."""
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False)


@dataclass(frozen=True)
class Step:
    """One cached unit of work.

    Attributes:
        name: its folder below the data folder.
        version: raised when the code changes what the step writes.
        settings: the part of the recipe it depends on, as plain JSON values.
        needs: files of earlier steps it reads, relative to the data folder.
        files: names of the files it writes into its folder.
        work: fills its folder and tells the tally the rows of each file.
        outside: says what the files of others that it reads look like now (path -> size and time of change); asked
            only when building, so that data once built serve without them.
    """

    name: str
    version: int
    settings: dict[str, Any]
    needs: tuple[str, ...]
    files: tuple[str, ...]
    work: Callable[[Bench], None]
    outside: Callable[[], dict[str, Any]] = dict


def run_steps(
    steps: Sequence[Step], seed: int, folder: Path, report: Callable[[str], None], executor: Executor | None = None
) -> None:
    """Bring every step up to date, in order. A step whose inputs came out the same is not run again.

    The executor (by default processes on every core) decides how long it takes, never what comes out.

    Raises:
        RagFtError: the folder cannot be written, or another build is writing it.
    """
    with _alone(folder):
        for step in steps:
            _bring_up_to_date(step, seed, folder, report, executor or Executor())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system gives back whatever becomes of this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "build.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RagFtError(
            f"another build is writing {folder}. Wait until it has ended, or choose another folder with name=NAME."
        ) from None
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _bring_up_to_date(step: Step, seed: int, folder: Path, report: Callable[[str], None], executor: Executor) -> None:
    target = folder / step.name
    identity, outside = _identity(step, seed, folder), step.outside()
    reason = why_stale(target, identity, step.files, outside)
    if reason is None:
        report(f"{step.name}: unchanged")
        return
    report(f"{step.name}: building ({reason})")
    parts = target / f".parts-{content_hash([identity.fingerprint, outside])}"
    _run(step, identity, Bench(target, parts, executor, Tally(), report), outside)


def first_stale(steps: Sequence[Step], seed: int, folder: Path, *, building: bool = False) -> str | None:
    """Return which step is not up to date and why, or None when all are; `building` asks for files of others too."""
    for step in steps:
        if any(not (folder / name).is_file() for name in step.needs):
            return f"{step.name} lacks what it is built from"
        reason = why_stale(
            folder / step.name, _identity(step, seed, folder), step.files, step.outside() if building else None
        )
        if reason is not None:
            return f"{step.name} ({reason})"
    return None


def _identity(step: Step, seed: int, folder: Path) -> Identity:
    inputs = {name: file_hash(folder / name) for name in step.needs}
    return Identity(step.name, step.version, step.settings, seed, inputs)


def _run(step: Step, identity: Identity, bench: Bench, outside: dict[str, Any]) -> None:
    started, tally = time.monotonic(), bench.tally
    with _manifest_aside(bench):
        step.work(bench)
        seconds = time.monotonic() - started
        write_manifest(bench.target, identity, tally, seconds, outside)
    shutil.rmtree(bench.parts, ignore_errors=True)
    for path in [*bench.target.glob("*.parquet"), *bench.target.glob("*.arrow")]:
        path.unlink() if path.name not in step.files else None
    bench.report(f"{step.name}: done in {seconds:.1f} s")
    for line in report_lines(tally):
        bench.report(f"  {line}")


@contextmanager
def _manifest_aside(bench: Bench) -> Iterator[None]:
    """Work without a manifest, so that a kill leaves none beside half the files.

    A user's mistake brings the old one back: what it tells of stands as long as no file was replaced, and it knows
    their hashes.
    """
    manifest, aside = bench.target / MANIFEST, bench.target / f".{MANIFEST}.before"
    _clear(bench)
    if manifest.exists():
        manifest.replace(aside)
    try:
        yield
    except RagFtError:
        if aside.exists():
            aside.replace(manifest)
        raise
    aside.unlink(missing_ok=True)


def _clear(bench: Bench) -> None:
    """Remove what a run that was killed left half done.

    Parts of this very step stay: their folder is named after all they depend on.
    """
    target = bench.target
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in [*target.glob(".*.tmp"), *target.glob(".*.before")]:
            path.unlink(missing_ok=True)
        for folder in target.glob(".parts-*"):
            if folder != bench.parts:
                shutil.rmtree(folder)
        for path in bench.parts.glob("**/.*.tmp"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(folder: Path, error: OSError) -> RagFtError:
    return RagFtError(
        f"cannot write {folder}: {error.strerror}. Make the folder writable or choose another with runs_dir=PATH."
    )
