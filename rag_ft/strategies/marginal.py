"""RAG-Sequence and RAG-Token (arXiv 2005.11401, sections 2.1 and 2.5) for decoder-only models: one passage per prompt.

    RAG-Sequence  p(y|x) = sum_z p(z|x) prod_i p(y_i | x, z, y_<i)
    RAG-Token     p(y|x) = prod_i sum_z p(z|x) p(y_i | x, z, y_<i)

z runs over the passages shown, p(z|x) is the softmax of their retriever scores, y is the whole output with the token
that ends it. What a reader should know: no passage is ever seen beside another, so nothing is combined across passages,
the order of passages does not matter, and [1] in an output means the passage of its own prompt. In a style with
reasoning y is reasoning and answer together; two passages hardly ever write the same reasoning, so RAG-Sequence then
picks one passage's output rather than an answer that several support, and prefers short ones, as it does everywhere:
probabilities are not divided by length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from data_builders.records import PoolPassage
from rag_ft.generation.parts import in_parts
from rag_ft.generation.reach import Reach
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.strategies import Answered, Ask
from rag_ft.strategies.rows import Mixture, Rows, Written, beams, decode, encode, scored
from rag_ft.strategies.run import Groups, texts

_Found: TypeAlias = tuple[Written, int]

TOKENS = 16_384
"""Prompt tokens, padding among them, that are encoded at once; a single question may exceed it."""


@dataclass(frozen=True)
class Generator:
    """What writes.

    Attributes:
        model: a causal model of transformers.
        stop_ids: tokens that end an answer. Outputs that differ in it alone are different sequences.
        max_new_tokens: longest answer in tokens.
        beams: sequences that RAG-Sequence takes from each passage; 1 is the greedy one.
    """

    model: Any
    stop_ids: frozenset[int]
    max_new_tokens: int
    beams: int = 1


@dataclass(frozen=True)
class Posed:
    """An ask as rows of its batch. `log_weights` are log p(z|x); `prompt_tokens` counts every row."""

    ask: Ask
    rows: tuple[int, ...]
    log_weights: tuple[float, ...]
    prompt_tokens: int


_Strategy: TypeAlias = Callable[[Generator, list[Ids], Sequence[Posed]], list[_Found]]


def answer_marginal(
    strategy: str,
    groups: Groups,
    encoder: Encoder,
    generator: Generator,
    *,
    batch_size: int,
    bounds: Reach | None = None,
) -> Iterator[list[Answered]]:
    """Answer every ask exactly once, batch by batch, questions of like length together.

    An answer's `calls` are its passages, `prompt_tokens` and `output_tokens` those of all its passages' prompts and
    outputs (rag_token: the answer once for each passage), `confidence` the log of the marginal probability per token.
    A batch that the memory does not hold is tried in halves; an ask that does not fit alone has a `failure`.

    Args:
        strategy: rag_sequence (thorough decoding), rag_sequence_fast or rag_token.
        groups: asks; those of one question share the prompts of the passages they have in common, in one group or not.
        encoder: of the style in which the system is asked.
        generator: what writes.
        batch_size: questions encoded at once, as long as they fit TOKENS.
        bounds: how far the model's positions go; an ask with a prompt beyond them fails.
    """
    if bounds is not None:
        groups, beyond = _within(groups, encoder, bounds)
        if beyond:
            yield beyond

    answer = partial(_batch, _STRATEGIES[strategy], generator, encoder)
    for number, batch in enumerate(_batches(groups, encoder, batch_size)):
        yield in_parts(batch, answer, partial(_failed, encoder), proven=number > 0)


def _batch(strategy: _Strategy, generator: Generator, encoder: Encoder, groups: Groups) -> list[Answered]:
    import torch

    began = time.perf_counter()
    prompts: dict[Ids, int] = {}
    posed = [pose(ask, encoder, prompts) for group in groups for ask in group]
    with torch.inference_mode():
        found = strategy(generator, list(prompts), posed)
    seconds = (time.perf_counter() - began) / len(posed)
    return [
        _answered(one, written, output_tokens, encoder, generator.stop_ids, seconds)
        for one, (written, output_tokens) in zip(posed, found, strict=True)
    ]


def _failed(encoder: Encoder, ask: Ask, reason: str) -> Answered:
    """Return the answer to an ask that has none."""
    lengths = [len(prompt) for prompt in _prompts(ask, encoder)]
    return Answered(ask.key, "", sum(lengths), 0, 0.0, calls=len(lengths), failure=reason)


def log_weights(passages: Sequence[PoolPassage]) -> list[float]:
    """Return log p(z|x) of the passages shown: the log-softmax, at temperature 1, of their retriever scores.

    Its sharpness is the scale of the retriever: BM25 scores differ by several units, so that the first passage takes
    nearly all; cosines and the scores of reciprocal-rank fusion differ by hundredths, so that all weigh about the same.
    Scores of several retrievers (ranking `interleave`) cannot be compared, and where one is not finite nothing can be
    said: passages then weigh the same. Gold that no retriever found weighs as the last of those found; a passage of
    another question as the last of its pool, whose score it carries, and never more than that gold.
    """
    scores = [passage.score for passage in passages if passage.rank > 0]
    retrievers = {passage.retriever for passage in passages if passage.rank > 0}
    if len(retrievers) != 1 or not all(map(math.isfinite, scores)):
        return [-math.log(len(passages))] * len(passages)
    lowest = min(scores)
    filled = [passage.score if passage.rank > 0 else _unranked(passage, lowest) for passage in passages]
    total = _log_sum(filled)
    return [score - total for score in filled]


def _unranked(passage: PoolPassage, lowest: float) -> float:
    return min(passage.score, lowest) if passage.retriever == "random" else lowest


def _log_sum(values: Sequence[float]) -> float:
    """Return log(sum(exp(values)))."""
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _within(groups: Groups, encoder: Encoder, bounds: Reach) -> tuple[Groups, list[Answered]]:
    """Take the asks out that have a prompt which the model cannot reach."""
    asks = [ask for group in groups for ask in group]
    reasons = {ask.key: bounds.refusal(max(map(len, _prompts(ask, encoder)))) for ask in asks}
    beyond = [_failed(encoder, ask, reason) for ask in asks if (reason := reasons[ask.key])]
    return [[ask for ask in group if not reasons[ask.key]] for group in groups], beyond


def _batches(groups: Groups, encoder: Encoder, batch_size: int) -> Iterator[list[Sequence[Ask]]]:
    """Yield the asks of up to `batch_size` questions at a time, fewer where their prompts exceed TOKENS."""
    questions: dict[str, list[Ask]] = {}
    for ask in (ask for group in groups for ask in group):
        questions.setdefault(ask.question, []).append(ask)
    sized = sorted(((*_size(asks, encoder), asks) for asks in questions.values()), key=lambda item: item[:2])
    batch: list[Sequence[Ask]] = []
    rows = 0
    for longest, count, group in sized:  # by length: the last is the longest
        if batch and (len(batch) == batch_size or (rows + count) * longest > TOKENS):
            yield batch
            batch, rows = [], 0
        batch.append(group)
        rows += count
    if batch:
        yield batch


def _size(group: Sequence[Ask], encoder: Encoder) -> tuple[int, int]:
    """Return the longest prompt of a question, in tokens, and the number of its different prompts."""
    prompts = {prompt for ask in group for prompt in _prompts(ask, encoder)}
    return max(map(len, prompts)), len(prompts)


def _prompts(ask: Ask, encoder: Encoder) -> list[Ids]:
    """Return the prompt of every passage; the closed-book prompt where there is none."""
    alone = [[passage] for passage in texts(ask.passages)] or [[]]
    return [tuple(token for ids in encoder.prompt(ask.question, one) for token in ids) for one in alone]


def pose(ask: Ask, encoder: Encoder, prompts: dict[Ids, int]) -> Posed:
    """Give every prompt of an ask its row, in the order of rows, so that the passages' order changes nothing."""
    found = _prompts(ask, encoder)
    weights = log_weights(ask.passages) if ask.passages else [0.0]
    placed = sorted(zip((prompts.setdefault(prompt, len(prompts)) for prompt in found), weights, strict=True))
    rows, ordered = zip(*placed, strict=True)
    return Posed(ask, rows, ordered, sum(map(len, found)))


