"""Which of several processes this is, and which of them speaks. Imports nothing heavy; starts no process."""

from __future__ import annotations

import os
from pathlib import Path


def rank() -> int:
    """Return the number of this process among those that train together, from 0."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Return how many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Tell whether this process says how the training ended: on each machine the first that asks, and no other.

    One mistake reaches every process, or ends the others by their broken connections; it is said once. The mark lies
    in the folder that torch's launcher makes for a start. Under other launchers everybody speaks rather than nobody.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not error_file or processes() == 1:
        return True
    try:
        (Path(error_file).parents[1] / "said").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
