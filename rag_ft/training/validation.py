"""Answers to validation questions while training, scored as the evaluation scores them; the loss is the trainer's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from data_builders.errors import RagFtError
from data_builders.paths import data_paths
from data_builders.tables import read_pools
from rag_ft.evaluation.answers import as_stored, scored
from rag_ft.evaluation.asking import prediction_of
from rag_ft.evaluation.grid import Point, chosen_pools, sweep_context
from rag_ft.evaluation.metrics import abstention
from rag_ft.evaluation.predictions import Prediction
from rag_ft.evaluation.settings import SystemSettings
from rag_ft.generation.choose import choose_engine
from rag_ft.memory import give_back
from rag_ft.strategies import Ask
from rag_ft.strategies.run import answer, prompts
from rag_ft.training.stages import Stage

if TYPE_CHECKING:
    from rag_ft.training.run import Job

_LOGGED = ("accuracy", "exact_match", "f1")
_READING_ORDER = ("kept", "retrieved")  # the report's: what the generator makes of evidence, before what recall adds


def trains_answers(stage: Stage) -> bool:
    """Tell whether a stage learns to answer and to stop; before that, what it answers says nothing."""
    return {"answer", "end"} <= set(stage.spans)


def watched_metric(keep_best: str | None, stage: Stage) -> str | None:
    """Return what the best checkpoint of a stage is chosen by: a stage that does not answer yet has only its loss."""
    return "loss" if keep_best == "accuracy" and not trains_answers(stage) else keep_best


def validator(job: Job, stage: Stage) -> Callable[[Any], dict[str, float]] | None:
    """Return what measures a model in training; None where only the loss is watched.

    Questions are drawn once by seed and id. They are shown what the evaluation's headline shows: the first gold mode
    of the report, passages by rank.

    Raises:
        RagFtError: there are no validation questions.
    """
    settings = job.recipe.training.validation
    if not settings.questions or not trains_answers(stage):
        return None
    file = data_paths(job.run.data).pools["validation"]
    pools = chosen_pools(read_pools(file) if file.is_file() else [], settings.questions, job.recipe.seed)
    if not pools:
        raise no_validation("training.validation.questions")
    gold = next(mode for mode in _READING_ORDER if mode in job.recipe.evaluation.gold)
    points = [
        Point(pool, "tuned", gold, settings.passages, tuple(sweep_context(pool, settings.passages, gold)))
        for pool in pools
    ]
    return partial(answer_questions, job, points)


def no_validation(key: str) -> RagFtError:
    """Return the refusal of a setting that needs validation questions where there are none."""
    return RagFtError(
        f"{key} needs validation questions, and there are none. Set data.splits.validation, or the questions of a "
        f"source's validation split, and run `rag-ft build RECIPE`; or leave {key} out."
    )


def answer_questions(job: Job, points: Sequence[Point], model: Any) -> dict[str, float]:
    """Answer every point with the model as it is now; return the means of metrics, and abstention.

    Processes that hold the whole model share the questions. Where its weights are spread over them, all answer the
    same ones in step, since every forward pass needs every process.
    """
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, gather_object

    state = AcceleratorState()
    together = state.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    mine = points if together else points[state.process_index :: state.num_processes]
    with _evaluating(model):
        predictions = list(_predictions(job, mine, model))
    give_back()
    return summary(predictions if together else gather_object(predictions))


def summary(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return means over predictions: the headline metrics, the share that abstained, and the rates of abstention."""
    rows = [scored(as_stored(row)).values for row in predictions]
    table = abstention((row.answerable, row.abstained) for row in predictions)
    rates = {"over_refusal": table.over_refusal, "hallucination_rate": table.hallucination_rate}
    return {
        **{name: sum(row[name] or 0.0 for row in rows) / len(rows) for name in _LOGGED},
        "abstained": sum(row.abstained for row in predictions) / len(predictions),
        **{name: rate for name, rate in rates.items() if rate is not None},
    }


def _predictions(job: Job, points: Sequence[Point], model: Any) -> Iterator[Prediction]:
    settings, encoder, system = job.recipe.evaluation, job.encoder, SystemSettings(name="tuned", weights="tuned")
    asked = {point.pool.id: point for point in points}
    groups = [[Ask(point.pool.id, point.pool.question, point.shown)] for point in asked.values()]
    engine = choose_engine(
        model,
        encoder,
        prompts("concatenate", groups, encoder, system=system),
        max_new_tokens=settings.longest_output(encoder.settings.style),
        batch_size=settings.batch_size,
        share=settings.prefix_sharing,
    )
    batches = answer("concatenate", groups, encoder, engine, system=system, batch_size=settings.batch_size)
    for batch in batches:
        yield from (prediction_of(asked[one.key], one, encoder.settings) for one in batch)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Switch dropout and gradient checkpointing off, which forbids a cache; both follow the mode of the module."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Put every random state back at the end, so that who watches a training does not change it.

    A data loader alone draws a number whenever it is iterated.
    """
    import numpy as np
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
