"""Rules over data and export, one small function each. A class checks its own fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_builders.negatives import NegativesSettings
from data_builders.passage_counts import TokenCount, largest_count
from data_builders.retrievers import retriever_names
from data_builders.sources.invented_world import InventedWorldSettings
from rag_ft.recipe.licences import contradiction
from rag_ft.recipe.problems import suggestion
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe


def repeated(values: Sequence[str]) -> str | None:
    """Return the first value that stands there before; None where all differ."""
    return next((value for index, value in enumerate(values) if value in values[:index]), None)


@rule("seed")
def seed_fits_numpy(recipe: Recipe) -> str | None:
    """NumPy and PyTorch take seeds of 32 bits."""
    return None if 0 <= recipe.seed < 2**32 else f"{recipe.seed} cannot seed NumPy: take 0 to {2**32 - 1}."


def worlds(recipe: Recipe) -> dict[str, InventedWorldSettings]:
    """Return the invented worlds among the sources: what they will hold is known before they are read."""
    return {name: one for name, one in recipe.data.sources.items() if isinstance(one, InventedWorldSettings)}


@rule("data.negatives.rank_high", "data.depth")
def negative_window_within_depth(recipe: Recipe) -> str | None:
    """Only passages that are kept can be negatives. The default window ends with the pool, whatever its depth."""
    high, depth = recipe.data.negatives.rank_high, recipe.data.depth
    if high <= depth or high == NegativesSettings.model_fields["rank_high"].default:
        return None
    return f"{high} is below the last passage kept (data.depth is {depth}): set data.depth={high} or lower it."


@rule("data.negatives.rank_low", "data.depth")
def negative_window_starts_within_depth(recipe: Recipe) -> str | None:
    """A window that starts below the pool holds nothing."""
    low, depth = recipe.data.negatives.rank_low, recipe.data.depth
    return f"{low} is past the last passage kept (data.depth is {depth}): lower it." if low > depth else None


@rule("data.negatives.low_from", "data.depth", "data.negatives.shares")
def low_ranks_within_depth(recipe: Recipe) -> str | None:
    """The low part of the window has to be in the pool."""
    negatives, depth = recipe.data.negatives, recipe.data.depth
    if not negatives.shares.get("low") or negatives.low_from <= depth:
        return None
    return f"{negatives.low_from} is past the last passage kept (data.depth is {depth}): lower it or raise data.depth."


@rule("data.negatives.retriever_shares", "data.retrievers")
def retriever_shares_name_retrievers(recipe: Recipe) -> str | None:
    """A share belongs to a retriever of the recipe."""
    names = retriever_names(recipe.data.retrievers)
    unknown = next((name for name in recipe.data.negatives.retriever_shares or {} if name not in names), None)
    return None if unknown is None else f'"{unknown}" is no retriever of the recipe: {suggestion(unknown, names)}'


@rule("data.contexts.passages", "data.sources")
def two_hops_need_two_passages(recipe: Recipe) -> str | None:
    """A question of two hops has two gold passages."""
    name, share = next(
        ((name, one.two_hop_share) for name, one in worlds(recipe).items() if one.two_hop_share), ("", 0)
    )
    if not share or largest_count(recipe.data.contexts.passages) >= 2:
        return None
    return (
        f"contexts of 1 passage cannot answer the two-hop questions ({share:g} of all): "
        f"allow 2, or set data.sources.{name}.two_hop_share=0."
    )


@rule("model.prompt.question_position", "data.contexts.questions_per_context")
def shared_context_comes_before_its_questions(recipe: Recipe) -> str | None:
    """Several questions can share a context only where nothing of a question stands ahead of it."""
    position = recipe.model.prompt.question_position
    if recipe.data.contexts.questions_per_context == 1 or position == "after":
        return None
    return (
        f'"{position}" puts each question ahead of the passages, so that questions cannot share a context: '
        "set it to after, or set data.contexts.questions_per_context=1."
    )


@rule("data.contexts.gold_position", "data.contexts.order")
def gold_position_needs_shuffling(recipe: Recipe) -> str | None:
    """Ranked orders already say where the gold passage stands."""
    contexts = recipe.data.contexts
    if contexts.gold_position == "uniform" or contexts.order == "shuffled":
        return None
    return (
        f"{contexts.gold_position} contradicts data.contexts.order={contexts.order}, which places passages by rank: "
        "set order to shuffled, or gold_position to uniform."
    )


@rule("data.contexts.gold_probability", "data.contexts.gold_absent")
def some_context_shows_gold(recipe: Recipe) -> str | None:
    """Without any gold passage, dropping leaves no row and abstaining teaches to decline always."""
    contexts = recipe.data.contexts
    if contexts.gold_probability > 0 or contexts.gold_absent == "answer":
        return None
    effect = "leaves no row" if contexts.gold_absent == "drop" else "teaches only to decline"
    return f"0 with data.contexts.gold_absent={contexts.gold_absent} {effect}: raise it, or set gold_absent to answer."


@rule("data.contexts.passages", "training.max_length")
def token_budget_leaves_room(recipe: Recipe) -> str | None:
    """Passages, question and target share a row."""
    count, length = recipe.data.contexts.passages, recipe.training.max_length
    if not isinstance(count, TokenCount) or count.budget < length:
        return None
    return (
        f"a budget of {count.budget} tokens leaves no room for question and target in training.max_length={length}: "
        "lower the budget or raise training.max_length."
    )


@rule("data.ranking", "data.retrievers")
def fusion_weighs_known_retrievers(recipe: Recipe) -> str | None:
    """A weight for a retriever that there is not would change nothing."""
    ranking, names = recipe.data.ranking, retriever_names(recipe.data.retrievers)
    unknown = next((name for name in getattr(ranking, "weights", None) or {} if name not in names), None)
    return (
        None if unknown is None else f'weights names "{unknown}", which is no retriever: {suggestion(unknown, names)}'
    )


@rule("export.language")
def languages_are_codes(recipe: Recipe) -> str | None:
    """The Hub takes ISO 639 codes."""
    wrong = next((code for code in recipe.export.language if not re.fullmatch(r"[a-z]{2,3}", code)), None)
    return None if wrong is None else f'"{wrong}" is not an ISO 639 code: write for example en, de or ko.'


@rule("export.licence", "model.weights")
def licence_is_an_identifier(recipe: Recipe) -> str | None:
    """The Hub takes identifiers in lower case, and some base models' licences stay with what is made from them."""
    licence = recipe.export.licence
    if licence is None or re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        return contradiction(licence, recipe.model.weights)
    return f'"{licence}" is not how the Hub spells a licence: write for example apache-2.0, mit or cc-by-4.0.'


@rule("export.data_licences", "data.sources")
def licences_name_sources(recipe: Recipe) -> str | None:
    """A licence belongs to a source of the recipe."""
    names, told = list(recipe.data.sources), recipe.export.data_licences
    unknown = next((name for name in told if name not in names), None)
    if unknown is not None:
        return f'"{unknown}" is no source of the recipe: {suggestion(unknown, names)}'
    empty = next((name for name, licence in told.items() if not licence.strip()), None)
    return None if empty is None else f"{empty} has none: write it as the Hub spells it, for example cc-by-sa-4.0."
