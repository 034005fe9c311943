"""Where a stage goes on: `training.resume`, and whether a checkpoint is one of this recipe and these rows."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.errors import RagFtError
from data_builders.files import content_hash, write_json
from rag_ft.recipe.settings import Recipe
from rag_ft.runs import differences, read_json, trained_settings
from rag_ft.training.checkpoints import ORIGIN, all_checkpoints, checkpoint_step, is_complete, last_checkpoint
from rag_ft.training.ranks import processes
from rag_ft.training.rows import TokenRow
from rag_ft.training.stages import Stage

_ADOPTED = "resumed.json"  # beside the checkpoints: which PATH they go on from
_STATE = "trainer_state.json"
_STOPPER = "EarlyStoppingCallback"


def origin_of(recipe: Recipe, stage: Stage, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Return what the checkpoints of a stage are trained from, as `recipe.json` in each of them holds it."""
    settings = trained_settings(recipe.model_dump(mode="json"))
    return {
        "hash": content_hash(settings),
        "stage": stage.name,
        "rows": rows_hash(rows),
        "processes": processes(),
        "settings": settings,
    }


def rows_hash(rows: Sequence[TokenRow]) -> str:
    """Return a hash of ids and labels of all rows, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.id.encode())
        for values in (row.input_ids, row.labels, row.lengths):
            digest.update(np.asarray([len(values), *values], np.int64).tobytes())
    return digest.hexdigest()[:16]


def check_resume(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Make sure, before anything is loaded, that the checkpoint `training.resume` names can be gone on from.

    Raises:
        RagFtError: it is no complete checkpoint, or of another recipe, or of a stage that cannot begin yet.
    """
    stage = _named_stage(recipe.training.resume, stages)
    if stage is None:
        return
    if stage.summary.is_file() and not stage.last:
        raise RagFtError(
            f"training.resume={recipe.training.resume} is a checkpoint of stage {stage.name}, which is done. "
            "Set training.resume=auto, or repeat the command with --restart."
        )
    earlier = [one for one in stages[: stages.index(stage)] if not one.summary.is_file()]
    if earlier:
        raise RagFtError(
            f"training.resume={recipe.training.resume} is a checkpoint of stage {stage.name}, but stage "
            f"{earlier[0].name} before it is not done. Set training.resume=auto, or a checkpoint of that stage."
        )
    if not _adopted(stage, recipe.training.resume):
        origin = read_json(_folder(recipe.training.resume) / ORIGIN, "training.resume=auto")
        _refuse_other(recipe.training.resume, origin, trained_settings(recipe.model_dump(mode="json")))


def begin(told: str, stage: Stage, report: Callable[[str], None]) -> None:
    """Bring the checkpoints of a stage into the form that `training.resume` asks for; one process calls it.

    Checkpoints that are not gone on from are moved aside, never deleted.
    """
    if told == "never":
        _set_aside(stage, report)
    elif told != "auto" and _stage_name(_folder(told)) == stage.name and not _adopted(stage, told):
        _adopt(told, stage, report)


def checkpoint_to_resume(stage: Stage, origin: dict[str, Any], report: Callable[[str], None]) -> Path | None:
    """Return the checkpoint a stage goes on from, None where it begins.

    Raises:
        RagFtError: it was trained from another recipe or other rows.
    """
    checkpoint = last_checkpoint(stage.checkpoints)
    if checkpoint is None or not (checkpoint / ORIGIN).is_file():
        return checkpoint
    found = read_json(checkpoint / ORIGIN, "rag-ft train RECIPE training.resume=never")
    _refuse_other(str(checkpoint), found, origin["settings"])
    if found["rows"] != origin["rows"]:
        raise RagFtError(
            f"{checkpoint} was trained on other rows: the data were built anew, or are tokenised otherwise. "
            "Set training.resume=never to begin the stage anew; its checkpoints are kept."
        )
    if found["processes"] != origin["processes"]:
        report(f"  {checkpoint.name} was trained by {found['processes']} processes, now {origin['processes']} go on")
    return checkpoint


