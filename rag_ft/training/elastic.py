"""`accelerate launch` as a process that ends with the exit code of the training and leaves it to that to say why."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys

_TOLD = (2, 130)  # a user's mistake and an interrupt: where one process ends with them, the others only follow


def launch() -> int:
    """Run accelerate's launcher with the arguments of this process; return the exit code of the training."""
    from accelerate.commands.launch import main
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # An interrupt goes to the training processes, which save a checkpoint; this one waits for them.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    logging.disable(logging.ERROR)  # torch's table of failed processes repeats what one of them has said
    try:
        main()
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        return _positive(next((code for code in _TOLD if code in codes), error.get_first_failure()[1].exitcode))
    except subprocess.CalledProcessError as error:
        return _positive(error.returncode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _positive(code: int) -> int:
    """Write the end by a signal as shells do."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(launch())