def _token(generator: Generator, prompts: list[Ids], posed: Sequence[Posed]) -> list[_Found]:
    """RAG-Token: at every step the most probable token of the mixture. Asks of one mixture are decoded once."""
    mixtures = [Mixture(one.rows, tuple(map(math.exp, one.log_weights))) for one in posed]
    different = list(dict.fromkeys(mixtures))
    model, rows = generator.model, encode(generator.model, prompts)
    written = decode(model, rows, different, generator.stop_ids, generator.max_new_tokens)
    found = dict(zip(different, written, strict=True))
    return [(found[mixture], len(found[mixture].ids) * len(mixture.rows)) for mixture in mixtures]


def _sequence(generator: Generator, prompts: list[Ids], posed: Sequence[Posed], *, thorough: bool) -> list[_Found]:
    """RAG-Sequence: the candidate of the highest marginal probability."""
    found = []
    for marginals, output_tokens in sequence_marginals(generator, prompts, posed, thorough=thorough):
        best = max(marginals, key=lambda ids: marginals[ids])
        found.append((Written(best, marginals[best]), output_tokens))
    return found


_STRATEGIES: dict[str, _Strategy] = {
    "rag_sequence": partial(_sequence, thorough=True),
    "rag_sequence_fast": partial(_sequence, thorough=False),
    "rag_token": _token,
}


