"""The Unsloth backend: one device, Unsloth's layers and kernels, our rows, adapter and loss.

Unsloth rewrites classes of transformers, PEFT and TRL when it is imported, and wants to be imported before them. So it
is imported here alone, by `open_unsloth`, in the process that trains and in no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import cache_folder
from data_builders.progress import quiet_transformers
from rag_ft.models.load import attention_name, caps_scores, dtype_name, load_config
from rag_ft.models.lora import trainable
from rag_ft.training.backends import ModelJob
from rag_ft.training.probe import honours_masks

INSTALL = "pip install --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9"
OTHERWISE = "set training.backend=transformers"


class UnslothBackend:
    """Models through Unsloth: fused kernels on CUDA, stock transformers layers on a CPU."""

    def model(self, job: ModelJob) -> Any:
        """Load the base weights through Unsloth and put the adapter on them.

        The adapter is made by `rag_ft.models.lora.trainable` as for every backend, not by Unsloth's get_peft_model:
        that one draws other values, knows fewer settings and reports fewer mistakes. Unsloth's kernels do not need it;
        Unsloth too puts them on an adapter that PEFT has loaded.
        """
        from transformers import set_seed

        base = _load(job)
        set_seed(job.seed)  # loading may have drawn random numbers
        adapted = _with_kernels(trainable(base, job.settings, job.start, job.folder), job)
        if job.masked:
            _refuse_deaf_attention(adapted)
        return keep_logits_at_positions(adapted)


def open_unsloth() -> UnslothBackend:
    """Import Unsloth and return the backend.

    Raises:
        RagFtError: several processes; Unsloth is not installed; something else was imported first.
    """
    _refuse_several_processes()
    if importlib.util.find_spec("unsloth") is None or importlib.util.find_spec("unsloth_zoo") is None:
        raise RagFtError(
            "training.backend=unsloth: Unsloth is not installed. Install it with `pip install 'rag-ft[unsloth]'`, on a "
            f"machine without a GPU with `{INSTALL}`, or {OTHERWISE}."
        )
    if "transformers" in sys.modules and "unsloth" not in sys.modules:
        raise RagFtError(
            "training.backend=unsloth: transformers is imported already in this process, and Unsloth must come first. "
            "Train with `rag-ft train RECIPE`, which starts a process of its own."
        )
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"  # it would download a file from the Hub to be counted
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_folder() / "unsloth"))  # else the current folder
    try:
        with _quiet():
            import unsloth  # noqa: F401
            from trl import SFTConfig
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise RagFtError(
            f"training.backend=unsloth: Unsloth cannot be imported ({_first_line(error)}). Install the versions tested "
            f"with rag-ft with `{INSTALL}`, or {OTHERWISE}."
        ) from error
    keep_trl_defaults(SFTConfig)
    return UnslothBackend()


def _refuse_several_processes() -> None:
    count = int(os.environ.get("WORLD_SIZE") or 1)
    if count > 1:
        raise RagFtError(
            f"training.backend=unsloth trains on one device, but this is one of {count} processes. Start one process "
            f"(`rag-ft train RECIPE` without --accelerate), or {OTHERWISE}."
        )


def _load(job: ModelJob) -> Any:
    """Load the base weights as the recipe says, or refuse; Unsloth itself falls back to something else in silence."""
    import torch
    import unsloth

    _refuse_stretched_positions(job)
    dtype, bits = dtype_name(job.settings.dtype), job.settings.quantisation.kind
    told: dict[str, Any] = {"use_gradient_checkpointing": "unsloth" if job.gradient_checkpointing else False}
    if not torch.cuda.is_available():
        capped = caps_scores(load_config(job.settings, job.weights))
        told["attn_implementation"] = attention_name(job.settings.attention, "cpu", dtype, capped=capped)
    try:
        with _quiet(), quiet_transformers():
            model, _ = unsloth.FastLanguageModel.from_pretrained(
                job.weights.location,
                revision=job.weights.revision,
                max_seq_length=job.max_length,
                dtype=getattr(torch, dtype),
                load_in_4bit=bits == "nf4",
                load_in_8bit=bits == "int8",
                trust_remote_code=job.settings.trust_remote_code,
                use_exact_model_name=True,  # else it loads a copy of its own from the Hub
                fix_tokenizer=False,  # its tokenizer is not used
                use_safetensors=True,
                **told,
            )
    except (OSError, ValueError, RuntimeError, NotImplementedError, ImportError, KeyError, TypeError) as error:
        raise RagFtError(
            f"model.weights={job.weights.reference}: Unsloth cannot load this model ({_first_line(error)}). "
            f"Set model.weights to one that it supports, or {OTHERWISE}."
        ) from error
    _refuse_another_precision(model, dtype, bits)
    return _with_masks(model) if job.masked else model


def _refuse_stretched_positions(job: ModelJob) -> None:
    from transformers import AutoConfig

    from rag_ft.models.weights import loading

    weights = job.weights
    with loading(weights.reference, "configuration"):
        config = AutoConfig.from_pretrained(
            weights.location, revision=weights.revision, trust_remote_code=job.settings.trust_remote_code
        )
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions and job.max_length > positions:
        raise RagFtError(
            f"training.max_length={job.max_length} is more than the {positions} positions of {weights.reference}, and "
            f"Unsloth would stretch them unasked. Set training.max_length={positions}, or {OTHERWISE}."
        )


def _refuse_another_precision(model: Any, dtype: str, bits: str) -> None:
    """Unsloth 2026.10 loads 8 bits on a CPU as 16, float16 there as bfloat16, and 4 bits as 16 where they fail."""
    loaded = "nf4" if getattr(model, "is_loaded_in_4bit", False) else "none"
    loaded = "int8" if getattr(model, "is_loaded_in_8bit", False) else loaded
    if loaded != bits:
        raise RagFtError(
            f"model.quantisation.kind={bits}: Unsloth loads these weights on this device as {loaded}. "
            f"Set model.quantisation.kind={loaded}, or {OTHERWISE}."
        )
    found = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    if bits == "none" and found != dtype:
        raise RagFtError(
            f"model.dtype={dtype}: Unsloth loads these weights on this device as {found}. "
            f"Set model.dtype={found}, or {OTHERWISE}."
        )


def _with_masks(model: Any) -> Any:
    """Let the attention take the masks of shared contexts and packed rows; the caller probes that it does.

    While training on CUDA, Unsloth's Llama-like layers drop every mask, since rows padded on the right need none. The
    flag, which Unsloth sets for its own reinforcement learning, keeps them; attention then goes through SDPA.
    """
    import torch

    if torch.cuda.is_available():
        model.base_model._unsloth_keep_padding_mask = True
        model.set_attn_implementation("sdpa")
    return model


def _refuse_deaf_attention(model: Any) -> None:
    if not honours_masks(model):
        raise RagFtError(
            "Unsloth's attention for this model ignores the masks that keep questions of a shared context and packed "
            "rows apart. Set data.contexts.questions_per_context=1 and training.batching=padded, or "
            f"{OTHERWISE}."
        )


def _with_kernels(model: Any, job: ModelJob) -> Any:
    """Put Unsloth's fused adapter kernels on a PEFT model; there are none for a CPU."""
    import unsloth

    patch = getattr(unsloth.FastLanguageModel, "patch_peft_model", None)
    if patch is None:
        return model
    with _quiet():
        return patch(model, use_gradient_checkpointing="unsloth" if job.gradient_checkpointing else False)


