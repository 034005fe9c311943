"""The stages of a training: what each takes over, where it keeps its files. Trains nothing.

A training without `training.stages` is one stage whose folder is `training/` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag_ft.prompting.render import SPAN_NAMES
from rag_ft.training.settings import StageSettings, TrainingSettings


@dataclass(frozen=True)
class Stage:
    """One phase with every setting filled in.

    Attributes:
        name: empty where a training has no stages.
        folder: its checkpoints, metrics.jsonl and, at the end, summary.json and (not for the last) adapter/.
        spans: the spans of the label that carry loss.
        passages: most passages shown; None shows all.
        data_share: share of the rows.
        keep_optimizer: take the optimizer's state over from the stage before.
        before: the stage before; None for the first.
        last: whether its result is the run's.
    """

    name: str
    folder: Path
    spans: tuple[str, ...]
    learning_rate: float
    epochs: float
    max_steps: int | None
    passages: int | None = None
    data_share: float = 1.0
    keep_optimizer: bool = False
    before: Stage | None = None
    last: bool = True

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON line for every log."""
        return self.folder / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """Written last: a stage that has it is done."""
        return self.folder / "summary.json"

    @property
    def result(self) -> Path:
        """What the next stage starts from."""
        return self.folder / "adapter"


def planned_stages(settings: TrainingSettings, folder: Path) -> list[Stage]:
    """Return the stages of a training below its folder, in order."""
    if not settings.stages:
        return [
            Stage("", folder, SPAN_NAMES, settings.learning_rate, settings.epochs, settings.max_steps),
        ]
    stages: list[Stage] = []
    for told in settings.stages:
        before = stages[-1] if stages else None
        stages.append(_stage(told, settings, folder, before, last=told is settings.stages[-1]))
    return stages


def _stage(told: StageSettings, settings: TrainingSettings, folder: Path, before: Stage | None, *, last: bool) -> Stage:
    return Stage(
        name=told.name,
        folder=folder / told.name,
        spans=told.spans,
        learning_rate=told.learning_rate or settings.learning_rate,
        epochs=told.epochs or settings.epochs,
        # a stage that names its epochs is not cut short by the steps of all
        max_steps=told.max_steps or (None if told.epochs else settings.max_steps),
        passages=told.passages,
        data_share=told.data_share,
        keep_optimizer=told.keep_optimizer,
        before=before,
        last=last,
    )
