"""Checks that catch the classic mistakes before the first training step. Each names the setting to change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.models.load import load_config
from rag_ft.models.tuned import with_local_adapter
from rag_ft.models.weights import Weights
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.settings import Recipe
from rag_ft.training.dataset import TrainedRow, row_as_text
from rag_ft.training.memory_estimate import Demand, NoEstimateError, check_memory
from rag_ft.training.model_shape import ModelShape, model_shape
from rag_ft.training.places import place_at_hand
from rag_ft.training.rows import IGNORED, TokenRow
from rag_ft.training.stage_plan import checkpoint_bytes, checkpoints_kept, rows_in_memory
from rag_ft.training.stages import Stage

SAMPLE = 32


def preflight(rows: Sequence[TrainedRow], tokens: Sequence[TokenRow], encoder: Encoder, stage: Stage) -> list[str]:
    """Run every check on a sample of rows; return one line for each that passed.

    Raises:
        RagFtError: the first check that fails, with what to change.
    """
    if not tokens:
        raise RagFtError("there is no training row. See what `rag-ft build RECIPE` left out.")
    checks: list[Callable[[], str]] = [
        lambda: _labels_present(tokens),
        *([lambda: _end_is_trained(tokens[:SAMPLE], encoder)] if "end" in stage.spans else []),
        lambda: _one_bos(tokens[:SAMPLE], encoder.tokenizer),
        lambda: _tokenised_as_a_whole(rows[:SAMPLE], tokens, encoder),
        lambda: _longest(tokens),
    ]
    return [check() for check in checks]


def _labels_present(tokens: Sequence[TokenRow]) -> str:
    for row in tokens:
        if all(label == IGNORED for label in row.labels):
            raise RagFtError(f"row {row.id} has no token that carries loss. Check its label with `rag-ft inspect`.")
    trained = sum(label != IGNORED for row in tokens for label in row.labels)
    return f"labels: {trained} tokens carry loss in {len(tokens)} rows, none is empty"


def _end_is_trained(tokens: Sequence[TokenRow], encoder: Encoder) -> str:
    end = encoder.end[-1]
    for row in tokens:
        if sum(label == end for label in row.labels) < len(row.lengths) - 1:
            raise RagFtError(
                f"row {row.id}: the end-of-turn token {encoder.tokenizer.decode([end])!r} carries no loss, so the "
                "model would not learn to stop. This is a bug of rag-ft: please report it with the recipe."
            )
    return f"end of turn: {encoder.tokenizer.decode([end])!r} is trained once for each question"


def _one_bos(tokens: Sequence[TokenRow], tokenizer: Any) -> str:
    bos = tokenizer.bos_token_id
    # Where a template opens every turn with the BOS token (ChatML in some tokenizers) it is no BOS any more.
    if bos is None or bos in tokenizer(tokenizer.chat_template, add_special_tokens=False)["input_ids"]:
        return "beginning of sequence: the chat template writes its own"
    for row in tokens:
        if row.input_ids[: row.lengths[0]].count(bos) > 1:
            raise RagFtError(
                f"row {row.id} begins with more than one {tokenizer.bos_token!r}: the chat template writes one and "
                "so does the tokenizer. Set model.weights to a tokenizer whose template writes it once."
            )
    return "beginning of sequence: at most one"


def _tokenised_as_a_whole(rows: Sequence[TrainedRow], tokens: Sequence[TokenRow], encoder: Encoder) -> str:
    """Check that outside servers, which tokenise the whole text, see the ids we train on."""
    for row, encoded in zip(rows, tokens, strict=False):
        for what, joined, text in row_as_text(row, encoded.style, encoder):
            _same(row.id, what, joined, encoder.tokenise(text), encoder.tokenizer)
    return "prompt: its ids are a prefix of the row's, and the same when tokenised as one text"


def _same(row: str, what: str, joined: Sequence[int], whole: Sequence[int], tokenizer: Any) -> None:
    if list(joined) == list(whole):
        return
    at = next((i for i, (a, b) in enumerate(zip(joined, whole, strict=False)) if a != b), min(len(joined), len(whole)))
    raise RagFtError(
        f"row {row}: {what} tokenised segment by segment differs from the whole text at token {at}: "
        f"{tokenizer.convert_ids_to_tokens(list(joined[at : at + 3]))} against "
        f"{tokenizer.convert_ids_to_tokens(list(whole[at : at + 3]))}. A server would see other tokens than the "
        "model was trained on; set model.weights to another tokenizer, or report it as a bug of rag-ft."
    )


def _longest(tokens: Sequence[TokenRow]) -> str:
    lengths = sorted(len(row.input_ids) for row in tokens)
    return f"length: median {lengths[len(lengths) // 2]}, longest {lengths[-1]} tokens"


def check_resources(recipe: Recipe, stage: Stage, tokens: Sequence[TokenRow], weights: Weights) -> list[str]:
    """Check disk and memory before the weights are loaded; return a line for each.

    Args:
        recipe: what is trained.
        stage: the stage about to begin; its folder is there.
        tokens: its rows, one at least.
        weights: the base weights; only their configuration is read.

    Raises:
        RagFtError: the disk is too full for the checkpoints, or the device much too small.
    """
    try:
        model = with_local_adapter(recipe.model, weights)
        shape = model_shape(model, load_config(model, weights))
    except RagFtError as error:  # whoever loads the model says it better, if it cannot be loaded
        return [f"memory and disk: not estimated, since {error}"]
    demand = Demand(model, recipe.training, shape, rows_in_memory(tokens), place_at_hand())
    return [_disk(stage.folder, recipe, shape), _memory(demand)]


def _disk(folder: Path, recipe: Recipe, shape: ModelShape) -> str:
    training = recipe.training
    kept, each = checkpoints_kept(training), checkpoint_bytes(shape, training) / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if free < kept * each:
        raise RagFtError(
            f"only {free:.2f} GB are free in {folder}; {kept} checkpoints of {each:.2f} GB need {kept * each:.2f} GB. "
            "Set runs_dir to another disk, or training.trainer.save_total_limit=1."
        )
    return f"disk: {kept} checkpoints of {each:.2f} GB at most, {free:.0f} GB free"


def _memory(demand: Demand) -> str:
    try:
        return check_memory(demand)
    except NoEstimateError as error:
        return f"memory: not estimated, since {error}"
