"""Where training runs: in this process, in a fresh one, or in several under accelerate. Trains nothing itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import RunFolder
from rag_ft.training.accelerate_configs import LaunchConfig, find_config
from rag_ft.training.ranks import processes
from rag_ft.training.run import Report, train

_WORKER = "rag_ft.train"
_ELASTIC = "rag_ft.training.elastic"
_CHILD = "RAG_FT_CHILD"  # set in processes started here, which train themselves
_PATCHED = ("torch", "transformers")
_INTERRUPTED = 130


def start_training(
    told: Sequence[str],
    recipe: Recipe,
    run: RunFolder,
    report: Report,
    accelerate: str | None = None,
    *,
    goes_on: bool = False,
) -> int:
    """Train, here or in processes of its own.

    Args:
        told: the recipe and overrides as on the command line.
        recipe: what they mean.
        run: its folder, opened.
        report: takes lines.
        accelerate: the name of a configuration in `accelerate_configs/`, or the path of one.
        goes_on: whether this process has other work afterwards, which what Unsloth patches must not reach.

    Returns:
        The exit code: 0, or that of the process that trained and has said why.

    Raises:
        RagFtError: there is no such configuration, or it does not fit this machine.
        KeyboardInterrupt: Ctrl-C before training had begun.
    """
    if accelerate is not None:
        return _supervise([_ELASTIC, *launch_arguments(find_config(accelerate)), "-m", _WORKER, *told])
    if recipe.training.backend == "unsloth" and _CHILD not in os.environ and (goes_on or _already_imported()):
        return _supervise([_WORKER, *told])
    train(recipe, run, report)
    return 0


def _already_imported() -> bool:
    return any(name in sys.modules for name in _PATCHED)


def launch_arguments(config: LaunchConfig) -> list[str]:
    """Return the options of `accelerate launch` for a configuration on this machine.

    Raises:
        RagFtError: accelerate is missing, this process was launched itself, or there is no GPU for it.
    """
    if find_spec("accelerate") is None:
        raise RagFtError('--accelerate needs the package accelerate: pip install "rag-ft[train]"')
    if processes() > 1 or "LOCAL_RANK" in os.environ:
        raise RagFtError("this process was started by a launcher already: leave --accelerate out.")
    # any free port, so that two trainings on one machine do not meet
    place = list(_of_this_machine()) if config.machines > 1 else ["--main_process_port", "0"]
    count = [] if config.processes else ["--num_processes", str(_devices(config) * config.machines)]
    return ["--config_file", str(config.path), *count, *place]


def _devices(config: LaunchConfig) -> int:
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise RagFtError(
            f"--accelerate {config.path.stem} trains on GPUs and this machine shows none. Take --accelerate cpu, or "
            "leave the option out to train in one process."
        )
    return count


def _of_this_machine() -> Iterator[str]:
    """Yield which of several machines this is, from the variables that launchers and schedulers set."""
    missing = [name for name in ("MASTER_ADDR", "NODE_RANK") if not os.environ.get(name)]
    if missing:
        raise RagFtError(
            f"several machines train together and {' and '.join(missing)} is not set. On the first machine begin the "
            "command with MASTER_ADDR=ADDRESS_OF_THE_FIRST NODE_RANK=0, on the second with NODE_RANK=1."
        )
    yield from ("--main_process_ip", os.environ["MASTER_ADDR"], "--machine_rank", os.environ["NODE_RANK"])
    if os.environ.get("MASTER_PORT"):
        yield from ("--main_process_port", os.environ["MASTER_PORT"])


def _supervise(module_and_arguments: list[str]) -> int:
    """Run a module of Python as a child that writes where this process does; return its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module_and_arguments],
        env={**os.environ, _CHILD: "1"},
        start_new_session=True,  # the terminal's Ctrl-C comes here alone, and from here to each process once
    )
    elastic = module_and_arguments[0] == _ELASTIC
    with _handing_on_signals(process, elastic) as signals:
        code = process.wait()
    if signals and code != _INTERRUPTED:
        raise KeyboardInterrupt
    if code < 0 or (code > 128 and code != _INTERRUPTED):
        number = -code if code < 0 else code - 128
        raise RagFtError(
            f"a training process was ended by signal {number} ({signal.Signals(number).name}), as happens when memory "
            "runs out. The same command goes on from the last whole checkpoint; a lower training.max_length or "
            "training.batch_size takes less memory."
        )
    return code


@contextmanager
def _handing_on_signals(process: subprocess.Popen[bytes], elastic: bool) -> Iterator[list[int]]:
    """Hand a first Ctrl-C to the training processes; end all of them on a second, and when this process is ended."""
    signals: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        signals.append(number)
        workers = [] if len(signals) > 1 else _children(process.pid) if elastic else [process]
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        if not workers:
            _end(process)

    def end(number: int, frame: Any) -> None:
        _end(process)
        sys.exit(128 + number)

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(process)


def _children(pid: int, *, all_below: bool = False) -> list[Any]:
    psutil: Any = import_module("psutil")  # comes with accelerate
    try:
        return psutil.Process(pid).children(recursive=all_below)
    except psutil.NoSuchProcess:
        return []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that still runs with all it started."""
    if process.poll() is None:
        for child in _children(process.pid, all_below=True):
            child.kill()
        process.kill()
        process.wait()
