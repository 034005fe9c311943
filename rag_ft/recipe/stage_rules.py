"""Rules over the rows of a training: stages and their spans, hybrid training, chat rows."""

from __future__ import annotations

from collections.abc import Iterator

from data_builders.passage_counts import CurriculumCount
from rag_ft.prompting.settings import Style
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe
from rag_ft.training.settings import SpanName, StageSettings

WRITTEN: dict[Style, tuple[SpanName, ...]] = {
    "answer": ("answer", "end"),
    "reasoning": ("relevance", "answer", "end"),
    "self_reasoning": ("relevance", "evidence", "analysis", "answer", "end"),
}
"""The spans that a label has in each style."""
EVERYTHING = frozenset(WRITTEN["self_reasoning"])


@rule("training.stages")
def stages_have_distinct_names(recipe: Recipe) -> str | None:
    """Each has a folder of its own."""
    names = [stage.name for stage in recipe.training.stages]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    return None if twice is None else f'two stages are called "{twice}": rename one.'


@rule("training.stages", "model.prompt.style")
def stages_train_spans_of_the_style(recipe: Recipe) -> str | None:
    """A span that no label has would carry no loss. All five stand for everything, whatever the style."""
    style = recipe.model.prompt.style
    for stage in recipe.training.stages:
        foreign = next((name for name in stage.spans if name not in WRITTEN[style]), None)
        if foreign and set(stage.spans) != EVERYTHING:
            return (
                f'stage "{stage.name}" trains {foreign}, which labels of model.prompt.style={style} do not have: '
                f"take spans out of {', '.join(WRITTEN[style])}, or set model.prompt.style=self_reasoning."
            )
    return None


@rule("training.stages", "model.prompt.style")
def last_stage_trains_answer_and_end(recipe: Recipe) -> str | None:
    """Else the model is asked for what it never learned, or never stops."""
    if not recipe.training.stages:
        return None
    last = recipe.training.stages[-1]
    missing = [name for name in ("answer", "end") if name not in last.spans]
    if not missing:
        return None
    return f'the last stage, "{last.name}", does not train {" and ".join(missing)}: add it to its spans.'


@rule("training.stages", "model.prompt.style")
def end_comes_with_everything(recipe: Recipe) -> str | None:
    """While later spans are masked, the end of the turn stays masked too (arXiv 2407.19813)."""
    for stage in recipe.training.stages[:-1]:
        masked = [name for name in WRITTEN[recipe.model.prompt.style] if name not in stage.spans]
        if "end" in stage.spans and masked:
            return (
                f'stage "{stage.name}" trains when to stop but not {", ".join(masked)}: take end out of its spans; '
                "the last stage trains it."
            )
    return None


@rule("training.stages")
def optimizer_is_kept_from_a_stage(recipe: Recipe) -> str | None:
    """The first stage has none before it."""
    stages = recipe.training.stages
    if not stages or not stages[0].keep_optimizer:
        return None
    return f'stage "{stages[0].name}" is the first, there is no optimizer to keep: remove keep_optimizer from it.'


@rule("training.stages", "training.trainer")
def kept_optimizers_are_saved(recipe: Recipe) -> str | None:
    """Checkpoints without the optimizer leave nothing to take over."""
    if not recipe.training.trainer.get("save_only_model"):
        return None
    name = next((stage.name for stage in recipe.training.stages if stage.keep_optimizer), None)
    return (
        None if name is None else f'stage "{name}" keeps the optimizer: take save_only_model out of training.trainer.'
    )


@rule("training.stages", "model.lora.initialisation")
def kept_optimizers_fit(recipe: Recipe) -> str | None:
    """What a PiSSA stage saves is an adapter of twice the rank, and the next stage trains that one."""
    if recipe.model.lora.initialisation != "pissa":
        return None
    name = next((stage.name for stage in recipe.training.stages if stage.keep_optimizer), None)
    if name is None:
        return None
    return (
        f'stage "{name}" keeps the optimizer, but with model.lora.initialisation=pissa the second stage has twice the '
        "rank of the first: remove keep_optimizer, or set model.lora.initialisation=zero."
    )


@rule("training.stages", "data.contexts.passages")
def stages_run_a_curriculum_once(recipe: Recipe) -> str | None:
    """A second epoch over the same rows would start the curriculum again."""
    if not isinstance(recipe.data.contexts.passages, CurriculumCount):
        return None
    again = next((stage for stage in recipe.training.stages if (stage.epochs or 0) > 1), None)
    if again is None:
        return None
    return (
        f'{again.epochs:g} epochs of stage "{again.name}" would run the curriculum of data.contexts.passages again '
        "from its start: set its epochs to 1, or write one stage for each pass."
    )


@rule("training.direct_share", "model.prompt.style")
def hybrid_needs_reasoning(recipe: Recipe) -> str | None:
    """Direct answers beside direct answers are no mixture."""
    share = recipe.training.direct_share
    if not share or recipe.model.prompt.style != "answer":
        return None
    return (
        f"{share:g} of the rows ask for the answer alone, and with model.prompt.style=answer all others do too: set "
        "model.prompt.style to reasoning or self_reasoning, or remove training.direct_share."
    )


@rule("training.chat", "training.stages", "training.direct_share")
def chat_alone_is_plain(recipe: Recipe) -> str | None:
    """Rows without passages have no spans and no style."""
    if recipe.training.chat is None or recipe.training.chat.share < 1:
        return None
    idle = next(_idle(recipe), None)
    return None if idle is None else f"share: 1 trains on chat rows alone, for which {idle} means nothing: remove it."


def _idle(recipe: Recipe) -> Iterator[str]:
    default = StageSettings(name="default")
    if recipe.training.direct_share:
        yield "training.direct_share"
    for stage in recipe.training.stages:
        for name in ("spans", "passages", "data_share"):
            if getattr(stage, name) != getattr(default, name):
                yield f'{name} of stage "{stage.name}"'
