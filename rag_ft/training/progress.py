"""Callbacks for the time of training: plain lines in a pipe, a stop on a loss that is no number, memory given back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from data_builders.errors import RagFtError
from rag_ft.memory import give_back, resident_bytes
from rag_ft.training.devices import anywhere
from rag_ft.training.rows import TokenRow

_MOST_ROWS = 8
_REMEDY = (
    "Lower training.learning_rate, or set model.dtype=float32, and run again: the last checkpoint is kept. "
    "If it is the first step, look at those rows with `rag-ft inspect`, and at model.weights."
)


class LossGuard(TrainerCallback):  # type: ignore[misc]
    """Stops the run, in every process, when loss or gradient is not finite, before anything of it is saved.

    `recent` is the trainer's list of (step, row numbers, loss) of the forward passes since the last look. It is looked
    at where a log or a checkpoint makes the trainer wait for the device anyway.
    """

    def __init__(self, rows: Sequence[TokenRow] = ()) -> None:
        """Take the training rows, to name those of a bad batch."""
        self.rows = rows
        self.recent: list[tuple[int, Any, Any]] = []
        self.last: list[tuple[int, Any, Any]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the losses since the last look."""
        if not (control.should_log or control.should_save) or not self.recent:
            return
        import torch
        from accelerate.utils import gather_object

        self.last = list(self.recent)
        self.recent.clear()
        finite = torch.stack([loss.float() for _, _, loss in self.last]).isfinite()
        if not anywhere(not bool(finite.all())):
            return
        bad = [one for one, good in zip(self.last, finite.tolist(), strict=True) if not good]
        first = min(gather_object([(step, float(loss)) for step, _, loss in bad]), key=lambda pair: pair[0])
        raise self._error("the training loss", first[1], first[0], [one for one in bad if one[0] == first[0]])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Check loss and gradient of a log; with float16, gradients overflow now and then and the step is left out."""
        for name, what in (("loss", "the training loss"), ("grad_norm", "the gradient of the training loss")):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value) and not (args.fp16 and name == "grad_norm"):
                step = state.global_step
                raise self._error(what, value, step, [one for one in self.last if one[0] == step])

    def _error(self, what: str, value: float, step: int, passes: Sequence[tuple[int, Any, Any]]) -> RagFtError:
        return RagFtError(f"{what} became {value} at step {step}{self._where(passes)}. {_REMEDY}")

    def _where(self, passes: Sequence[tuple[int, Any, Any]]) -> str:
        from accelerate.utils import gather_object

        numbers = [int(number) for _, numbers, _ in passes if numbers is not None for number in numbers.flatten()]
        names = list(dict.fromkeys(self.rows[number].id for number in gather_object(numbers)))
        if not names:
            return ""
        more = f" and {len(names) - _MOST_ROWS} more" if len(names) > _MOST_ROWS else ""
        return f" (rows {', '.join(names[:_MOST_ROWS])}{more})"


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


class ValidationLines(TrainerCallback):  # type: ignore[misc]
    """A line for every validation, in a terminal too: it is what a person waits for."""

    SHOWN = ("loss", "accuracy", "abstained")

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Report what was measured."""
        found = {name: (metrics or {}).get(f"eval_{name}") for name in self.SHOWN}
        values = [f"{name} {value:.3f}" for name, value in found.items() if value is not None]
        self.report(f"  validation at step {state.global_step}: {', '.join(values)}")


class MemoryTrim(TrainerCallback):  # type: ignore[misc]
    """Gives freed memory back when the process has grown by a quarter over what a step leaves behind by itself.

    Giving back after every step costs 5 % of the time: the next step has to ask for the same pages again.
    """

    GROWTH = 1.25

    def __init__(self) -> None:
        self.usual = 0  # bytes held after the first step, and after the first behind each giving back
        self.fresh = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give back when it is time."""
        held = resident_bytes()
        if self.fresh:
            self.usual, self.fresh = max(self.usual, held), False
        elif held > self.GROWTH * self.usual:
            give_back(collect=False)
            self.fresh = True
