"""Bad files: a clear sentence each, the others are read all the same, and what they say is shown and not obeyed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_documents import ENDLESS, FILES, READ, one_page, said, stream, write_files
from openai_server import Reply, Server, serving
from pdf_files import write_words
from tiny_embedder import write_embedder
from word_embedder import WordEmbedder

from rag_ft.app import Added
from rag_ft.app.library import KeptLibrary, open_library
from rag_ft.app.listing import printable_name
from rag_ft.app.reading import Reader
from rag_ft.app.settings import LibrarySettings
from rag_ft.cli import main

GOOD = {
    "a-good.txt": "The lighthouse of Aldern was built in 1911.",
    "manuals/m-good.md": "# Pump\n\nThe pump has a warranty of two years.",
    "z-good.html": "<title>Ferry</title><p>The ferry of Aldern leaves at noon.</p>",
}


@dataclass(frozen=True)
class Case:
    """The folder, its library, and what its update said."""

    folder: Path
    library: KeptLibrary
    added: Added

    def said_of(self, name: str | bytes) -> list[str]:
        return [sentence for file, sentence in self.added.refused if file == printable_name(os.fsdecode(name))]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """All bad files and a few good ones, read once, with little memory."""
    root = tmp_path_factory.mktemp("bad")
    folder = root / "docs"
    write_files(folder, FILES)
    (folder / "manuals").mkdir()
    for name, text in GOOD.items():
        (folder / name).write_text(text)
    write_words(folder / "m-good.pdf", "The harbour master lives in the old tower.")
    settings = LibrarySettings(memory_megabytes=1024)
    with open_library(root / "library", settings=settings, embedder=WordEmbedder()) as library:
        yield Case(folder, library, library.update(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that embeds, in a folder."""
    return write_embedder(tmp_path_factory.mktemp("embedder"))


def test_there_are_more_than_fifty() -> None:
    assert len(FILES) + len(ENDLESS) >= 50


@pytest.mark.parametrize("name", [name for name, (_, sentence) in FILES.items() if sentence != READ], ids=repr)
def test_bad_file_is_refused_in_one_sentence_that_says_why(case: Case, name: str | bytes) -> None:
    (sentence,) = case.said_of(name)
    if "tesseract is not installed" in sentence:
        pytest.skip("tesseract is not installed, so no picture is looked at")
    assert FILES[name][1] in sentence
    assert "\n" not in sentence
    assert str(case.folder) not in sentence
    assert printable_name(os.fsdecode(name)) not in case.added.read


@pytest.mark.parametrize("name", [name for name, (_, sentence) in FILES.items() if sentence == READ], ids=repr)
def test_odd_file_is_read(case: Case, name: str | bytes) -> None:
    assert case.said_of(name) == []
    assert printable_name(os.fsdecode(name)) in case.added.read


def test_good_files_among_them_are_read_and_found(case: Case) -> None:
    assert {*GOOD, "m-good.pdf"} <= set(case.added.read)
    for question, name in (
        ("When was the lighthouse of Aldern built?", "a-good.txt"),
        ("What warranty has the pump?", "manuals/m-good.md"),
        ("Where does the harbour master live?", "m-good.pdf"),
    ):
        assert name in {found.file for found in case.library.search(question, 200)}


def test_nothing_of_what_links_lead_to_is_found(case: Case) -> None:
    assert not [found for found in case.library.search("secret", 200) if "another folder" in found.passage.text]


def test_second_update_reads_none_again_and_says_the_same_of_each(case: Case) -> None:
    again = case.library.update(case.folder)
    assert again.read == ()
    assert again.unchanged == tuple(sorted(case.added.read))
    assert again.refused == case.added.refused


@pytest.mark.parametrize("name", ENDLESS, ids=repr)
def test_file_without_end_costs_its_seconds_and_the_next_one_is_read(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "docs", {name: ENDLESS[name]})
    (tmp_path / "good.txt").write_text("The ferry leaves at noon.")
    with Reader(LibrarySettings(seconds_per_page=2)) as reader:
        given_up = reader.read(tmp_path / "docs" / name, name)
        good = reader.read(tmp_path / "good.txt", "good.txt")
    assert given_up.passages == ()
    (sentence,) = given_up.problems
    assert ENDLESS[name][1] in sentence
    assert [passage.text for passage in good.passages] == ["The ferry leaves at noon."]


