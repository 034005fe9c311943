"""Evaluation from start to end: pools, predictions that survive a kill, scores, examples. Knows no command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from data_builders.build import require_pools
from data_builders.errors import RagFtError
from data_builders.files import content_hash, file_hash, write_json
from data_builders.paths import data_paths
from data_builders.records import Pool
from data_builders.tables import read_pools, read_questions
from rag_ft.evaluation.answers import write_answers
from rag_ft.evaluation.asking import Answers, Job, ask_all, jobs, reading
from rag_ft.evaluation.cases import Case
from rag_ft.evaluation.cells import Sampling
from rag_ft.evaluation.grid import (
    Omission,
    Point,
    chosen_pools,
    grouped_by_hops,
    grouped_by_source,
    points,
    recall_rows,
)
from rag_ft.evaluation.notices import (
    about_documents,
    about_failures,
    about_falls,
    about_noise,
    about_omitted,
    about_orders,
    about_power,
    about_short,
    about_unjudged,
    about_weak,
)
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.scores import score_cases
from rag_ft.evaluation.settings import EvaluationSettings, SystemSettings
from rag_ft.evaluation.statistics import Bootstrap
from rag_ft.evaluation.suites import suited
from rag_ft.evaluation.surroundings import document_names, offer_of, surroundings_of
from rag_ft.evaluation.systems import Source, find_sources, origin_of
from rag_ft.models.adapters import saved_weights
from rag_ft.prompting.contract import contract_of
from rag_ft.prompting.parse import parse_output
from rag_ft.recipe.settings import Recipe
from rag_ft.report.examples import choose_examples
from rag_ft.runs import RunFolder
from rag_ft.strategies import MARGINAL

Report = Callable[[str], None]
_LONGEST_VERDICT = 512  # tokens: models that think say yes or no late
Evidence = dict[str, list[tuple[str, str]]]
"""Question id -> passage ids and the quotes of them that hold the answer."""


@dataclass(frozen=True)
class _Setup:
    """What every system of an evaluation shares.

    Attributes:
        settings: the grid as it is asked: a suite is written out and fitted to the data.
        sources: what answers each of its systems.
        pools: the questions asked.
        wanted: the points of each question.
        documents: by question id, what its first gold passage was cut from.
    """

    recipe: Recipe
    run: RunFolder
    settings: EvaluationSettings
    sources: list[Source]
    pools: list[Pool]
    wanted: list[list[Point]]
    documents: dict[str, str]
    report: Report


def evaluate(
    recipe: Recipe, run: RunFolder, report: Report, *, limit: int | None = None, again: bool = False
) -> dict[str, Any]:
    """Answer every point of the grid that is not answered yet, score all, write scores, answers and examples.

    Pools that were never built are built first; contexts and labels are not needed.

    Args:
        recipe: what to evaluate.
        run: its folder.
        report: takes lines about what is done.
        limit: at most so many questions; the scores are stamped as partial.
        again: ask failed prompts again.

    Returns:
        The scores, whose form rag_ft/evaluation/scores.py documents.

    Raises:
        RagFtError: the data are of another recipe, weights are missing or were trained with another prompt, or
            nothing is asked.
    """
    setup = _set_up(recipe, run, report, limit)
    report(about_power(len(setup.pools), setup.settings, limited=limit is not None))
    pools_hash = file_hash(data_paths(run.data).pools["test"])
    folder = run.evaluation / "predictions"
    listed = jobs(setup.wanted, setup.settings.systems, setup.sources)
    opened = [Answers(job, folder, pools_hash, again=again) for job in listed]
    ask_all(opened, report)
    cases = _in_order(setup, [case for one in opened for case in _cases(one.job, one.found().values())])
    for line in about_failures(cases):
        report(line)
    cases = _asked_of_models(setup, cases)
    scores, rows = _scored(setup, cases, limited=limit is not None)
    for line in about_falls(scores):
        report(line)
    write_answers(run.evaluation / "answers.jsonl", rows)
    examples = _examples(setup, [case.prediction for case in cases])
    write_json(run.evaluation / "examples.json", [{**row, "partial": scores["partial"]} for row in examples])
    write_json(run.evaluation / "scores.json", scores)  # last: whoever finds it finds the others
    return scores


def _set_up(recipe: Recipe, run: RunFolder, report: Report, limit: int | None) -> _Setup:
    lines = list[str]()
    systems = _systems(recipe, run, lines)
    found = find_sources(recipe, run, systems)  # before pools are built, or the base model has answered, for minutes
    require_pools(recipe.data, recipe.seed, run.data, report=report)
    everything = list(read_pools(data_paths(run.data).pools["test"]))
    asked, left_out = suited(recipe.evaluation, offer_of(everything, run.data, recipe.data.depth))
    lines += left_out
    settings = asked.model_copy(update={"systems": systems})
    pools = chosen_pools(chosen_pools(everything, settings.questions, recipe.seed), limit, recipe.seed)
    if not pools:
        raise RagFtError("there is no question to evaluate. See what `rag-ft build RECIPE` left out, and data.splits.")
    pools = grouped_by_source(grouped_by_hops(pools) if settings.suite == "rgb" else pools)
    around, omitted = surroundings_of(settings, everything, run.data, recipe.seed), list[Omission]()
    wanted = [list(points(pool, systems, settings, around, omitted)) for pool in pools]
    documents = document_names(pools, run.data)
    for line in (
        *lines,
        *about_orders(settings),
        *about_omitted(omitted, len(pools)),
        *about_short(wanted),
        *about_noise(wanted),
        *about_weak(wanted),
        *about_documents(documents, settings),
    ):
        report(line)
    return _Setup(recipe, run, settings, [found[origin_of(one)] for one in systems], pools, wanted, documents, report)


def _systems(recipe: Recipe, run: RunFolder, lines: list[str]) -> tuple[SystemSettings, ...]:
    """Return the recipe's systems, each with its style; if it names none, the usual ones less what was not trained."""
    own = recipe.model.prompt.style
    systems = tuple(one.model_copy(update={"style": one.style or own}) for one in recipe.evaluation.systems)
    if "systems" in recipe.evaluation.model_fields_set or saved_weights(run.adapter):
        return systems
    kept = tuple(system for system in systems if system.weights != "tuned")
    lines.append("evaluate: nothing was trained, so the base model alone is asked. `rag-ft train RECIPE` trains")
    return kept


