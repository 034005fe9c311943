"""Getting the answers to points: those stored are kept, prompts that are equal are asked once, the rest generated.

There is one file of predictions for each thing that decides answers alike: weights or server, style, strategy. Its
name ends in a fingerprint of all of that, so that answers of two models never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from data_builders.files import content_hash
from data_builders.progress import Progress
from rag_ft.evaluation.conditions import REFERENCES, axes_of
from rag_ft.evaluation.grid import Point
from rag_ft.evaluation.predictions import Prediction, PredictionStore
from rag_ft.evaluation.settings import EvaluationSettings, SystemSettings
from rag_ft.evaluation.systems import Source, changes_to_weights
from rag_ft.generation import Engine, Request
from rag_ft.generation.reach import Reach
from rag_ft.memory import give_back
from rag_ft.models.positions import reach
from rag_ft.prompting.contract import contract_of
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.parse import Parsed, parse_output
from rag_ft.prompting.settings import PromptSettings, Style
from rag_ft.strategies import MARGINAL, Answered, Ask
from rag_ft.strategies.run import answer, prompts

Report = Callable[[str], None]
Groups: TypeAlias = list[list[Ask]]
_ALIKE = ("kept", "retrieved", "closed_book", "gold_only")  # contexts that begin alike in one order


@dataclass(frozen=True)
class Job:
    """Points that one file of predictions answers: the same weights, style and strategy.

    Attributes:
        source: what answers.
        system: one of the systems of these points; they differ in name, and in how they order passages.
        strategy: `concatenate` where passages already stand in their order, else the system's.
        points: what is wanted, question by question.
    """

    source: Source
    system: SystemSettings
    strategy: str
    points: list[list[Point]]

    @property
    def style(self) -> Style:
        """The style it is asked in."""
        return self.system.style or self.source.recipe.model.prompt.style

    @property
    def settings(self) -> EvaluationSettings:
        """The recipe's evaluation section."""
        return self.source.recipe.evaluation

    @property
    def longest_output(self) -> int:
        """The most tokens an answer may have."""
        return self.settings.longest_output(self.style)

    def encoder(self) -> Encoder:
        """Return what writes its prompts."""
        return self.source.styled(self.style)

    def prompt_of(self, point: Point) -> PromptSettings:
        """Return how a point's prompt was written and its output is read: without passages, for the answer alone."""
        return self.encoder().settings if point.shown else self.source.styled("answer").settings

    def fingerprint(self, pools_hash: str) -> str:
        """Hash what decides an answer: passages, weights, prompt, length. Sweeps and intervals may change freely."""
        recipe = self.source.recipe
        contract = contract_of(self.encoder(), recipe.model.chat_template_kwargs)
        own = [] if self.source.endpoint else changes_to_weights(recipe)
        return content_hash(
            [
                pools_hash,
                *self.source.identity,
                contract.prompt_hash,
                contract.chat_template_hash,
                *own,
                self.longest_output,
                *self._more(),
            ]
        )

    def _more(self) -> list[Any]:
        """Return what else decides; nothing for plain prompts, whose files are older than strategies."""
        engine = [] if self.by_transformers() or self.source.endpoint else [{"engine": self.settings.engine}]
        routed = [{"few": self.system.self_route.passages}] if self.strategy == "self_route" else []
        return [*engine, *([] if self.strategy == "concatenate" else [self.strategy]), *routed]

    def by_transformers(self) -> bool:
        """Whether weights loaded here answer through transformers, as the marginal strategies always do."""
        return self.source.endpoint is None and (self.settings.engine == "transformers" or self.strategy in MARGINAL)

    def file_name(self, fingerprint: str) -> str:
        """Return the name of its file: whose answers these are, what is special about them, the fingerprint."""
        own_style = self.source.recipe.model.prompt.style
        parts = [
            self.source.label,
            *([] if self.style == own_style else [self.style]),
            *([] if self.strategy == "concatenate" else [self.strategy]),
        ]
        return f"{'+'.join(parts)}-{fingerprint}.jsonl"


def jobs(wanted: Iterable[Sequence[Point]], systems: Sequence[SystemSettings], sources: Sequence[Source]) -> list[Job]:
    """Sort points by the file that answers them; jobs of one source follow one another.

    Args:
        wanted: the points of each question.
        systems: of the recipe.
        sources: what answers each system, in the same order.
    """
    named = {system.name: (system, source) for system, source in zip(systems, sources, strict=True)}
    found: dict[tuple[Any, ...], Job] = {}
    for group in wanted:
        parts: dict[tuple[Any, ...], list[Point]] = {}
        for point in group:
            system, source = named[point.system]
            strategy = _strategy(system, point)
            routed = system.self_route if strategy == "self_route" else None
            key = (id(source), system.style or source.recipe.model.prompt.style, strategy, routed)
            found.setdefault(key, Job(source, system, strategy, []))
            parts.setdefault(key, []).append(point)
        for key, points in parts.items():
            found[key].points.append(points)
    order = list(dict.fromkeys(map(id, sources)))
    return sorted(found.values(), key=lambda job: order.index(id(job.source)))


