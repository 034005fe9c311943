"""Which checkpoint a run goes on from. Half-written ones are never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from data_builders.files import atomic_path

COMPLETE = "complete"  # written last: a kill while a checkpoint is being written leaves it without


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint and delete incomplete ones."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)  # another process of the same run may be faster
    complete = [path for path in found if (path / COMPLETE).is_file()]
    return complete[-1] if complete else None


class CheckpointMarker(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as complete once the trainer has written all of it."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the mark."""
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


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
        """Ask the trainer to save and stop."""
        if self.signals:
            control.should_save = control.should_training_stop = True
