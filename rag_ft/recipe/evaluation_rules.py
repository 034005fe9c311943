"""Rules over evaluation, one small function each: what is asked, of whom, and whether the data can show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_builders.retrievers import retriever_names
from rag_ft.evaluation.settings import SweepSettings, SystemSettings
from rag_ft.recipe.label_rules import secret
from rag_ft.recipe.problems import suggestion
from rag_ft.recipe.rule import rule
from rag_ft.recipe.rules import repeated, worlds
from rag_ft.recipe.settings import Recipe

_OURS = ("base", "tuned")


@rule("data.sources", "evaluation.systems")
def tuned_needs_training_questions(recipe: Recipe) -> str | None:
    """A tuned system cannot come from no question."""
    known, tuned = worlds(recipe), any(system.weights == "tuned" for system in recipe.evaluation.systems)
    if not tuned or len(known) < len(recipe.data.sources) or any(one.questions.train for one in known.values()):
        return None
    return (
        f"{next(iter(known))}.questions.train=0 leaves nothing to train on: raise it, "
        "or take systems with weights: tuned out of evaluation.systems."
    )


@rule("evaluation.passages")
def sweep_ascends(recipe: Recipe) -> str | None:
    """A sweep is a list of growing prefixes."""
    counts = recipe.evaluation.passages
    ascending = sorted(set(counts))
    return None if list(counts) == ascending else f"the counts must grow and differ: write {ascending}."


@rule("evaluation.passages", "data.depth", "evaluation.suite")
def sweep_within_depth(recipe: Recipe) -> str | None:
    """A pool holds `data.depth` passages. A suite takes the counts that there are."""
    most, depth = max(recipe.evaluation.passages), recipe.data.depth
    if most <= depth or recipe.evaluation.suite is not None:
        return None
    return (
        f"{most} passages are more than a pool keeps (data.depth is {depth}): set data.depth={most} or lower the count."
    )


@rule("evaluation.questions", "data.sources")
def enough_test_questions(recipe: Recipe) -> str | None:
    """More questions than the test split has cannot be asked."""
    asked, known = recipe.evaluation.questions, worlds(recipe)
    held = sum(one.questions.test for one in known.values())
    if asked is None or asked <= held or len(known) < len(recipe.data.sources):
        return None
    name = next(iter(known))
    return f"{asked} are more than the test split has ({held}): raise data.sources.{name}.questions.test or lower this."


@rule("evaluation.gold", "evaluation.references")
def sweeps_are_listed_once(recipe: Recipe) -> str | None:
    """A repeated entry would be measured twice."""
    twice = repeated(recipe.evaluation.gold) or repeated(recipe.evaluation.references)
    return None if twice is None else f"{twice} is listed twice: remove one."


def _numbered(sweeps: Sequence[SweepSettings]) -> Iterator[tuple[str, SweepSettings]]:
    """Yield each sweep with how a message calls it."""
    yield from ((f"sweep {number}", sweep) for number, sweep in enumerate(sweeps, start=1))


@rule("evaluation.sweeps")
def sweeps_differ(recipe: Recipe) -> str | None:
    """The same sweep twice is one, and so is the same value twice on an axis."""
    sweeps = recipe.evaluation.sweeps
    for number, sweep in enumerate(sweeps, start=1):
        if sweep in sweeps[: number - 1]:
            return f"sweep {number} is sweep {sweeps.index(sweep) + 1} again: remove one."
        for axis in ("passages", "gold", "position", "order", "noise", "negatives", "retriever"):
            twice = repeated([f"{value}" for value in getattr(sweep, axis)])
            if twice is not None:
                return f"sweep {number} lists {axis} {twice} twice: remove one."
    return None


@rule("evaluation.sweeps", "data.depth")
def further_sweeps_within_depth(recipe: Recipe) -> str | None:
    """A pool holds `data.depth` passages; passages of other questions are there in any number."""
    depth = recipe.data.depth
    for name, sweep in _numbered(recipe.evaluation.sweeps):
        if max(sweep.passages) > depth and set(sweep.negatives) != {"random"}:
            return (
                f"{max(sweep.passages)} passages of {name} are more than a pool keeps (data.depth is {depth}): "
                f"set data.depth={max(sweep.passages)} or lower the count."
            )
    return None


@rule("evaluation.sweeps", "data.retrievers")
def sweeps_name_retrievers(recipe: Recipe) -> str | None:
    """A ranking belongs to a retriever of the recipe."""
    names = retriever_names(recipe.data.retrievers)
    for name, sweep in _numbered(recipe.evaluation.sweeps):
        for retriever in sweep.retriever:
            if retriever not in names:
                return f'"{retriever}" of {name} is no retriever of the recipe: {suggestion(retriever, names)}'
    return None


@rule("evaluation.sweeps")
def sweeps_can_be_composed(recipe: Recipe) -> str | None:
    """Some axes contradict one another."""
    return next(
        (f"{name} {why}" for name, sweep in _numbered(recipe.evaluation.sweeps) if (why := _contradiction(sweep))), None
    )


def _contradiction(sweep: SweepSettings) -> str | None:
    filled = sweep.noise or set(sweep.negatives) != {"ranked"}
    if "retrieved" in sweep.gold and filled:
        return "shows passages as they were retrieved, and noise or other negatives in their place: set gold: [kept]."
    if "absent" in sweep.gold and sweep.position:
        return "places gold that is absent: leave position out, or take absent out of gold."
    if sweep.noise and {"absent", "counterfactual"} & set(sweep.gold):
        return "says by noise how many passages hold the answer, and by gold that none does: set gold: [kept]."
    return None


@rule("evaluation.systems")
def systems_have_distinct_names(recipe: Recipe) -> str | None:
    """The report tells systems apart by name."""
    names = [system.name.strip() for system in recipe.evaluation.systems]
    if "" in names:
        return f"system {names.index('') + 1} has an empty name: give it one."
    twice = repeated(names)
    return None if twice is None else f'two systems are called "{twice}": rename one.'


@rule("evaluation.systems")
def weights_are_somewhere(recipe: Recipe) -> str | None:
    """A word that is no place is a slip in `base` or `tuned`."""
    for system in recipe.evaluation.systems:
        told = system.weights
        if told not in _OURS and "/" not in told and not Path(told).is_dir():
            return (
                f'"{told}" of "{system.name}" is not one of base, tuned, an existing folder and a Hub id '
                f"(organisation/name): {suggestion(told, _OURS)}"
            )
    return None


def is_marginal(system: SystemSettings) -> bool:
    """Tell whether a strategy marginalises over passages (RAG-Sequence, RAG-Token)."""
    return system.strategy.startswith("rag_")


@rule("evaluation.systems")
def systems_differ(recipe: Recipe) -> str | None:
    """Two names for one thing would be compared with itself."""
    systems = recipe.evaluation.systems
    own = recipe.model.prompt.style
    kinds = [system.model_copy(update={"name": "", "style": system.style or own}) for system in systems]
    for number, kind in enumerate(kinds):
        if kind in kinds[:number]:
            first = systems[kinds.index(kind)].name
            return f'"{systems[number].name}" is "{first}" under another name: remove one, or change what it is.'
    return None


@rule("evaluation.systems")
def servers_answer_with_their_own_weights(recipe: Recipe) -> str | None:
    """A server answers with what it has loaded, and gives text only."""
    served = [system for system in recipe.evaluation.systems if system.endpoint]
    return next((message for system in served if (message := _server_problem(system))), None)


def _server_problem(system: SystemSettings) -> str | None:
    if system.weights != "base":
        return (
            f'"{system.name}" has weights: {system.weights} and an endpoint, which answers with its own: leave weights '
            "out and name the model in endpoint.model, or leave endpoint out."
        )
    if is_marginal(system):
        return (
            f'"{system.name}": {system.strategy} needs the probabilities of every token, which a server does not give: '
            "take concatenate, reorder or self_route, or weights loaded here."
        )
    return None


@rule("evaluation.systems", "evaluation.engine")
def marginals_need_the_model(recipe: Recipe) -> str | None:
    """They read the model's own probabilities."""
    system = next((one for one in recipe.evaluation.systems if is_marginal(one)), None)
    if system is None or recipe.evaluation.engine == "transformers":
        return None
    return (
        f'"{system.name}": {system.strategy} reads probabilities that vllm keeps: set evaluation.engine=transformers.'
    )


@rule("evaluation.systems", "evaluation.passages", "evaluation.sweeps", "evaluation.suite")
def routing_has_somewhere_to_go(recipe: Recipe) -> str | None:
    """A first try over all passages leaves nothing for the second."""
    if recipe.evaluation.suite is not None:
        return None
    further = (count for sweep in recipe.evaluation.sweeps for count in sweep.passages)
    most = max([*recipe.evaluation.passages, *further])
    for system in recipe.evaluation.systems:
        few = system.self_route.passages
        if system.strategy == "self_route" and few >= most:
            return (
                f'"{system.name}" shows {few} passages first, and no point shows more than {most}: lower '
                "self_route.passages or raise evaluation.passages."
            )
    return None


@rule("evaluation.systems", "evaluation.judge")
def addresses_that_are_asked_hold_no_key(recipe: Recipe) -> str | None:
    """A recipe is printed, and written beside what is made of it."""
    judge = recipe.evaluation.judge
    asked = {one.name: one.endpoint for one in recipe.evaluation.systems if one.endpoint is not None}
    asked |= {"judge": judge.endpoint} if judge else {}
    found = ((name, secret(endpoint)) for name, endpoint in asked.items())
    return next((f"{name}: {told}" for name, told in found if told), None)