def sequence_marginals(
    generator: Generator, prompts: list[Ids], posed: Sequence[Posed], *, thorough: bool
) -> list[tuple[dict[Ids, float], int]]:
    """Return log p(y|x) of every candidate y of each ask, and how many tokens all its passages wrote.

    Candidates are what the passages of the ask lead to. `thorough` scores each after every passage; else it has no
    probability after a passage that did not write it. Asks share what they have in common.
    """
    rows = encode(generator.model, prompts)
    candidates = _candidates(generator, prompts, rows)
    pairs = {(row, ids) for row, found in enumerate(candidates) for ids in found}
    if thorough:
        pairs |= {(row, ids) for one in posed for ids in _written(one, candidates) for row in one.rows}
    scores = scored(generator.model, rows, pairs)
    return [
        ({ids: _marginal(one, ids, scores) for ids in written}, sum(map(len, written)))
        for one, written in ((one, _written(one, candidates)) for one in posed)
    ]


def _written(posed: Posed, candidates: Sequence[Sequence[Ids]]) -> list[Ids]:
    return [ids for row in posed.rows for ids in candidates[row]]


def _candidates(generator: Generator, prompts: list[Ids], rows: Rows) -> list[list[Ids]]:
    """Return what each passage's prompt leads to by itself: the greedy output, or those of a beam search."""
    model, stops, longest = generator.model, generator.stop_ids, generator.max_new_tokens
    if generator.beams > 1:
        return beams(model, prompts, generator.beams, stops, longest)
    alone = [Mixture((row,), (1.0,)) for row in range(len(prompts))]
    return [[written.ids] for written in decode(model, rows, alone, stops, longest)]


def _marginal(posed: Posed, ids: Ids, scores: dict[tuple[int, Ids], float]) -> float:
    """Return log sum_z p(z|x) p(y|x,z) over the passages that have a score for y."""
    weighted = zip(posed.rows, posed.log_weights, strict=True)
    return _log_sum([weight + scores[row, ids] for row, weight in weighted if (row, ids) in scores])


def _answered(
    posed: Posed, written: Written, output_tokens: int, encoder: Encoder, stop_ids: frozenset[int], seconds: float
) -> Answered:
    ids = written.ids[:-1] if written.ids[-1] in stop_ids else written.ids
    return Answered(
        key=posed.ask.key,
        output=encoder.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        prompt_tokens=posed.prompt_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        confidence=written.log_probability / len(written.ids),
        calls=len(posed.rows),
    )