def _strategy(system: SystemSettings, point: Point) -> str:
    """Return how a point is asked: a reference is one prompt, and passages in their final order are too."""
    plain = system.strategy in ("concatenate", "reorder") or point.gold in REFERENCES
    return "concatenate" if plain else system.strategy


class Answers:
    """The stored answers to a job's points, and what is missing of them."""

    def __init__(self, job: Job, folder: Path, pools_hash: str, *, again: bool = False) -> None:
        """Open the job's file; answers to prompts that were asked for another point are taken over.

        Args:
            job: the points wanted.
            folder: of the files of predictions.
            pools_hash: hash of the pools.
            again: count failed answers as missing.
        """
        fingerprint = job.fingerprint(pools_hash)
        self.job = job
        self.store = PredictionStore(folder / job.file_name(fingerprint), fingerprint)
        self._again = again
        self._take_over()

    def found(self) -> dict[Any, Prediction]:
        """Return the latest answer to each point by its key, with the group that its question has now."""
        shown = {point.key: point for group in self.job.points for point in group}
        rows = (row for row in self.store.read() if row.key in shown and _answers_to(row, shown[row.key]))
        return {row.key: replace(row, group=shown[row.key].pool.group) for row in rows}

    def missing(self) -> list[list[Point]]:
        """Return the points without an answer, question by question."""
        done = {key for key, row in self.found().items() if not (self._again and row.failure)}
        groups = [[point for point in group if point.key not in done] for group in self.job.points]
        return [group for group in groups if group]

    def _take_over(self) -> None:
        """Copy answers to equal prompts: the same question over the same passages in the same order."""
        weighs = partial(_weighed_by, self.job.strategy)
        told = (row for row in self.store.read() if row.failure is None)
        known = {(row.question_id, row.shown, weighs(row.variant)): row for row in told}
        points = (point for group in self.missing() for point in group)
        pairs = ((known.get((point.pool.id, _ids(point), weighs(point.variant))), point) for point in points)
        if copies := [_readdressed(row, point) for row, point in pairs if row]:
            self.store.append(copies)


def _weighed_by(strategy: str, variant: str) -> str:
    """Return whose scores weigh passages besides their pool's own; they decide nothing but a marginal answer."""
    return axes_of(variant).get("retriever", "") if strategy in MARGINAL else ""


def _answers_to(row: Prediction, point: Point) -> bool:
    """Tell whether a stored answer is to this point; a system of the same name may have shown others before."""
    return row.shown == _ids(point)


def _ids(point: Point) -> tuple[str, ...]:
    return tuple(passage.id for passage in point.shown)


def _readdressed(row: Prediction, point: Point) -> Prediction:
    return replace(
        row,
        group=point.pool.group,
        system=point.system,
        gold=point.gold,
        passages=point.passages,
        variant=point.variant,
        answerable=point.answerable,
        planted=point.planted,
    )


def ask_all(opened: Sequence[Answers], report: Report) -> None:
    """Generate what is missing, each source loaded once and let go before the next."""
    left = list(opened)
    while left:
        source = left[0].job.source
        same = [one for one in left if one.job.source is source]
        left = [one for one in left if one.job.source is not source]
        _ask_source(source, same, report)


def _ask_source(source: Source, opened: Sequence[Answers], report: Report) -> None:
    """Generate with weights loaded here, then let them go; then with what else the source is loaded into."""
    waiting = [_waiting(one) for one in opened]
    for one in waiting:
        if not one.groups:
            count = len(one.answers.job.points)
            report(f"evaluate {_names(one.answers.job)}: unchanged, {count} questions answered")
    here = [one for one in waiting if one.groups and one.answers.job.by_transformers()]
    elsewhere = [one for one in waiting if one.groups and not one.answers.job.by_transformers()]
    for part, load in ((here, source.load), (elsewhere, partial(_server_or_vllm, source, elsewhere))):
        model = load() if part else None
        for one in part:
            _generate(one, model, report)
        del model
        give_back()


@dataclass(frozen=True)
class _Waiting:
    """Asks without an answer, by question, and the points that the answer to each is one of."""

    answers: Answers
    questions: int
    groups: Groups
    asked: dict[str, list[Point]]

    @property
    def requests(self) -> list[list[Request]]:
        """Every prompt that an engine may be asked."""
        job = self.answers.job
        return prompts(job.strategy, self.groups, job.encoder(), system=job.system)


def _waiting(answers: Answers) -> _Waiting:
    missing, asked = answers.missing(), dict[str, list[Point]]()
    groups = [part for group in missing for part in _asks(group, answers.job.strategy, asked)]
    return _Waiting(answers, len(missing), groups, asked)


def _names(job: Job) -> str:
    return ", ".join(dict.fromkeys(point.system for group in job.points for point in group))


