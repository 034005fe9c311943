"""What is trained on base weights: a new adapter, one that exists already, or all weights. Saves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.models.adapters import remember_start
from rag_ft.models.initialise import FACTORS, FACTORS_FILE, start_at_principal_components, start_at_quantisation_error
from rag_ft.models.settings import LoraSettings, ModelSettings
from rag_ft.models.sharding import sharding


def trainable(model: Any, settings: ModelSettings, start: str | None, folder: Path) -> Any:
    """Return the model with what is to be trained on it, in float32; nothing else requires a gradient.

    Quantised weights need no more preparation: PEFT freezes them, the trainer lets gradients through to the
    embeddings' output, and transformers' norms compute in float32 whatever their weights are in. Casting norms and
    embeddings to float32 (PEFT's prepare_model_for_kbit_training) would double the activations and add gigabytes.

    Args:
        model: the base weights; with `tuning: full` those of the start.
        settings: the recipe's `model` section.
        start: folder of an adapter to go on from; None makes a new one.
        folder: where what is needed again to resume is kept.

    Raises:
        RagFtError: `target_modules` names a module the model lacks, or `start` holds no adapter that fits.
    """
    if settings.tuning == "full":
        model.requires_grad_(True)
    elif start is not None:
        model = going_on(model, start)
    else:
        model = new_adapter(model, settings.lora, folder)
    pissa = settings.tuning == "lora" and start is None and settings.lora.initialisation == "pissa"
    remember_start(model, folder / FACTORS / FACTORS_FILE if pissa else None)
    return model


def lora_config(settings: LoraSettings, **more: Any) -> Any:
    """Return the PEFT configuration of a new adapter that starts at no change; `more` are further fields of it."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # PEFT reads a text other than all-linear as a regular expression
        target_modules="all-linear" if settings.target_modules == "all-linear" else listed_targets(settings),
        use_rslora=settings.rank_stabilised,
        use_dora=settings.dora,
        **more,
    )


def listed_targets(settings: LoraSettings) -> list[str]:
    """Return `target_modules` as a list; empty for all-linear."""
    modules = settings.target_modules
    if isinstance(modules, str):
        return [] if modules == "all-linear" else [modules]
    return list(modules)


def new_adapter(model: Any, settings: LoraSettings, folder: Path) -> Any:
    """Put a new adapter on the model, starting where `initialisation` says; `folder` keeps what PiSSA starts from."""
    from peft import get_peft_model

    _check_targets(model, listed_targets(settings))
    config = lora_config(settings, **(_embeddings(model) if settings.train_embeddings else {}))
    if settings.initialisation == "pissa":
        return in_float32(start_at_principal_components(model, config, settings, folder))
    adapted = in_float32(get_peft_model(model, config))
    if settings.initialisation == "loftq":
        start_at_quantisation_error(adapted)
    return adapted


def going_on(model: Any, start: str) -> Any:
    """Put an adapter that exists on the model, to train it further; its own rank and modules stay.

    Args:
        model: the base weights.
        start: its folder.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    from rag_ft.models.load import load_adapter

    folder = Path(start)
    adapted = in_float32(load_adapter(model, folder, trainable=True))
    # Embeddings were read into the base's type before they became float32: read again what that rounded.
    set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    return adapted


def in_float32(model: Any) -> Any:
    """Cast what is trained to float32: an optimizer step is often smaller than bfloat16 can add. Returns the model."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


@contextmanager
def kept_in_float32(model: Any) -> Iterator[None]:
    """Put back what is trained as it was: TRL 1.15 rounds adapters on quantised weights to bfloat16 on its way."""
    before = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in before:
            parameter.data = before[name].to(parameter.device)


def _check_targets(model: Any, wanted: Sequence[str]) -> None:
    """Refuse modules that are not there; PEFT overlooks a name as long as another one is found."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    names = [
        name for name, module in model.named_modules() if isinstance(module, Linear | Conv1D) and module is not output
    ]
    for target in wanted:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            has = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise RagFtError(
                f'model.lora.target_modules: the model has no linear layer "{target}" to adapt. It has {has}; or write '
                "all-linear. Embeddings and output layer are trained in full with model.lora.train_embeddings=true."
            )


def _embeddings(model: Any) -> dict[str, Any]:
    """Return the fields of LoraConfig that train input embeddings and output layer in full."""
    if sharding():  # accelerate 1.15 and DeepSpeed 0.19 lose track of weights that PEFT has tied
        raise RagFtError(
            "model.lora.train_embeddings=true does not go with a launcher that shares weights out between processes. "
            "Set it to false, or launch with --accelerate ddp."
        )
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    wanted = [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]
    names = [name for name, module in model.named_modules() if any(module is one for one in wanted)]
    # PEFT finds modules by the end of their name, and what is tied by the last part of it
    return {"modules_to_save": [name.rpartition(".")[2] for name in names], "ensure_weight_tying": tied}
