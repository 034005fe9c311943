"""The optimizer's state of one stage, taken over by the next (`keep_optimizer`). The learning rate is the stage's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import OPTIMIZER_NAME

from data_builders.errors import RagFtError
from rag_ft.runs import read_json
from rag_ft.training.checkpoints import is_complete, last_checkpoint
from rag_ft.training.stages import Stage


class KeepOptimizer(TrainerCallback):  # type: ignore[misc]
    """Loads the state of the stage before into a fresh optimizer; a resumed stage has its own in the checkpoint."""

    def __init__(self, before: Stage) -> None:
        self.before = before

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the state over before the first step."""
        if state.global_step == 0:
            take_over(kwargs["optimizer"], self.before)


def keep_optimizer(trainer: Any, stage: Stage) -> None:
    """Let a trainer begin with the optimizer's state of the stage before where the stage asks for it.

    Raises:
        RagFtError: the state is spread over devices, so that it is not in one file.
    """
    if not stage.keep_optimizer or stage.before is None:
        return
    spread = str(trainer.accelerator.distributed_type.value)
    if spread in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
        raise RagFtError(
            f"stage {stage.name} cannot keep the optimizer of stage {stage.before.name} under {spread}, which spreads "
            "it over the devices. Set keep_optimizer: false in training.stages, or train with plain copies (ddp)."
        )
    trainer.add_callback(KeepOptimizer(stage.before))


def take_over(optimizer: Any, before: Stage) -> None:
    """Load the moments that belong to the weights a stage has left, those of its best checkpoint where it is kept.

    Learning rate and weight decay stay the optimizer's own.

    Raises:
        RagFtError: there is no checkpoint with a state, or it is of other trainable parameters.
    """
    import torch

    checkpoint = _kept_checkpoint(before)
    file = (checkpoint or Path(before.checkpoints)) / OPTIMIZER_NAME
    if not file.is_file():
        raise RagFtError(
            f"{file} does not exist, so that there is no optimizer of stage {before.name} to keep. Take "
            "save_only_model out of training.trainer and train with --restart, or set keep_optimizer: false."
        )
    saved = torch.load(file, map_location="cpu", weights_only=True)
    now = optimizer.state_dict()
    if not _fits(saved, now, optimizer):
        raise RagFtError(
            f"the optimizer of stage {before.name} is of other trainable parameters than this stage's. Set "
            "keep_optimizer: false in training.stages."
        )
    optimizer.load_state_dict({"state": saved["state"], "param_groups": now["param_groups"]})


def _kept_checkpoint(stage: Stage) -> Path | None:
    kept = read_json(stage.summary, "rag-ft train RECIPE --restart").get("kept_step") if stage.summary.is_file() else 0
    best = stage.checkpoints / f"checkpoint-{kept}"
    return best if is_complete(best) else last_checkpoint(stage.checkpoints)


def _fits(saved: dict[str, Any], now: dict[str, Any], optimizer: Any) -> bool:
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in now["param_groups"]]:
        return False
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {number: state.get("exp_avg") for number, state in saved["state"].items()}
    return all(moment is None or moment.shape == parameters[number].shape for number, moment in moments.items())
