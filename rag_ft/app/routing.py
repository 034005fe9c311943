"""Self-Route over any generator (arXiv 2407.16833, section 4): few passages first, all where it declines.

The same decisions as in evaluation, which has them for whole sweeps (rag_ft/strategies/run.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from data_builders.errors import RagFtError
from rag_ft.generator import Answer, Generator, PassageLike
from rag_ft.prompting.settings import PromptSettings
from rag_ft.strategies.run import needs_all, route

FEW = 5
"""Passages of the first try."""


def routed(generator: Generator, question: str, passages: Sequence[PassageLike], few: int = FEW) -> Answer:
    """Answer from the first `few` passages, and where the generator declines, from all of them.

    Args:
        generator: answers both tries.
        question: as for `Generator.answer`.
        passages: best first.
        few: how many the first try shows.

    Returns:
        The last try's answer; `route` says which was enough, tokens and seconds are those of both.

    Raises:
        RagFtError: as `Generator.answer`, or `few` is less than 1.
    """
    return SelfRouting(generator, few).answer(question, passages)


@dataclass(frozen=True)
class SelfRouting:
    """A generator that routes; see `routed`."""

    generator: Generator
    few: int = FEW

    def __post_init__(self) -> None:
        """Refuse a first try without passages, whose prompt offers no declining."""
        if self.few < 1:
            raise RagFtError(f"few={self.few}: the first try needs a passage. Give 1 or more.")

    @property
    def settings(self) -> PromptSettings:
        """How its prompts are written."""
        return self.generator.settings

    @property
    def prompt_hash(self) -> str:
        """The generator's: both tries are prompts as any other."""
        return self.generator.prompt_hash

    def answer(self, question: str, passages: Sequence[PassageLike]) -> Answer:
        """Answer one question."""
        first = self.generator.answer(question, passages[: self.few])
        again = needs_all(len(passages), self.few, declined=first.abstained)
        return _joined(first, self.generator.answer(question, passages) if again else None, len(passages))

    def answers(self, asked: Sequence[tuple[str, Sequence[PassageLike]]]) -> list[Answer]:
        """Answer several questions: all first tries at once, then all second ones."""
        first = self.generator.answers([(question, passages[: self.few]) for question, passages in asked])
        again = [
            number
            for number, ((_, passages), answer) in enumerate(zip(asked, first, strict=True))
            if needs_all(len(passages), self.few, declined=answer.abstained)
        ]
        second = dict(zip(again, self.generator.answers([asked[number] for number in again]), strict=True))
        return [_joined(answer, second.get(number), len(asked[number][1])) for number, answer in enumerate(first)]

    def stream(self, question: str, passages: Sequence[PassageLike]) -> Iterator[str | Answer]:
        """Yield the output as it is written, then the answer.

        Of a first try that might be thrown away nothing is shown before it is known to stand.
        """
        first = self.generator.stream(question, passages[: self.few])
        return self._stream(first, question, passages)

    def _stream(
        self, tries: Iterator[str | Answer], question: str, passages: Sequence[PassageLike]
    ) -> Iterator[str | Answer]:
        held: list[str] = []
        first: Answer | None = None
        for one in tries:
            if isinstance(one, Answer):
                first = one
            elif len(passages) > self.few:
                held.append(one)
            else:
                yield one
        assert first is not None
        if not needs_all(len(passages), self.few, declined=first.abstained):
            yield from held
            yield _joined(first, None, len(passages))
            return
        for one in self.generator.stream(question, passages):
            yield _joined(first, one, len(passages)) if isinstance(one, Answer) else one


def _joined(first: Answer, second: Answer | None, passages: int) -> Answer:
    """Return the last try with the costs of both."""
    way = route(passages, declined=first.abstained)
    if second is None:
        return replace(first, route=way)
    return replace(
        second,
        prompt_tokens=_sum(first.prompt_tokens, second.prompt_tokens),
        output_tokens=_sum(first.output_tokens, second.output_tokens),
        seconds=first.seconds + second.seconds,
        route=way,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