def is_finished(checkpoint: Path) -> bool:
    """Tell whether nothing is left to train after a checkpoint: every step was done, or patience was at its end."""
    state = read_json(checkpoint / _STATE, "rag-ft train RECIPE training.resume=never")
    return bool(state["global_step"] >= state["max_steps"]) or out_of_patience(state["stateful_callbacks"])


def out_of_patience(states: dict[str, Any]) -> bool:
    """Tell from the saved states of callbacks whether early stopping has stopped the training."""
    stopper = states.get(_STOPPER)
    if not stopper:
        return False
    failures = stopper["attributes"]["early_stopping_patience_counter"]
    return bool(failures >= stopper["args"]["early_stopping_patience"])


def _refuse_other(checkpoint: str, origin: dict[str, Any], now: dict[str, Any]) -> None:
    changed = differences(origin["settings"], now)
    if changed:
        raise RagFtError(
            f"{checkpoint} was trained from another recipe ({changed}). Set these as they were, "
            "or training.resume=never to begin anew; its checkpoints are kept."
        )


def _named_stage(told: str, stages: Sequence[Stage]) -> Stage | None:
    """Return the stage whose checkpoint `training.resume` names; None where it names none or it is gone on from."""
    if told in ("auto", "never"):
        return None
    adopted = next((stage for stage in stages if _adopted(stage, told)), None)
    if adopted:
        return adopted
    folder = _folder(told)
    if not is_complete(folder):
        raise RagFtError(
            f"training.resume={told} is not a complete checkpoint: it has no file called complete. Give the folder "
            "of a checkpoint, as runs/NAME/training/checkpoints/checkpoint-50, or set training.resume=auto."
        )
    name = _stage_name(folder)
    found = next((stage for stage in stages if stage.name == name), None)
    if found is None:
        raise RagFtError(
            f"training.resume={told} is a checkpoint of stage {name or 'of a training without stages'}, which this "
            "recipe does not have. Set training.resume=auto."
        )
    return found


def _folder(told: str) -> Path:
    return Path(told).expanduser().resolve()


def _stage_name(checkpoint: Path) -> str | None:
    """Return the stage a checkpoint is of; None where there is no such checkpoint."""
    file = checkpoint / ORIGIN
    return str(read_json(file, "training.resume=auto")["stage"]) if file.is_file() else None


def _adopted(stage: Stage, told: str) -> bool:
    """Tell whether the stage's checkpoints go on from that path already: then the newest of them is the place."""
    file = stage.folder / _ADOPTED
    return (
        file.is_file()
        and read_json(file, "training.resume=auto")["from"] == str(_folder(told))
        and last_checkpoint(stage.checkpoints) is not None
    )


def _adopt(told: str, stage: Stage, report: Callable[[str], None]) -> None:
    """Make a copy of a checkpoint, and of the best one it knows, the only checkpoints of a stage."""
    folder = _folder(told)
    temporary = stage.folder / ".checkpoints.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    best = read_json(folder / _STATE, "training.resume=auto").get("best_global_step")
    sources = {folder, folder.with_name(f"checkpoint-{best}")} if best else {folder}
    try:
        for source in sources:
            if is_complete(source):
                shutil.copytree(source, temporary / source.name)
        _set_aside(stage, report)
        temporary.rename(stage.checkpoints)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_json(stage.folder / _ADOPTED, {"from": str(folder)})


def _set_aside(stage: Stage, report: Callable[[str], None]) -> None:
    """Move the checkpoints of a stage out of the way and say where they are."""
    (stage.folder / _ADOPTED).unlink(missing_ok=True)
    found = all_checkpoints(stage.checkpoints)
    if not found:
        shutil.rmtree(stage.checkpoints, ignore_errors=True)
        return
    number = next(n for n in range(1, 10_000) if not stage.folder.joinpath(f"checkpoints-{n}").exists())
    aside = stage.folder / f"checkpoints-{number}"
    stage.checkpoints.rename(aside)
    report(f"  {len(found)} checkpoints up to step {checkpoint_step(found[-1])} are kept aside in {aside}")
