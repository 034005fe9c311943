"""Strategies that put all passages they show into one prompt, over any engine. Knows no model and no grid.

Concatenation and reordering take one prompt; Self-Route (arXiv 2407.16833, section 4) takes one over few passages,
and where the generator declines, a second one over all of them. The prompt of the first try is the ordinary one of the
system's style: every style offers the abstention sentence wherever it shows passages (prompting/templates.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from data_builders.records import Passage, PoolPassage
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.generation import Engine, Generation, Request
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.parse import parse_output
from rag_ft.strategies import ORDERS, Answered, Ask

Groups = Sequence[Sequence[Ask]]


def answer(
    strategy: str, groups: Groups, encoder: Encoder, engine: Engine, *, system: SystemSettings, batch_size: int
) -> Iterator[list[Answered]]:
    """Answer every ask exactly once, batch by batch, so that a kill loses the batch under way and no more.

    Args:
        strategy: concatenate, reorder or self_route. Passages that stand in their final order go to concatenate.
        groups: asks that may share prompts and their beginnings: those of one question in one order.
        encoder: of the style in which the system is asked.
        engine: answers the prompts. Equal prompts of a group are asked once.
        system: its endpoint decides whether prompts are written as messages too, its self_route how many come first.
        batch_size: groups that self_route takes through both tries before it yields.
    """
    if strategy == "self_route":
        ordered = sorted(groups, key=lambda group: max((len(ask.passages) for ask in group), default=0))
        for start in range(0, len(ordered), batch_size):
            yield _routed(ordered[start : start + batch_size], encoder, engine, system)
    else:
        yield from _asked(_arranged(strategy, groups), encoder, engine, system)


def prompts(strategy: str, groups: Groups, encoder: Encoder, *, system: SystemSettings) -> list[list[Request]]:
    """Return every prompt a strategy may ask, group by group: for the choice of an engine, costs and hashes."""
    if strategy != "self_route":
        tries: list[list[Ask]] = _arranged(strategy, groups)
    else:
        tries = [[*first, *group] for first, group in zip(_first_tries(groups, system), groups, strict=True)]
    return [[request for request, _ in _requests(group, encoder, system)] for group in tries]


def _arranged(strategy: str, groups: Groups) -> list[list[Ask]]:
    order = ORDERS[strategy]
    return [[replace(ask, passages=tuple(order(ask.passages))) for ask in group] for group in groups]


def _first_tries(groups: Groups, system: SystemSettings) -> list[list[Ask]]:
    few = system.self_route.passages
    return [[replace(ask, passages=ask.passages[:few]) for ask in group] for group in groups]


def _requests(group: Sequence[Ask], encoder: Encoder, system: SystemSettings) -> list[tuple[Request, list[Ask]]]:
    """Return the different prompts of a group, each with every ask it answers. A server takes them as messages too."""
    found: dict[tuple[Ids, ...], list[Ask]] = {}
    for ask in group:
        found.setdefault(encoder.prompt(ask.question, texts(ask.passages)), []).append(ask)
    return [
        (Request(asks[0].key, segments, _messages(asks[0], encoder) if system.endpoint else ()), asks)
        for segments, asks in found.items()
    ]


def texts(passages: Sequence[PoolPassage]) -> list[Passage]:
    """Return passages as the renderer takes them."""
    return [Passage(passage.id, passage.title, passage.text) for passage in passages]


def _messages(ask: Ask, encoder: Encoder) -> tuple[dict[str, str], ...]:
    return tuple(encoder.messages(ask.question, texts(ask.passages)))


def _asked(groups: Groups, encoder: Encoder, engine: Engine, system: SystemSettings) -> Iterator[list[Answered]]:
    """Put every ask's passages into one prompt, in the order they stand."""
    requests = [_requests(group, encoder, system) for group in groups]
    asks = {request.key: found for group in requests for request, found in group}
    for batch in engine.generate([[request for request, _ in group] for group in requests if group]):
        yield [_answered(ask, generation, encoder) for generation in batch for ask in asks[generation.key]]


def _answered(ask: Ask, generation: Generation, encoder: Encoder) -> Answered:
    output, written = generation.text, generation.output_tokens
    if output is None:
        output = encoder.tokenizer.decode(generation.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answered(
        key=ask.key,
        output=output,
        prompt_tokens=generation.prompt_tokens,
        output_tokens=len(generation.ids) if written is None else written,
        seconds=generation.seconds,
        confidence=generation.confidence,
        failure=generation.failure,
    )


def _routed(groups: Groups, encoder: Encoder, engine: Engine, system: SystemSettings) -> list[Answered]:
    """Answer a batch by Self-Route: few passages first, all of them where the generator declined.

    An ask of no more passages than the first try shows is asked once: the second prompt would be the first again. It
    counts as routed to `all` where it declined all the same.
    """
    first = {one.key: one for batch in _asked(_first_tries(groups, system), encoder, engine, system) for one in batch}
    second_groups = [[ask for ask in group if _needs_all(ask, first[ask.key], encoder, system)] for group in groups]
    second = {one.key: one for batch in _asked(second_groups, encoder, engine, system) for one in batch}
    asks = [ask for group in groups for ask in group]
    return [_joined(first[ask.key], second.get(ask.key), _route(ask, first[ask.key], encoder)) for ask in asks]


def _declined(answered: Answered, encoder: Encoder) -> bool:
    return answered.failure is None and parse_output(answered.output, encoder.settings).abstained


def _needs_all(ask: Ask, first: Answered, encoder: Encoder, system: SystemSettings) -> bool:
    return needs_all(len(ask.passages), system.self_route.passages, declined=_declined(first, encoder))


def needs_all(passages: int, few: int, *, declined: bool) -> bool:
    """Tell whether a second try shows more than the first did."""
    return passages > few and declined


def _route(ask: Ask, first: Answered, encoder: Encoder) -> str:
    # A failed try decided nothing.
    return "" if first.failure is not None else route(len(ask.passages), declined=_declined(first, encoder))


def route(passages: int, *, declined: bool) -> str:
    """Return how the first try decided. Closed-book there is nothing to route: that prompt offers no declining."""
    if not passages:
        return ""
    return "all" if declined else "few"


def _joined(first: Answered, second: Answered | None, route: str) -> Answered:
    """Return the last try with the costs of both."""
    if second is None:
        return replace(first, route=route)
    return replace(
        second,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        seconds=first.seconds + second.seconds,
        route=route,
        calls=2,
    )
