"""What a batch does that cannot be computed: it is tried in smaller parts. Generates nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag_ft.generation import Generation, Request
from rag_ft.memory import give_back

Groups = Sequence[Sequence[Request]]

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def in_parts(groups: Groups, answer: Callable[[Groups], list[Generation]], *, proven: bool) -> list[Generation]:
    """Answer a batch of groups; where that fails, each half of it by itself.

    Args:
        groups: what to answer.
        answer: answers groups all at once.
        proven: something was answered before, so that an error is this batch's own. Before that, every error but that
            of too little memory is raised: with a wrong set-up all prompts would fail.

    Returns:
        Answers to all requests; a prompt that fails alone has a `failure` instead of an answer.
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
        return [failed(request, failure) for request in groups[0]]
    return [found for half in halves for found in in_parts(half, answer, proven=proven)]


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


def _halves(groups: Groups) -> list[Groups]:
    """Cut between groups, or through the only one; nothing where there is one prompt."""
    if len(groups) > 1:
        return [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
    middle = len(groups[0]) // 2
    return [[groups[0][:middle]], [groups[0][middle:]]] if middle else []
