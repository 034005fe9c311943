"""Gives freed memory back to the system, where the C library can. Frees nothing that is in use."""

from __future__ import annotations

import ctypes
import gc
import os


def give_back(*, collect: bool = True) -> None:
    """Return what was freed to the system; with `collect`, look for reference cycles first.

    Tensors of many sizes leave holes in glibc's heap that no later tensor fits: measured, a process that trains on rows
    of many lengths grows by 40 MB a step although it uses no more than in its first.
    """
    if collect:
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
