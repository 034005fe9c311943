"""`export gguf`: one file for llama.cpp, and what Ollama needs to ask it as it was trained."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading as naming_failures
from data_builders.progress import Progress, quiet_transformers
from rag_ft.export.compare import Asked, Difference, check_agreement, check_tolerance
from rag_ft.export.folder import check_room, record, written_whole
from rag_ft.export.gguf_model import add_hyperparameters, context_length, family_of, tensors
from rag_ft.export.gguf_tokenizer import GgufTokenizer, add_tokenizer, read_tokenizer, tokenizer_of_gguf
from rag_ft.export.merged import (
    BYTES,
    Report,
    about_merge,
    check_mergeable,
    choose_loading,
    facts,
    merged_model,
    of_few_bits,
    weight_count,
)
from rag_ft.export.ollama import EXAMPLE, Served, write_guide, write_modelfile
from rag_ft.export.trained import Trained, with_variables
from rag_ft.memory import give_back
from rag_ft.models.gguf import PACKAGE_PREFIX, GgufFile, gguf_in_package
from rag_ft.models.load import load_config
from rag_ft.prompting.contract import FILE as CONTRACT_FILE
from rag_ft.prompting.render import render_prompt

_WHOLE = ("f32", "f16", "bf16")
_FINE = "q8_0"  # of embeddings and output layer, where the rest has fewer bits: they decide about words directly
_COARSE = ("q5_1", "q5_0", "q4_1", "q4_0")
_BITS = {
    **{"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 8.5, "q5_0": 8.5, "q4_1": 8.5, "q4_0": 8.5},
    **{"q6_k": 6.6, "q5_k_m": 6.6, "q5_k_s": 6.6, "q4_k_m": 6.6, "q4_k_s": 6.6},
}
"""At most, per weight: embeddings have 8.5 bits or 6.6, and in a small model they are most of it."""


def export_gguf(trained: Trained, folder: Path, report: Report) -> None:
    """Merge what a run has trained, write it as a GGUF file with Modelfile and a guide, and compare what it answers.

    Raises:
        RagFtError: llama.cpp has no such model, the disk is too full, or the file does not answer as the adapter does.
    """
    kind = trained.recipe.export.quantisation
    _check_tools(kind)
    check_mergeable(trained)
    config = load_config(trained.recipe.model, trained.weights)
    family_of(config)
    pieces = _tokenizer(trained).fitted(config.get_text_config().vocab_size)
    report(check_room(folder, _needed(trained, kind), f"the {kind} GGUF"))
    for line in about_merge(trained, kind):
        report(line)
    with written_whole(folder) as temporary:
        file = temporary / f"{trained.recipe.name}-{kind}.gguf"
        asked = _write(trained, pieces, file, report)
        give_back()
        found = asked.compared(_read_back(trained, file, config))
        report(f"{kind} compared with {'the run' if trained.full else 'the adapter'}: {found}")
        _check(found, trained)
        served = _served(trained, file.name, context_length(config))
        shutil.copyfile(trained.run.adapter / CONTRACT_FILE, temporary / CONTRACT_FILE)
        write_modelfile(served, temporary)
        write_guide(served, temporary)
        told = {"form": "gguf", **facts(trained), "quantisation": kind, "compared": found.facts()}
        record(temporary, told | of_few_bits(trained, asked, report))
        size = file.stat().st_size
    report(f"gguf: {folder / file.name}, {size / 1e6:.0f} MB")
    report(f"Ollama: cd {quote(str(folder))} && ollama create {trained.recipe.name} -f Modelfile")
    report(f"how to ask it: {folder / 'USE.md'}")


def _check_tools(kind: str) -> None:
    if find_spec("gguf") is None:
        raise RagFtError("export gguf: the package gguf is not installed. Install it with `pip install gguf`.")
    if "_k" in kind and find_spec("llama_cpp") is None:
        raise RagFtError(
            f"export.quantisation={kind}: llama.cpp makes k-quants, and llama-cpp-python is not installed. Install it "
            "with `pip install llama-cpp-python` (it compiles for minutes), or set export.quantisation=q8_0 or q4_0."
        )


def _check(found: Difference, trained: Trained) -> None:
    settings = trained.recipe.export
    if settings.quantisation in _WHOLE:
        check_tolerance(found, settings.tolerance)
    check_agreement(found, settings.agreement, "Take more bits, for example export.quantisation=q8_0 or f16")


def _needed(trained: Trained, kind: str) -> int:
    """Return the bytes that are written: k-quants are made from a whole file that is deleted afterwards."""
    weights = weight_count(trained)
    return int(weights * (_BITS[kind] / 8 + (BYTES["bfloat16"] if "_k" in kind else 0)))


def _tokenizer(trained: Trained) -> GgufTokenizer:
    """Return the tokenizer, from the GGUF file the base came from where there is one: llama.cpp made that itself."""
    from gguf import GGUFReader

    reference = trained.weights.reference
    if reference.startswith(PACKAGE_PREFIX):
        file = gguf_in_package(reference.removeprefix(PACKAGE_PREFIX))
    elif reference.endswith(".gguf"):
        path = Path(reference).expanduser()
        file = GgufFile(path.name, (path,))
    else:
        return read_tokenizer(trained.encoder.tokenizer)
    with _in_one_piece(file) as whole:
        return tokenizer_of_gguf(GGUFReader(whole))


@contextmanager
def _in_one_piece(file: GgufFile) -> Iterator[Path]:
    if len(file.parts) == 1:
        yield file.parts[0]
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / file.name
        with whole.open("wb") as stream:
            stream.writelines(file.blocks())
        yield whole


def _write(trained: Trained, pieces: GgufTokenizer, file: Path, report: Report) -> Asked:
    """Merge and write the file; return what the adapter answered to the eight prompts."""
    kind = trained.recipe.export.quantisation
    model, asked = merged_model(trained, choose_loading(trained))
    if "_k" not in kind:
        _write_model(trained, model, pieces, (file, kind), report)
        return asked
    whole = file.with_name(f".{file.name}")
    _write_model(trained, model, pieces, (whole, "bf16"), report)
    del model
    give_back()
    try:
        _requantise(whole, file, kind)
    finally:
        whole.unlink(missing_ok=True)
    return asked


def _write_model(trained: Trained, model: Any, pieces: GgufTokenizer, target: tuple[Path, str], report: Report) -> None:
    """Write a model as GGUF, tensor by tensor: no more than one of them is in memory twice."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    (file, kind), family = target, family_of(model.config)
    writer = GGUFWriter(file, family.architecture)
    writer.add_name(trained.recipe.name)
    writer.add_file_type(LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(2)
    add_hyperparameters(writer, model.config)
    template = with_variables(trained.encoder.tokenizer.chat_template, trained.recipe.model.chat_template_kwargs)
    add_tokenizer(writer, pieces, trained.encoder.tokenizer, trained.encoder.end[-1], template)
    written = [(one, GGMLQuantizationType[type_of(one.name, one.shape, kind)]) for one in tensors(model, family)]
    for one, type_ in written:
        block, size = GGML_QUANT_SIZES[type_]
        count = 1
        for length in one.shape:
            count *= length
        writer.add_tensor_info(one.name, one.shape, None, count // block * size, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with Progress("tensors written", len(written), report) as progress:
        for one, type_ in written:
            writer.write_tensor_data(quantize(one.values(), type_))
            progress.advance(1)
    writer.close()


def type_of(name: str, shape: tuple[int, ...], kind: str) -> str:
    """Return the type of a tensor: vectors stay whole, rows that blocks do not divide have 16 bits.

    Args:
        name: as the GGUF has it.
        shape: of the tensor.
        kind: what the recipe asks for.
    """
    if len(shape) == 1:
        return "F32"
    if kind not in _WHOLE and shape[-1] % 32:
        return "F16"
    return _FINE.upper() if kind in _COARSE and name in ("token_embd.weight", "output.weight") else kind.upper()


def _requantise(whole: Path, file: Path, kind: str) -> None:
    """Let llama.cpp make k-quants of a whole GGUF.

    Raises:
        RagFtError: it fails.
    """
    import ctypes

    from gguf import LlamaFileType

    llama_cpp: Any = import_module("llama_cpp")
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # a line for each tensor otherwise
    told = llama_cpp.llama_model_quantize_default_params()
    told.ftype = LlamaFileType[f"MOSTLY_{kind.upper()}"].value
    failed = llama_cpp.llama_model_quantize(str(whole).encode(), str(file).encode(), ctypes.byref(told))
    if failed:
        raise RagFtError(f"llama.cpp cannot make {kind} of this model. Set export.quantisation=q8_0 or q4_0.")


def _read_back(trained: Trained, file: Path, config: Any) -> Any:
    """Load the file with transformers, which reads the tensors on its own, but not every hyperparameter."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    silence = redirect_stderr(io.StringIO())  # a progress bar that listens to no setting
    with quiet_transformers(), silence, naming_failures(file.name, "GGUF just written", "export gguf"):
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            config=_as_llama(config) if config.model_type == "mistral" else config,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            attn_implementation="eager" if config.model_type == "gemma2" else "sdpa",
        )
    return model.eval()


def _as_llama(config: Any) -> Any:
    """Return a Mistral's configuration as that of a Llama, by which name GGUF knows it; a window is left out."""
    from transformers import LlamaConfig

    told = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "sliding_window")}
    return LlamaConfig(**told)


def _served(trained: Trained, file: str, reach: int) -> Served:
    recipe, encoder = trained.recipe, trained.encoder
    answer = recipe.evaluation.longest_output(recipe.model.prompt.style)
    wanted = recipe.export.context or recipe.training.max_length + answer
    return Served(
        name=recipe.name,
        file=file,
        frame=encoder.frame,
        system=encoder.system_text(),
        example=render_prompt(*EXAMPLE, recipe.model.prompt).user,
        end=encoder.tokenizer.decode(encoder.end[-1:]),
        context=min(wanted, reach),
        answer=answer,
    )
