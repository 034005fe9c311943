"""What several devices change: what is refused on them, and weights that are whole again when they are saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from data_builders.errors import RagFtError
from rag_ft.models.load import dtype_name
from rag_ft.models.sharding import sharding
from rag_ft.recipe.settings import Recipe
from rag_ft.training.ranks import processes, rank

if TYPE_CHECKING:
    import torch

_PRECISION = "ACCELERATE_MIXED_PRECISION"
_LOAD_ONCE = "FSDP_CPU_RAM_EFFICIENT_LOADING"
_WRAPPED = "_checkpoint_wrapped_module."  # part of a parameter's name under FSDP's activation checkpointing
_TIMEOUT_MINUTES = 30  # as the trainer's own ddp_timeout


def prepare_devices(recipe: Recipe) -> None:
    """Check that a recipe can be trained as this process was launched, and let the recipe decide the precision.

    Raises:
        RagFtError: the quantisation cannot be shared out in that way.
    """
    shared, kind = sharding(), recipe.model.quantisation.kind
    if shared == "zero3" and kind != "none":
        raise RagFtError(
            f"model.quantisation.kind={kind}: ZeRO-3 cannot share quantised weights out. Take --accelerate "
            "fsdp2_qlora for nf4, or --accelerate ddp with all weights on each GPU."
        )
    if shared == "fsdp" and kind == "int8":
        raise RagFtError(
            "model.quantisation.kind=int8: FSDP cannot share 8-bit weights out. Take nf4 with --accelerate "
            "fsdp2_qlora, or --accelerate ddp with all weights on each GPU."
        )
    if _PRECISION in os.environ:  # a configuration that says otherwise would multiply in another type than the base's
        dtype = dtype_name(recipe.model.dtype)
        os.environ[_PRECISION] = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "no")
    if shared == "fsdp" and processes() > 1:
        _load_once(recipe)


def _load_once(recipe: Recipe) -> None:
    """Let transformers know before it loads that the first process alone needs the weights (where so configured)."""
    if recipe.model.lora.initialisation != "zero":
        os.environ[_LOAD_ONCE] = "false"  # each process computes the start of the adapter from the weights
    if os.environ.get(_LOAD_ONCE, "").lower() == "true":
        from datetime import timedelta

        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=_TIMEOUT_MINUTES))


def load_whole_again() -> None:
    """Let transformers read the weights of a stage as those of the first.

    Once a trainer was made under ZeRO-3, transformers 5.17 would share out whatever is loaded afterwards, and cannot
    make a model without weights any more; the next trainer tells it anew.
    """
    if sharding() == "zero3":
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def settle_device(arguments: Any) -> None:
    """Correct where the trainer thinks it is (transformers 5.17).

    One process on a machine with several GPUs would copy the model to all of them in every step (DataParallel): it
    takes one; --accelerate takes more. Several processes on a CPU call it cpu:0, where torch restores no checkpoint.
    """
    import torch

    device = arguments.device  # found out when first asked for
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if device.type == "cpu":
        arguments.__dict__["_setup_devices"] = torch.device("cpu")


def gathered_state(trainer: Any) -> dict[str, torch.Tensor] | None:
    """Return what was trained, gathered from the shares of all processes, on the CPU of the first (empty elsewhere).

    Every process has to call it. Returns None where each has all of it. Only what was trained is gathered: frozen
    base weights stay where they are.
    """
    from torch.distributed.tensor import DTensor

    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if any(isinstance(each, DTensor) for each in trained.values()):
        buffers = dict(model.named_buffers())
        saved = {name: buffers[name] for name in model.state_dict() if name in buffers} if _all_of(model) else {}
        return _whole(trained | saved)
    if any(hasattr(each, "ds_id") for each in trained.values()):
        if _all_of(model):  # layer by layer: together they would not fit on one GPU
            return dict(trainer.accelerator.get_state_dict(trainer.model_wrapped) or {})
        with _zero_gathered(trained):
            return _whole(trained)
    return None


def _all_of(model: Any) -> bool:
    from peft import PeftModel

    return not isinstance(model, PeftModel)


@contextmanager
def _zero_gathered(trained: Mapping[str, torch.Tensor]) -> Iterator[None]:
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(trained.values())):
        yield


def _whole(shares: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return whole tensors on the CPU of the first process; each is gathered and given up again before the next."""
    from torch.distributed.tensor import DTensor

    state = {}
    for name, share in shares.items():
        whole = share.detach().full_tensor() if isinstance(share, DTensor) else share.detach()
        if rank() == 0:
            state[name.replace(_WRAPPED, "")] = whole.cpu().clone()
    return state


def anywhere(flag: bool) -> bool:
    """Tell whether a flag is set in any of the processes that train together. Every one has to ask."""
    import torch

    if processes() == 1 or not torch.distributed.is_initialized():
        return flag
    from accelerate import PartialState

    told = torch.tensor(int(flag), device=PartialState().device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return bool(told)
