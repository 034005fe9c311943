"""Evaluation from start to end: pools, predictions that survive a kill, scores, examples. Knows no command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from data_builders.build import require_built
from data_builders.errors import RagFtError
from data_builders.files import content_hash, file_hash, write_json
from data_builders.paths import data_paths
from data_builders.progress import Progress
from data_builders.records import Pool
from data_builders.tables import read_pools, read_questions
from rag_ft.evaluation.grid import Point, chosen_pools, points, recall_rows
from rag_ft.evaluation.predictions import Prediction, PredictionStore
from rag_ft.evaluation.scores import score_predictions
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.generation import Generation, Request
from rag_ft.generation.choose import choose_engine
from rag_ft.memory import give_back
from rag_ft.models.adapters import saved_weights, weights_hash
from rag_ft.models.load import dtype_name, load_model, load_tokenizer
from rag_ft.models.tuned import load_tuned
from rag_ft.models.weights import Weights, resolve_model
from rag_ft.prompting.contract import PromptContract, check_contract, contract_of
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.parse import parse_output
from rag_ft.recipe.settings import Recipe
from rag_ft.report.examples import choose_examples
from rag_ft.runs import RunFolder

Report = Callable[[str], None]
Evidence = dict[str, list[tuple[str, str]]]
"""Question id -> passage ids and the quotes of them that hold the answer."""


@dataclass(frozen=True)
class _Setup:
    """What every system of an evaluation shares."""

    recipe: Recipe
    run: RunFolder
    weights: Weights
    encoder: Encoder
    contract: PromptContract
    pools: list[Pool]
    evidence: Evidence
    report: Report


def evaluate(recipe: Recipe, run: RunFolder, report: Report, *, limit: int | None = None) -> dict[str, Any]:
    """Answer every point of the grid that is not answered yet, score all, write scores.json and examples.json.

    With a `limit` on the number of questions the scores are stamped as partial. Returns the scores, whose form
    rag_ft/evaluation/scores.py documents.
    """
    setup = _set_up(recipe, run, report, limit)
    predictions: list[Prediction] = []
    for kind in ("base", "tuned"):
        systems = [system for system in recipe.evaluation.systems if system.weights == kind]
        if systems:
            predictions += _predictions(setup, kind, systems)
    settings = recipe.evaluation
    scores = score_predictions(
        predictions,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=recipe.seed,
        baseline=settings.systems[0].name,
        run_name=recipe.name,
        partial=limit is not None,
        recall=recall_rows(setup.pools, settings.passages),
    )
    scores["prompt_hash"] = setup.contract.prompt_hash
    write_json(run.evaluation / "scores.json", scores)
    write_json(run.evaluation / "examples.json", _examples(setup, predictions))
    return scores


def _set_up(recipe: Recipe, run: RunFolder, report: Report, limit: int | None) -> _Setup:
    require_built(recipe.data, recipe.seed, run.data)
    weights = resolve_model(recipe.model, run.training)
    encoder = Encoder(load_tokenizer(recipe.model, weights), recipe.model.prompt, recipe.model.chat_template_kwargs)
    contract = contract_of(encoder, recipe.model.chat_template_kwargs)
    if any(system.weights == "tuned" for system in recipe.evaluation.systems):
        _check_adapter(run, contract, recipe)  # before the base model has answered for minutes
    pools = chosen_pools(read_pools(data_paths(run.data).pools["test"]), recipe.evaluation.questions, recipe.seed)
    pools = chosen_pools(pools, limit, recipe.seed)
    if not pools:
        raise RagFtError("there is no question to evaluate. See what `rag-ft build RECIPE` left out, and data.splits.")
    return _Setup(recipe, run, weights, encoder, contract, pools, _evidence(run, pools), report)


def _evidence(run: RunFolder, pools: Iterable[Pool]) -> Evidence:
    asked = {pool.id for pool in pools}
    return {
        question.id: [(item.passage_id, item.quote) for item in question.evidence]
        for question in read_questions(data_paths(run.data).questions["test"])
        if question.id in asked
    }


def _check_adapter(run: RunFolder, contract: PromptContract, recipe: Recipe) -> None:
    if saved_weights(run.adapter) is None:
        raise RagFtError(f"{run.adapter} holds no adapter to evaluate. Train one with `rag-ft train RECIPE`.")
    if not recipe.evaluation.allow_prompt_mismatch:
        check_contract(run.adapter, contract)


def _predictions(setup: _Setup, kind: str, systems: Sequence[SystemSettings]) -> list[Prediction]:
    """Return the predictions of all systems with one kind of weights, generating those that are missing."""
    settings = setup.recipe.evaluation
    fingerprint = _fingerprint(setup, kind)
    store = PredictionStore(setup.run.evaluation / "predictions" / f"{kind}-{fingerprint}.jsonl", fingerprint)
    wanted = [list(points(pool, systems, settings)) for pool in setup.pools]
    done = {prediction.key for prediction in _answers(store, wanted)}
    missing = [[point for point in group if point.key not in done] for group in wanted]
    missing = [group for group in missing if group]
    names = ", ".join(system.name for system in systems)
    if not missing:
        setup.report(f"evaluate {names}: unchanged, {len(wanted)} questions answered")
    else:
        setup.report(f"evaluate {names}: {sum(map(len, missing))} prompts for {len(missing)} questions")
        _generate(setup, store, missing, kind)
    return _answers(store, wanted)


def _answers(store: PredictionStore, wanted: Sequence[Sequence[Point]]) -> list[Prediction]:
    """Return the stored answers to the points wanted; a system of the same name may have shown others before."""
    shown = {point.key: tuple(passage.id for passage in point.shown) for group in wanted for point in group}
    return [prediction for prediction in store.read() if shown.get(prediction.key) == prediction.shown]


def _fingerprint(setup: _Setup, kind: str) -> str:
    """Hash what decides an answer: passages, weights, prompt, length. Sweeps and intervals may change freely."""
    return content_hash(
        [
            file_hash(data_paths(setup.run.data).pools["test"]),
            setup.weights.identity,
            weights_hash(setup.run.adapter) if kind == "tuned" else None,
            setup.contract.prompt_hash,
            setup.contract.chat_template_hash,
            dtype_name(setup.recipe.model.dtype),
            setup.recipe.model.attention,
            *_changes_to_weights(setup.recipe),
            setup.recipe.evaluation.longest_output(setup.recipe.model.prompt.style),
        ]
    )


def _changes_to_weights(recipe: Recipe) -> list[Any]:
    """Return the settings that make other weights of the same files; none where the recipe leaves them as they are."""
    quantisation, scaling = recipe.model.quantisation, recipe.model.rope_scaling
    told = {} if quantisation.kind == "none" else {"quantisation": quantisation.model_dump()}
    return [told | ({} if scaling is None else {"rope_scaling": scaling})] if told or scaling else []


def _generate(setup: _Setup, store: PredictionStore, missing: Sequence[Sequence[Point]], kind: str) -> None:
    settings, encoder = setup.recipe.evaluation, setup.encoder
    asked: dict[str, list[Point]] = {}  # request -> every point with that very prompt
    groups = [_requests(group, encoder, asked) for group in missing]
    # Prompts of different orders share too little to pay for a longer sequence: one group per question and system.
    groups = [
        list(same) for group in groups for _, same in groupby(group, key=lambda request: asked[request.key][0].system)
    ]
    if kind == "tuned":
        model = load_tuned(setup.recipe.model, setup.weights, setup.run.adapter)
    else:
        model = load_model(setup.recipe.model, setup.weights).eval()
    engine = choose_engine(
        model,
        encoder,
        groups,
        max_new_tokens=settings.longest_output(setup.recipe.model.prompt.style),
        batch_size=settings.batch_size,
        share=settings.prefix_sharing,
    )
    with Progress("prompts", sum(map(len, groups)), setup.report) as progress:
        for batch in engine.generate(groups):
            store.append([prediction_of(point, answer, encoder) for answer in batch for point in asked[answer.key]])
            progress.advance(len(batch))
            give_back(collect=False)


def _requests(group: Sequence[Point], encoder: Encoder, asked: dict[str, list[Point]]) -> list[Request]:
    """Return the different prompts of a question; systems that show the same passages alike ask once."""
    requests: dict[tuple[Ids, ...], Request] = {}
    for point in group:
        segments = encoder.prompt(point.pool.question, point.texts())
        request = requests.setdefault(segments, Request("\x1f".join(map(str, point.key)), segments))
        asked.setdefault(request.key, []).append(point)
    return list(requests.values())


def prediction_of(point: Point, answer: Generation, encoder: Encoder) -> Prediction:
    """Return what a system said at a point, read out of what it wrote."""
    output = encoder.tokenizer.decode(answer.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    parsed = parse_output(output, encoder.settings)
    return Prediction(
        question_id=point.pool.id,
        group=point.pool.group,
        system=point.system,
        gold=point.gold,
        passages=point.passages,
        shown=tuple(passage.id for passage in point.shown),
        answerable=point.answerable,
        answers=point.pool.answers,
        output=output,
        answer=parsed.answer,
        abstained=parsed.abstained,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=len(answer.ids),
        seconds=answer.seconds,
        failure=None,
    )


def _examples(setup: _Setup, predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    pools = {pool.id: pool for pool in setup.pools}
    return choose_examples(predictions, pools, setup.evidence, count=10, seed=setup.recipe.seed)
