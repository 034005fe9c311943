"""Callbacks for the time of training: plain lines in a pipe, a stop on a loss that is no number, memory given back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from data_builders.errors import RagFtError
from rag_ft.memory import give_back


class LossGuard(TrainerCallback):  # type: ignore[misc]
    """Stops the run when the loss is not finite, before a useless adapter is saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Check the loss of this log."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise RagFtError(
                f"the training loss became {loss} at step {state.global_step}. Lower training.learning_rate, or set "
                "model.dtype=float32, and run again: the last checkpoint is kept."
            )


class PlainProgress(TrainerCallback):  # type: ignore[misc]
    """A line now and then with step, loss, rate and time left, for pipes and CI; terminals get a bar."""

    def __init__(self, report: Callable[[str], None], every_seconds: float = 20.0) -> None:
        self.report = report
        self.every = every_seconds
        self.began = self.last = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.began = self.last = time.monotonic()
        self.first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Report when it is time."""
        now, done = time.monotonic(), state.global_step - self.first_step
        if not state.is_world_process_zero or "loss" not in (logs or {}) or now - self.last < self.every or not done:
            return
        self.last = now
        rate = (now - self.began) / done
        left = rate * (state.max_steps - state.global_step)
        self.report(
            f"  step {state.global_step}/{state.max_steps}  loss {(logs or {})['loss']:.3f}  "
            f"{rate:.1f} s/step  {left / 60:.1f} min left"
        )


class MemoryTrim(TrainerCallback):  # type: ignore[misc]
    """Gives freed memory back now and then: often enough to stay small, seldom enough to cost little time."""

    EVERY_STEPS = 2

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give back when it is time."""
        if state.global_step % self.EVERY_STEPS == 0:
            give_back(collect=False)