def _cases(job: Job, predictions: Iterable[Prediction]) -> list[Case]:
    """Return stored answers with what they were shown, their outputs parsed anew."""
    points = {point.key: point for group in job.points for point in group}
    return [_case(job, points[one.key], one) for one in predictions]


def _case(job: Job, point: Point, row: Prediction) -> Case:
    settings = job.prompt_of(point)
    parsed = parse_output(row.output, settings)
    row = replace(row, group=point.pool.group, answerable=point.answerable, **reading(parsed, row.failure))
    # an answer from few passages has seen no others
    shown = point.shown[: job.system.self_route.passages] if row.route == "few" else point.shown
    return Case(row, parsed, shown, settings.style, apart=job.strategy in MARGINAL)


def _asked_of_models(setup: _Setup, cases: list[Case]) -> list[Case]:
    """Add the metrics that another model has to be asked for, where the recipe names one."""
    settings = setup.settings
    if settings.citation_nli is not None:
        from data_builders.entailment import load_entailment
        from rag_ft.evaluation.metrics.alce import with_alce
        from rag_ft.models.load import best_device

        setup.report(f"evaluate: citations are judged by {settings.citation_nli}")
        entails = load_entailment(settings.citation_nli, "evaluation.citation_nli", best_device())
        cases = with_alce(cases, entails)
        if entails.shortened:
            setup.report(
                f"evaluate: {entails.shortened} pairs of passages and sentence were longer than the {entails.longest} "
                f"tokens that {settings.citation_nli} reads, and lost their ends"
            )
    if settings.judge is not None:
        from rag_ft.evaluation.judge import with_verdicts
        from rag_ft.generation.endpoint import ask_all

        server = settings.judge.endpoint
        setup.report(f"evaluate: answers are judged by {server.model}")
        questions = {pool.id: pool.question for pool in setup.pools}
        ask = partial(ask_all, server, max_tokens=_LONGEST_VERDICT)
        cases = with_verdicts(cases, questions, ask, server.model, setup.run.evaluation / "verdicts.jsonl")
        for line in about_unjudged(cases):
            setup.report(line)
    return cases


def _in_order(setup: _Setup, cases: Iterable[Case]) -> list[Case]:
    """Return cases in the order of the grid, systems as the recipe lists them."""
    by_key = {case.prediction.key: case for case in cases}
    order = {system.name: place for place, system in enumerate(setup.settings.systems)}
    keys = sorted((point.key for group in setup.wanted for point in group), key=lambda key: order[key[1]])
    return [by_key[key] for key in keys if key in by_key]


def _scored(setup: _Setup, cases: Sequence[Case], *, limited: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    settings, recipe = setup.settings, setup.recipe
    scores, rows = score_cases(
        cases,
        _sampling(setup),
        baseline=settings.systems[0].name,
        run_name=recipe.name,
        partial=limited,
        recall=recall_rows(setup.pools, settings.passages),
        systems=settings.systems,
    )
    return {**scores, "suite": settings.suite, "engine": settings.engine, "prompt_hash": _prompts(setup)}, rows


def _prompts(setup: _Setup) -> str:
    """Return the hash of the prompts of all systems, of one if they are the same."""
    kwargs = setup.recipe.model.chat_template_kwargs
    found = {
        contract_of(source.styled(system.style), kwargs).prompt_hash
        for source, system in zip(setup.sources, setup.settings.systems, strict=True)
    }
    return found.pop() if len(found) == 1 else content_hash(sorted(found))


def _sampling(setup: _Setup) -> Sampling:
    settings = setup.settings
    bootstrap = Bootstrap(settings.confidence, settings.resamples, setup.recipe.seed, settings.interval)
    return Sampling(bootstrap, setup.documents if settings.resample == "document" else None)


def _examples(setup: _Setup, predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    pools = {pool.id: pool for pool in setup.pools}
    evidence = _evidence(setup.run, pools)
    main = (one for one in predictions if not one.variant)
    return choose_examples(main, pools, evidence, count=10, seed=setup.recipe.seed)


def _evidence(run: RunFolder, asked: Iterable[str]) -> Evidence:
    asked = set(asked)
    return {
        question.id: [(item.passage_id, item.quote) for item in question.evidence]
        for question in read_questions(data_paths(run.data).questions["test"])
        if question.id in asked
    }
