"""`rag-ft push --what gguf`: the file with what Ollama needs, whole, and without what must not leave the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import yaml
from gguf import GGUFWriter
from hub_push_server import Hub, used_by_client
from tiny_model import copied_run

from rag_ft.export.card_facts import CardFacts
from rag_ft.export.card_metadata import card_metadata
from rag_ft.prompting.settings import PromptSettings

Verb = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture
def recipe(tiny_weights: Path, trained_run: Path, tmp_path: Path) -> Path:
    return copied_run(tmp_path, tiny_weights, trained_run, export={"licence": "mit"})


@pytest.fixture
def run(recipe: Path) -> Path:
    return recipe.parent / "runs/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with used_by_client(Hub(), monkeypatch) as served:
        yield served


def gguf_file(path: Path, note: str = "") -> Path:
    """Write a small GGUF whose tokenizer has words that look like folders."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_token_list(["/tmp", "/home/someone", str(Path.cwd())])
    if note:
        writer.add_string("quantize.imatrix.dataset", note)
    writer.add_tensor("token_embd.weight", numpy.ones((4, 64), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_is_sent_with_its_modelfile_and_names_its_file(
    hub: Hub, recipe: Path, run: Path, run_verb: Verb
) -> None:
    folder = run / "export/gguf"
    folder.mkdir(parents=True)
    gguf_file(folder / "tiny-q8_0.gguf")
    (folder / "Modelfile").write_text("FROM ./tiny-q8_0.gguf\n")
    (folder / "export.json").write_text('{"form": "gguf"}')
    code, out, err = run_verb("push", recipe, "--repo", "me/small", "--what", "gguf")
    assert code == 0, out + err
    files = hub.files("me/small")
    assert {"tiny-q8_0.gguf", "Modelfile", "prompt.json", "README.md"} <= set(files)
    card = files["README.md"].decode()
    assert "llama-server -m ./small/tiny-q8_0.gguf" in card
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "gguf"


def test_a_gguf_is_not_listed_as_the_base_model_in_fewer_bits() -> None:
    facts = CardFacts("example", "org/model", PromptSettings(), "jsonl", {}, {}, form="gguf")
    found = card_metadata(None, facts)
    assert (found["base_model"], found["base_model_relation"]) == ("org/model", "finetune")


def test_a_file_that_only_calls_itself_gguf_is_refused(recipe: Path, run: Path, refused: Refused) -> None:
    folder = run / "export/gguf"
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(b"PK\x03\x04")
    (folder / "export.json").write_text("{}")
    assert "is no GGUF file" in refused("push", recipe, "--repo", "me/small", "--what", "gguf", "--dry-run")
    whole = gguf_file(folder / "tiny.gguf").read_bytes()
    (folder / "tiny.gguf").write_bytes(whole[:-64])
    assert "is no whole GGUF file" in refused("push", recipe, "--repo", "me/small", "--what", "gguf", "--dry-run")


@pytest.mark.parametrize(
    ("text", "told"),
    [("AKIA" + "Z2Y3" * 4, "an access key of AWS"), ("{run}/calibration.txt", "the name of a folder")],
    ids=["secret", "folder"],
)
def test_what_must_not_leave_is_found_in_the_header_of_a_gguf_but_not_among_its_words(
    recipe: Path, run: Path, refused: Refused, run_verb: Verb, text: str, told: str
) -> None:
    folder = run / "export/gguf"
    folder.mkdir(parents=True)
    (folder / "export.json").write_text("{}")
    push = ("push", recipe, "--repo", "me/small", "--what", "gguf", "--dry-run")
    gguf_file(folder / "tiny.gguf")
    assert run_verb(*push)[0] == 0
    gguf_file(folder / "tiny.gguf", text.format(run=run))
    assert f"tiny.gguf, line 3: {told}" in refused(*push)
