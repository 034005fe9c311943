"""How ranked passages become the order a generator is shown. Answers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from data_builders.contexts import reordered

Item = TypeVar("Item")

ORDERS: dict[str, Callable[[Sequence[Item]], list[Item]]] = {"concatenate": list, "reorder": reordered}
"""Strategy name -> order of passages that come best first (`reorder`: arXiv 2410.05983, algorithm 2)."""
