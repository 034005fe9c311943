"""Which files of a run leave this machine, as they are sent: an allow-list of names, checked one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.export.push_scan import Finding, Places, Secrets

LARGEST = 50 * 10**9
"""Bytes; the Hub takes no larger file (huggingface.co/docs/hub/storage-limits)."""
CONFIG_FILE = "adapter_config.json"

_TEXTS = (
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "export.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors.index.json",
    "Modelfile",
    "USE.md",
    "prompt.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_CONFIGURATIONS = ("adapter_config.json", "config.json", "export.json", "prompt.json", "tokenizer_config.json")
_BINARIES = ("accuracy.png", "adapter_model.safetensors", "model.safetensors", "tokenizer.model")
_SHARDS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|[\w.-]+\.gguf")
_WEIGHTS = re.compile(r".*\.(safetensors|gguf)")
_WORDS_OF_GGUF = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
_VOCABULARIES = ("merges.txt", "tokenizer.json", "vocab.json", "vocab.txt")  # words, among them parts of paths


@dataclass(frozen=True)
class PushFile:
    """One file of an upload: its path in the repository, and where its bytes are or what they are."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        """Return the bytes; for texts, which are small."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True)
class Gathered:
    """What is sent of a folder, and the names of what stays here."""

    files: tuple[PushFile, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def text_file(path: str, text: str) -> PushFile:
    """Return a file with this text."""
    return PushFile(path, text.encode())


def json_file(path: str, value: Any) -> PushFile:
    """Return a file with this value as indented JSON."""
    return text_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def folder_files(folder: Path, remedy: str) -> Gathered:
    """Return the files of an adapter's or an exported folder that are on the list of names; nothing below it is.

    README.md is not among them, since each push writes it anew.

    Args:
        folder: where it lies.
        remedy: the command that makes it.

    Raises:
        RagFtError: the folder is not there, a listed file is a link, or weights are not what their name says.
    """
    if not folder.is_dir():
        raise RagFtError(f"{folder} does not exist, so there is nothing to push. Make it with `{remedy}`.")
    files, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name in (*_TEXTS, *_BINARIES) or _SHARDS.fullmatch(path.name):
            checked = _checked(path, remedy)
            # a text is read once: what is searched for secrets is what is sent
            files.append(PushFile(path.name, checked.read_bytes() if path.name in _TEXTS else checked))
        elif path.name != "README.md":
            left_out.append(f"{path.name}/" if path.is_dir() else path.name)
    if not any(_WEIGHTS.fullmatch(file.path) for file in files):
        raise RagFtError(
            f"{folder} holds no weights as .safetensors or .gguf, and nothing else is pushed. Make them with "
            f"`{remedy}`."
        )
    return Gathered(tuple(files), tuple(left_out))


def _checked(path: Path, remedy: str) -> Path:
    if path.is_symlink() or not path.is_file():
        raise RagFtError(
            f"{path} is a link or no file, so it is not sent: what it points at may be anything. Put the file itself "
            f"there, or make the folder anew with `{remedy}`."
        )
    if path.stat().st_size > LARGEST:
        raise RagFtError(
            f"{path} has {size_text(path.stat().st_size)}, and the Hub takes files of up to {size_text(LARGEST)}. "
            "Export it in smaller files, or quantised."
        )
    if reason := _broken(path):
        raise RagFtError(f"{path} {reason}. Make it anew with `{remedy}`.")
    return path


def _broken(path: Path) -> str | None:
    """Say what is wrong with weights that are not what their name says; cut short they are found too."""
    if path.suffix == ".gguf":
        return _broken_gguf(path)
    if path.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            return None if list(opened.keys()) else "holds no tensor"
    except (SafetensorError, OSError) as error:
        return f"is no whole safetensors file ({str(error).splitlines()[0]})"


def _broken_gguf(path: Path) -> str | None:
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            return "is no GGUF file"
    try:
        _texts_of_gguf(path)
    except RagFtError:
        raise
    except Exception as error:  # the reader trusts the file, and fails in whatever way
        return f"is no whole GGUF file ({type(error).__name__})"
    return None


def _texts_of_gguf(path: Path) -> str:
    """Return the free text in a GGUF's header: names, template, whatever was added; not the tokenizer's words."""
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError as error:
        raise RagFtError(
            "a push of GGUF files needs the package gguf, which is not installed. Run `pip install "
            "'rag-ft[quickstart]'`."
        ) from error
    found = GGUFReader(path).fields
    texts = [one for name, one in found.items() if GGUFValueType.STRING in one.types and name not in _WORDS_OF_GGUF]
    return "\n".join(f"{one.name}: {one.contents()}" for one in texts)


def with_hub_base(files: Iterable[PushFile], base: str | None, revision: str | None, places: Places) -> list[PushFile]:
    """Return the files with their configuration as others can use it: no local path, the base model by its Hub id.

    PEFT writes down where the base was loaded from, which for a converted or local one is a folder of this machine.

    Args:
        files: those of a folder.
        base: the base model's Hub id; None where it has none, and the folder's bare name is written.
        revision: its commit.
        places: folders of this machine.

    Raises:
        RagFtError: a configuration is damaged.
    """
    known = {"base_model_name_or_path": base, "revision": revision} if base else {}

    def changed(file: PushFile) -> PushFile:
        if file.path not in _CONFIGURATIONS:
            return file
        try:
            before = json.loads(file.read())
            after = places.without({**before, **(known if file.path == CONFIG_FILE else {})})
        except (ValueError, TypeError, RecursionError) as error:
            raise RagFtError(f"{file.path} is damaged. Make its folder anew.") from error
        return file if after == before else json_file(file.path, after)

    return [changed(file) for file in files]


def public_manifest(manifest: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Return a step's manifest without rows of the data it tells of and without local paths."""
    private = ("excerpts", "samples")
    shown: dict[str, Any] = places.without({key: value for key, value in manifest.items() if key not in private})
    return shown


def refuse_secrets(files: Sequence[PushFile], secrets: Secrets, places: Places, say: Callable[[str], None]) -> None:
    """Read every text about to be sent and refuse all that holds a secret or names a folder of this machine.

    Args:
        files: what is about to be sent.
        secrets: values that may not be sent.
        places: folders that may not be named.
        say: takes a line for each finding.

    Raises:
        RagFtError: something was found; it names file and place of all, never what stands there.
    """
    found = [
        f"{file.path}, {finding.where}: {finding.what}"
        for file in files
        for finding in _findings(file, secrets, places)
    ]
    if not found:
        return
    for line in found[1:]:
        say(f"  refused too: {line}")
    more = f" ({len(found) - 1} more above)" if len(found) > 1 else ""
    raise RagFtError(
        f"{found[0]}{more}: it is not sent. Take it out of the file or recipe it comes from, and where a secret was "
        "written down make a new one; then repeat the command."
    )


def _findings(file: PushFile, secrets: Secrets, places: Places) -> Iterator[Finding]:
    if file.path.endswith(".parquet") and isinstance(file.content, Path):
        yield from secrets.found_in_rows(file.content)
    if (text := _text(file)) is not None:
        yield from secrets.found(text)
        if file.path not in _VOCABULARIES:
            yield from places.found(text)


def _text(file: PushFile) -> str | None:
    """Return a file's text; of weights the header, which carries free text too; None for other binaries."""
    if file.path.endswith(".safetensors") and isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            return stream.read(min(length, 100_000_000)).decode("utf-8", "replace")
    if file.path.endswith(".gguf") and isinstance(file.content, Path):
        return _texts_of_gguf(file.content)
    binary = (*_BINARIES, ".gguf", ".parquet", ".png", ".model")
    return None if file.path.endswith(binary) else file.read().decode("utf-8", "replace")


def size_text(size: int) -> str:
    """Return bytes as a person reads them: 1,234 becomes "1.2 kB"."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
