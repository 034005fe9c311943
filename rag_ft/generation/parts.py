"""What a batch does that cannot be computed: it is tried in smaller parts. Generates nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rag_ft.generation import Generation, Request
from rag_ft.memory import give_back

Asked = TypeVar("Asked")
Found = TypeVar("Found")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def in_parts(
    groups: Sequence[Sequence[Asked]],
    answer: Callable[[Sequence[Sequence[Asked]]], list[Found]],
    fail: Callable[[Asked, str], Found],
    *,
    proven: bool,
) -> list[Found]:
    """Answer a batch of groups; where that fails, each half of it by itself.

    Args:
        groups: what to answer.
        answer: answers groups all at once.
        fail: says that there is no answer, and why.
        proven: something was answered before, so that an error is this batch's own. Before that, every error but that
            of too little memory is raised: with a wrong set-up all prompts would fail.

    Returns:
        Answers to all that was asked; for what fails alone, what `fail` says.
    """
    try:
        return answer(groups)
    except Exception as error:
        if not proven and not out_of_memory(error):
            raise
        failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    # Out of the except block: while it lasts, the traceback holds on to the batch's tensors.
    free()
    halves = _halves(groups)
    if not halves:
        return [fail(asked, failure) for asked in groups[0]]
    return [found for half in halves for found in in_parts(half, answer, fail, proven=proven)]


def failed(request: Request, failure: str) -> Generation:
    """Return the answer to a request that has none."""
    return Generation(request.key, (), request.length, 0.0, failure=failure)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or not."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def free() -> None:
    """Give back what a batch held, on the GPU too."""
    import torch

    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halves(groups: Sequence[Sequence[Asked]]) -> list[Sequence[Sequence[Asked]]]:
    """Cut between groups, or through the only one; nothing where a single thing is asked."""
    if len(groups) > 1:
        return [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
    middle = len(groups[0]) // 2
    return [[groups[0][:middle]], [groups[0][middle:]]] if middle else []