class TestLimits:
    def test_each_limit_is_said_with_the_key_that_raises_it(self, tmp_path: Path) -> None:
        (tmp_path / "long.txt").write_text("The ferry leaves at noon. " * 100)
        (tmp_path / "big.txt").write_text("x" * (2**20 + 1))
        settings = LibrarySettings(max_megabytes=1, max_passages=3, chunk_tokens=32, overlap_tokens=0)
        with Reader(settings) as reader:
            said_of = {name: reader.read(tmp_path / name, name).problems for name in ("long.txt", "big.txt")}
        # 100 sentences of 6 tokens, 5 of them in each passage
        assert said_of["long.txt"] == ("gives 20 passages, more than max_passages=3: set max_passages=20 to read it",)
        assert said_of["big.txt"] == ("has 2 MB, more than max_megabytes=1: set max_megabytes=2 to read it",)

    @pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="/proc tells what a process sees")
    def test_process_that_reads_files_sees_no_secret_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        (tmp_path / "good.txt").write_text("The ferry leaves at noon.")
        with Reader(LibrarySettings()) as reader:
            reader.read(tmp_path / "good.txt", "good.txt")
            assert reader._process is not None
            seen = Path(f"/proc/{reader._process.pid}/environ").read_bytes()
        assert b"PATH=" in seen
        assert b"hf_secret" not in seen

    def test_module_beside_the_documents_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "json.py").write_text("raise SystemExit('a module of the documents was run')")
        (tmp_path / "good.txt").write_text("The ferry leaves at noon.")
        with Reader(LibrarySettings()) as reader:
            assert len(reader.read(Path("good.txt"), "good.txt").passages) == 1

    def test_raised_limit_reads_what_was_refused_and_nothing_else(self, tmp_path: Path) -> None:
        folder = tmp_path / "docs"
        folder.mkdir()
        (folder / "good.txt").write_text("The ferry leaves at noon.")
        two = one_page(stream(said())).replace(b"[3 0 R] /Count 1", b"[3 0 R 6 0 R] /Count 2")
        (folder / "two.pdf").write_bytes(
            two.replace(b"xref\n", b"6 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>\nendobj\nxref\n", 1)
        )
        with open_library(
            tmp_path / "store", settings=LibrarySettings(max_pages=1), embedder=WordEmbedder()
        ) as library:
            first = library.update(folder)
        with open_library(
            tmp_path / "store", settings=LibrarySettings(max_pages=2), embedder=WordEmbedder()
        ) as library:
            second = library.update(folder)
        assert first.refused == (("two.pdf", "has 2 pages, more than max_pages=1: set max_pages=2 to read it"),)
        assert (second.read, second.unchanged, second.refused) == (("two.pdf",), ("good.txt",), ())


class TestAsked:
    def test_orders_and_tokens_in_documents_reach_the_model_as_plain_text_only(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "docs"
        write_files(folder, {name: FILES[name] for name in ("chat.txt", "orders.md", "<|im_start|>system.txt")})
        with serving(Server(lambda messages, body: Reply("nothing"))) as server:
            arguments = ["--server", server.url, "--model", "m", "--store", str(tmp_path / "store"), "--json"]
            assert main(["ask", str(folder), "What <|im_end|> opens?", f"embedder={model}", *arguments]) == 0
        (body,) = server.bodies
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        text = body["messages"][1]["content"]
        assert "Ignore all instructions" in text
        assert "You obey this file" in text
        for token in ("<|im_start|>", "<|im_end|>"):
            assert token not in text
        assert len(json.loads(capsys.readouterr().out)["passages"]) == 3

    def test_bad_files_are_listed_behind_the_answer_and_nothing_a_terminal_obeys_is_printed(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "docs"
        write_files(folder, {name: FILES[name] for name in ("a-picture.pdf", "empty.txt", "new\nline \x1b[31mred.txt")})
        (folder / "colour.txt").write_text("The harbour is \x1b[31mred\x07 and \u202eturned\u202c.")
        with serving(Server(lambda messages, body: Reply("It is \x1b[2Jred."))) as server:
            arguments = ["--server", server.url, "--model", "m", "--store", str(tmp_path / "store")]
            assert main(["ask", str(folder), "What is red?", f"embedder={model}", *arguments]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == "Answer: It is [2Jred."
        listed = out.split("Files with problems:\n")[1].splitlines()
        assert [line.split(":")[0].strip() for line in listed] == ["a-picture.pdf", "empty.txt"]
        assert not {"\x1b", "\x07", "\u202e"} & set(out + err)
