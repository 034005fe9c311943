"""`rag_ft.train` where the second of the processes cannot read the rows, and the others can."""

import os
import sys
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.train import run
from rag_ft.training import dataset


def _unreadable(path: Path, *told: Any) -> None:
    raise RagFtError(f"{path} cannot be read. Mount the disk.")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        dataset.read_context_rows = _unreadable  # type: ignore[assignment]
    sys.exit(run())
