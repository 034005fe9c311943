"""`export merged`: base weights with the adapter added to them, as one model that needs no PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.progress import quiet_transformers
from rag_ft.export.compare import Asked, ask, check_agreement, check_tolerance
from rag_ft.export.folder import check_room, record, written_whole
from rag_ft.export.trained import Trained, copy_tokenizer, hub_id, shown_name
from rag_ft.generation.choose import stop_ids
from rag_ft.memory import give_back
from rag_ft.models.load import best_device, load_adapter, load_config, load_model
from rag_ft.models.settings import ModelSettings
from rag_ft.models.tuned import in_folder, load_tuned
from rag_ft.prompting.contract import FILE as CONTRACT_FILE

Report = Callable[[str], None]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SLOW_WITHOUT_GPU = 10**9  # weights
_ROOM = 1.3  # times the weights: the adapter, activations, one layer twice while it is merged


def export_merged(trained: Trained, folder: Path, report: Report) -> None:
    """Merge the adapter of a run into its base weights and save the model, or copy weights trained in full.

    Raises:
        RagFtError: the base is quantised, the disk too full, or what was saved does not answer as the adapter does.
    """
    check_mergeable(trained)
    needed = weight_count(trained) * BYTES[trained.dtype]
    report(check_room(folder, needed, "the merged model"))
    for line in about_merge(trained, trained.dtype):
        report(line)
    with written_whole(folder) as temporary:
        asked, loaded = _save_merged(trained, temporary)
        give_back()
        found = asked.compared(load_model(loaded.settings, in_folder(trained.weights, temporary), loaded.device).eval())
        report(f"compared with {'the run' if trained.full else 'the adapter'}: {found}")
        check_tolerance(found, trained.recipe.export.tolerance)
        check_agreement(found, trained.recipe.export.agreement, "Set export.dtype=float32, which rounds less")
        told = {"form": "merged", **facts(trained), "dtype": trained.dtype, "compared": found.facts()}
        record(temporary, told | of_few_bits(trained, asked, report))
    report(f"merged: {folder}")


def check_mergeable(trained: Trained) -> None:
    """Refuse base weights that an adapter cannot be added to.

    Raises:
        RagFtError: their files hold them in few bits, or the adapter holds what quantisation took away.
    """
    model = trained.recipe.model
    if not trained.full and model.lora.initialisation == "loftq":
        raise RagFtError(
            "model.lora.initialisation=loftq: the adapter holds what nf4 took away from the base, so that it fits the "
            "nf4 weights alone. Take `rag-ft export RECIPE adapter` and load the base in nf4, or train with "
            "model.lora.initialisation=zero."
        )
    if getattr(load_config(model, trained.weights), "quantization_config", None):
        raise RagFtError(
            f"model.weights={model.weights}: its files hold the weights in few bits, and merging would round the "
            "adapter away. Take `rag-ft export RECIPE adapter`, or train on the weights this was made from, with "
            "model.quantisation.kind=nf4 to fit them."
        )


def about_merge(trained: Trained, saved_as: str) -> list[str]:
    """Return lines that say what is merged into what, and in which type or quantisation it is saved."""
    if trained.full:
        return [f"all weights were trained: nothing is merged, they are saved as {saved_as}"]
    weights, kind = trained.weights, trained.recipe.model.quantisation.kind
    at = f" at {weights.revision}" if weights.revision else ""
    lines = [f"merged into {shown_name(weights.reference)}{at}, saved as {saved_as}"]
    if kind != "none":
        lines.append(
            f"note: the adapter was trained on {kind} weights and is merged into the full ones, which are closer to "
            "what the model learned than weights made of so few bits; it is compared with the adapter on these"
        )
    return lines


def weight_count(trained: Trained) -> int:
    """Return the number of weights of the base model, read off its configuration; tied ones count once."""
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(trained.recipe.model, trained.weights)
    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trained.recipe.model.trust_remote_code)
    return sum(each.numel() for each in model.parameters())


@dataclass(frozen=True)
class Loading:
    """How models are loaded to be merged and compared.

    Attributes:
        settings: with the type that is computed in.
        device: as torch calls it.
    """

    settings: ModelSettings
    device: str


def choose_loading(trained: Trained) -> Loading:
    """Return how to load the model: in float32, where a merge is exact, if memory allows; on the CPU if it must."""
    weights = weight_count(trained)
    ways = [(device, dtype) for device in (best_device(), "cpu") for dtype in ("float32", trained.dtype)]
    fitting = (way for way in ways if weights * BYTES[way[1]] * _ROOM < free_memory(way[0]))
    device, dtype = next(fitting, ways[-1])
    return Loading(trained.settings(dtype), device)


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device."""
    import torch

    if device != "cpu":
        return int(torch.cuda.mem_get_info(device)[0])
    psutil: Any = import_module("psutil")  # comes with accelerate
    return int(psutil.virtual_memory().available)


