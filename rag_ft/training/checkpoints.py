"""Checkpoints: when one is complete, which are kept, what they were trained from; and metrics.jsonl beside them.

A checkpoint is the trainer's folder with two files more: `recipe.json` (rag_ft/training/resume.py compares it) and,
written last, `complete`.
"""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from data_builders.files import atomic_path, write_json
from rag_ft.training.devices import anywhere

COMPLETE = "complete"  # written last: a kill while a checkpoint is being written leaves it without
ORIGIN = "recipe.json"


def checkpoint_step(folder: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(folder.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, complete or not, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=checkpoint_step)


def is_complete(checkpoint: Path) -> bool:
    """Tell whether all of a checkpoint was written."""
    return (checkpoint / COMPLETE).is_file()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint and delete incomplete ones."""
    found = all_checkpoints(folder)
    for path in found:
        if not is_complete(path):
            shutil.rmtree(path, ignore_errors=True)  # another process of the same run may be faster
    complete = [path for path in found if is_complete(path)]
    return complete[-1] if complete else None


class CheckpointKeeper(TrainerCallback):  # type: ignore[misc]
    """Completes a checkpoint once every process has written its part, then deletes the oldest.

    The trainer itself would delete older ones before the new one is marked: a full disk in between would leave none.
    """

    def __init__(self, origin: dict[str, Any], limit: int | None) -> None:
        """Take what the checkpoints are trained from, and how many to keep, the best among them; None keeps all."""
        self.origin = origin
        self.limit = limit

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write what it was trained from and, last, the mark."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # each process writes random states of its own
        if state.best_global_step:  # the trainer misses it where FSDP makes the folder later than it looks for it
            state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.best_global_step}")
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / ORIGIN, self.origin)
            (folder / COMPLETE).touch()
            rotate_checkpoints(args.output_dir, self.limit, state.best_model_checkpoint)


class BestKeeper(TrainerCallback):  # type: ignore[misc]
    """Writes a checkpoint at every validation, so that the best one is there to be kept."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the best checkpoint again: the folder may have been moved since, and the trainer keeps whole paths."""
        if state.best_global_step:
            best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
            if is_complete(best):
                state.best_model_checkpoint = str(best)
            else:  # gone: the next validation is the best so far
                state.best_model_checkpoint = state.best_metric = state.best_global_step = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint."""
        control.should_save = True


class Sessions(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Adds up seconds and peak memory over the sessions of a stage; checkpoints carry them on.

    What a session did after the checkpoint that the next one goes on from is not counted.
    """

    def __init__(self) -> None:
        self.before = self.peak_before = 0.0
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of training up to now."""
        return self.before + time.monotonic() - self.began

    @property
    def peak_memory_gb(self) -> float:
        """Most memory held in any session: of the GPU by tensors and their cache, without one by this process."""
        import torch

        if torch.cuda.is_available():
            return max(self.peak_before, torch.cuda.max_memory_reserved() / 1e9)
        return max(self.peak_before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"args": {}, "attributes": {"before": self.seconds, "peak_before": self.peak_memory_gb}}


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends every log of the trainer to metrics.jsonl; a resumed run cuts what came after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step the run goes on from."""
        if state.is_world_process_zero:
            kept = [row for row in read_metrics(self.path) if row["step"] <= state.global_step]
            with atomic_path(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line cut off by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class StopAfterStep(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint and stops after the step in which a signal came."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the trainer to save and stop, in all processes after the same step."""
        if anywhere(bool(self.signals)):
            control.should_save = control.should_training_stop = True
