"""Which rows stand together in a batch, and in which order batches are trained. Knows ids of rows and lengths only.

The rows of an optimizer step depend on how many it takes, not on how they are spread over forward passes and
processes: a batch size of 1 with 8 accumulations, 8 with none, and 2 processes with 4 train on the same rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from data_builders.files import seeded

Unit: TypeAlias = tuple[int, ...]  # one row, or the rows of a bin
Item = TypeVar("Item")

WINDOW = 32  # steps sorted by length at a time: padding nearly gone, yet other rows meet in every epoch


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of an epoch become batches.

    Attributes:
        batch_size: rows of a forward pass on one process; bins where rows are packed.
        processes: how many take a forward pass at once.
        accumulation: forward passes of an optimizer step.
        seed: of the order.
        grouped: put rows of like length into one step.
        ordered: keep the order in which rows are written; nothing is grouped then.
        capacity: tokens a bin holds; None does not pack.
    """

    batch_size: int
    processes: int = 1
    accumulation: int = 1
    seed: int = 0
    grouped: bool = True
    ordered: bool = False
    capacity: int | None = None

    @property
    def step(self) -> int:
        """Rows or bins of an optimizer step."""
        return self.batch_size * self.processes * self.accumulation


def epoch_batches(lengths: Sequence[int], plan: BatchPlan, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as indices of rows; process p takes every `processes`-th, beginning with the p-th.

    The first epoch begins with the longest row, so that memory that will not do shows in the first step. Only the last
    step may be short. The number of batches is the same in every epoch.

    Args:
        lengths: tokens of each row.
        plan: how to make batches.
        epoch: counted from 0.
    """
    units = _units(lengths, plan, epoch)
    if units and not plan.ordered:
        sizes = {unit: sum(lengths[row] for row in unit) for unit in units}
        units = _random_steps(units, sizes, plan, epoch)
    return [
        [row for unit in batch for row in unit]
        for step in _chunks(units, plan.step)
        for batch in _batches_of_step(step, plan)
    ]


def _units(lengths: Sequence[int], plan: BatchPlan, epoch: int) -> list[Unit]:
    order = list(range(len(lengths)))
    if not plan.ordered:
        seeded(plan.seed, "order of rows", epoch).shuffle(order)
    if plan.capacity is None:
        return [(row,) for row in order]
    return (consecutive_bins if plan.ordered else best_fit_bins)(order, lengths, plan.capacity)


def consecutive_bins(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[Unit]:
    """Fill bins of `capacity` tokens in the order given, each until the next row does not fit."""
    bins: list[list[int]] = []
    room = 0
    for row in order:
        if not bins or lengths[row] > room:
            bins.append([])
            room = capacity
        bins[-1].append(row)
        room -= lengths[row]
    return [tuple(rows) for rows in bins]


def best_fit_bins(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[Unit]:
    """Put rows, longest first, each into the fullest bin of `capacity` tokens that has room for it.

    `order` decides among rows of one length, so that the bins change with it but not their number.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (free tokens, bin), ascending
    for row in sorted(order, key=lambda row: -lengths[row]):
        at = bisect_left(rooms, (lengths[row], 0))
        if at < len(rooms):
            room, found = rooms.pop(at)
        else:
            room, found = capacity, len(bins)
            bins.append([])
        bins[found].append(row)
        insort(rooms, (room - lengths[row], found))
    return [tuple(rows) for rows in bins]


def _random_steps(units: list[Unit], sizes: dict[Unit, int], plan: BatchPlan, epoch: int) -> list[Unit]:
    """Return the units step by step, steps in random order but the short one last; each step from long to short."""
    random = seeded(plan.seed, "order of steps", epoch)
    random.shuffle(units)
    longest = max(range(len(units)), key=lambda index: sizes[units[index]])
    units[0], units[longest] = units[longest], units[0]

    def by_size(some: Sequence[Unit]) -> list[Unit]:
        return sorted(some, key=lambda unit: -sizes[unit])

    if plan.grouped:
        units = [unit for window in _chunks(units, WINDOW * plan.step) for unit in by_size(window)]
    steps = [by_size(step) for step in _chunks(units, plan.step)]
    first = 1 if epoch == 0 else 0
    last = len(steps) - (len(steps[-1]) < plan.step)
    middle = steps[first:last]
    random.shuffle(middle)
    return [unit for step in (*steps[:first], *middle, *steps[max(first, last) :]) for unit in step]


def _batches_of_step(units: Sequence[Unit], plan: BatchPlan) -> Iterator[Sequence[Unit]]:
    """Cut a step into batches of `batch_size`; a short one evenly, so that every process has its part if it can."""
    passes = -(-len(units) // (plan.batch_size * plan.processes))
    count = passes * plan.processes
    if count > len(units):  # fewer rows than processes: accelerate repeats some
        count = -(-len(units) // plan.batch_size)
    for number in range(count):
        yield units[number * len(units) // count : (number + 1) * len(units) // count]


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


class EpochBatches:
    """The batch sampler of a training: the batches of `epoch_batches` for the epoch that `epoch` says.

    It asks for the epoch whenever it is gone through, so it is right after a resume, too, whichever wrappers of torch
    and accelerate are around it. It has no `batch_size`, since batches differ in their number of rows.
    """

    def __init__(self, lengths: Sequence[int], plan: BatchPlan, epoch: Callable[[], int]) -> None:
        self.lengths = lengths
        self.plan = plan
        self.epoch = epoch
        self._count = len(epoch_batches(lengths, plan, 0))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        return iter(epoch_batches(self.lengths, self.plan, self.epoch()))