def merged_model(trained: Trained, loading: Loading) -> tuple[Any, Asked]:
    """Load base and adapter, ask them the eight prompts and merge them in place; return the model and what it said."""
    settings, folder = loading.settings, trained.run.adapter
    weights = in_folder(trained.weights, folder) if trained.full else trained.weights
    model = load_model(settings, weights, loading.device).eval()
    if not trained.full:
        model = load_adapter(model, folder)
    asked = ask(model, trained.encoder)
    if not trained.full:
        # PEFT knows how to add LoRA, rsLoRA, DoRA and modules trained in full; PiSSA is an ordinary adapter by now
        model = model.merge_and_unload(safe_merge=True)
    _ends_as_trained(model, trained)
    return model, asked


def of_few_bits(trained: Trained, asked: Asked, report: Report) -> dict[str, Any]:
    """Say how far the adapter on the quantised weights it was trained on is from that on the full ones: what a merge
    changes. Nothing where the base was not quantised, or is too large to be asked without a GPU.
    """
    kind = trained.recipe.model.quantisation.kind
    slow = best_device() == "cpu" and weight_count(trained) > _SLOW_WITHOUT_GPU
    if trained.full or kind == "none" or slow:
        return {}
    give_back()
    found = asked.compared(load_tuned(trained.recipe.model, trained.weights, trained.run.adapter))
    report(f"on {kind} weights, as in training, the adapter itself is this far off: {found}")
    return {f"adapter on {kind}": found.facts()}


def _ends_as_trained(model: Any, trained: Trained) -> None:
    """Let the model stop at the end of turn it was trained with, and answer greedily, as it was measured."""
    from transformers import GenerationConfig

    tokenizer = trained.encoder.tokenizer
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(stop_ids(model, trained.encoder)),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )


def _save_merged(trained: Trained, folder: Path) -> tuple[Asked, Loading]:
    """Write model, tokenizer and prompt contract; return what the adapter said to the eight prompts, loaded how."""
    import torch

    loading = choose_loading(trained)
    model, asked = merged_model(trained, loading)
    source = trained.run.adapter
    if trained.full:
        for path in [*source.glob("*.safetensors"), *source.glob("*.index.json"), source / "config.json"]:
            shutil.copyfile(path, folder / path.name)
        model.generation_config.save_pretrained(folder)
    else:
        with quiet_transformers():
            model.to(getattr(torch, trained.dtype)).save_pretrained(folder)
    copy_tokenizer(source, folder, trained.recipe.model.chat_template_kwargs)
    shutil.copyfile(source / CONTRACT_FILE, folder / CONTRACT_FILE)
    return asked, loading


def facts(trained: Trained) -> dict[str, Any]:
    """Return what an export's record says of where it came from; no path of this machine."""
    weights = trained.weights
    base = {"name": shown_name(weights.reference), "hub_id": hub_id(weights.reference), "revision": weights.revision}
    return {"name": trained.recipe.name, "base": base}
