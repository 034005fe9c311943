"""`accelerate launch -m rag_ft.train RECIPE [a.b=c ...]`: the train verb as a module, for launchers."""

import sys
import traceback

from rag_ft.cli import main
from rag_ft.training.ranks import processes, speaks


def run() -> int:
    """Train as one of the processes of a launcher; where several fail, the first tells why and the others are silent.

    Returns:
        The exit code of the verb; 1 for a bug.
    """
    try:
        code = main(["train", *sys.argv[1:]])
    except Exception:
        if speaks():
            traceback.print_exc()
        return 1
    if code == 0 and processes() > 1 and "torch" in sys.modules:
        _part()
    return code


def _part() -> None:
    """Leave the group of processes, which NCCL would warn about otherwise. After a failure this could wait for ever."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(run())