def keep_logits_at_positions(model: Any) -> Any:
    """Make a model compute logits at the positions `logits_to_keep` [kept] names, and there only; return it.

    Unsloth's forward on CUDA takes a count there and ignores positions: it would compute logits everywhere, and the
    loss would not fit its labels. The output layer therefore takes its input at the positions. Where the forward has
    picked them already, nothing is left to pick.
    """
    import torch

    wanted: list[Any] = [None]

    def remember(module: Any, args: Any, told: dict[str, Any]) -> None:
        wanted[0] = told.get("logits_to_keep")

    def pick(head: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, keep = args[0], wanted[0]
        picked = not isinstance(keep, torch.Tensor) or hidden.shape[1] == len(keep)
        return args if picked else (hidden[:, keep], *args[1:])

    model.get_base_model().register_forward_pre_hook(remember, with_kwargs=True)
    model.get_output_embeddings().register_forward_pre_hook(pick)
    return model


def keep_trl_defaults(config: Any) -> dict[str, Any]:
    """Give TRL's defaults back to an SFTConfig class that Unsloth wrote over TRL's; return those it had changed.

    Unsloth's class (on CUDA) has another optimizer, weight decay, warm-up and batching where nothing is said. A recipe
    would train differently without saying so.
    """
    stock = next(base for base in config.__mro__ if base.__module__ == "trl.trainer.sft_config")
    if stock is config:
        return {}
    told = inspect.signature(config.__init__).parameters
    values = {field.name: _default(field) for field in dataclasses.fields(stock) if field.init and field.name in told}
    changed = {name: value for name, value in values.items() if told[name].default != value}
    theirs = config.__init__

    def initialise(self: Any, *args: Any, **fields: Any) -> None:
        theirs(self, *args, **{**changed, **fields})

    config.__init__ = initialise
    return changed


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Unsloth's banners and hints out of our output; what it raises is reported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