def _server_or_vllm(source: Source, waiting: Sequence[_Waiting]) -> Any:
    """Load vLLM once for all that waits, as long as the longest of it; a server needs no loading."""
    if source.endpoint is not None:
        return None
    from rag_ft.generation.vllm import load_vllm

    longest = max(
        request.length + one.answers.job.longest_output
        for one in waiting
        for group in one.requests
        for request in group
    )
    return load_vllm(source.recipe.model, *source.for_vllm(), longest)


def _generate(waiting: _Waiting, model: Any, report: Report) -> None:
    job, count = waiting.answers.job, sum(map(len, waiting.asked.values()))
    report(f"evaluate {_names(job)}: {count} prompts for {waiting.questions} questions")
    with Progress("prompts", sum(map(len, waiting.groups)), report) as progress:
        for batch in _answered(waiting, model):
            found = [prediction_of(p, one, job.prompt_of(p)) for one in batch for p in waiting.asked[one.key]]
            waiting.answers.store.append(found)
            progress.advance(len(batch))
            give_back(collect=False)


def _asks(points: Iterable[Point], strategy: str, asked: dict[str, list[Point]]) -> Groups:
    """Return the different asks of a question in groups that begin alike, and remember which points each answers.

    Contexts in other orders share too little with one another to pay for a longer sequence.
    """
    asks: dict[tuple[str, ...], Ask] = {}
    groups: dict[tuple[str, ...], list[Ask]] = {}
    for point in points:
        prompt = (*_ids(point), _weighed_by(strategy, point.variant))
        if prompt not in asks:
            asks[prompt] = Ask("\x1f".join(map(str, point.key)), point.pool.question, point.shown)
            groups.setdefault(_beginning(point, strategy), []).append(asks[prompt])
        asked.setdefault(asks[prompt].key, []).append(point)
    return list(groups.values())


def _beginning(point: Point, strategy: str) -> tuple[str, ...]:
    """Return what points have in common whose contexts begin alike: positions do, up to where gold stands."""
    axes = (f"{name}={value}" for name, value in axes_of(point.variant).items() if name != "position")
    return (point.system, "" if point.gold in _ALIKE else point.gold, *axes)


def _answered(waiting: _Waiting, model: Any) -> Iterator[list[Answered]]:
    job = waiting.answers.job
    encoder, size = job.encoder(), job.settings.batch_size
    if job.strategy in MARGINAL:
        return _marginal(job, waiting.groups, model, encoder)
    engine = _engine(job, waiting.requests, model, encoder)
    return answer(job.strategy, waiting.groups, encoder, engine, system=job.system, batch_size=size)


def _marginal(job: Job, groups: Groups, model: Any, encoder: Encoder) -> Iterator[list[Answered]]:
    from rag_ft.generation.choose import stop_ids
    from rag_ft.strategies.marginal import Generator, answer_marginal

    generator = Generator(model, stop_ids(model, encoder), job.longest_output)
    bounds = Reach(reach(model.config), job.longest_output)
    size = job.settings.batch_size
    return answer_marginal(job.strategy, groups, encoder, generator, batch_size=size, bounds=bounds)


def _engine(job: Job, requests: list[list[Request]], model: Any, encoder: Encoder) -> Engine:
    settings, longest = job.settings, job.longest_output
    if job.source.endpoint is not None:
        from rag_ft.generation.endpoint import endpoint_engine

        return endpoint_engine(job.source.endpoint, longest, job.source.recipe.model.chat_template_kwargs)
    if not job.by_transformers():
        from rag_ft.generation.vllm import vllm_engine

        return vllm_engine(model, encoder, max_new_tokens=longest, batch_size=settings.batch_size)
    from rag_ft.generation.choose import choose_engine

    return choose_engine(
        model,
        encoder,
        requests,
        max_new_tokens=longest,
        batch_size=settings.batch_size,
        share=settings.prefix_sharing,
    )


def prediction_of(point: Point, answered: Answered, settings: PromptSettings) -> Prediction:
    """Return what a system said at a point, read out of what it wrote in the style of `settings`."""
    parsed = parse_output(answered.output, settings)
    return Prediction(
        question_id=point.pool.id,
        group=point.pool.group,
        system=point.system,
        gold=point.gold,
        passages=point.passages,
        shown=_ids(point),
        answerable=point.answerable,
        answers=point.pool.answers,
        output=answered.output,
        **reading(parsed, answered.failure),
        prompt_tokens=answered.prompt_tokens,
        output_tokens=answered.output_tokens,
        seconds=answered.seconds,
        failure=answered.failure,
        variant=point.variant,
        confidence=answered.confidence,
        planted=point.planted,
        route=answered.route,
        calls=answered.calls,
    )


def reading(parsed: Parsed, failure: str | None) -> dict[str, Any]:
    """Return the fields of a prediction that are read out of its output; a failed one says nothing."""
    failed = failure is not None
    return {"answer": None if failed else parsed.answer, "abstained": parsed.abstained and not failed}
