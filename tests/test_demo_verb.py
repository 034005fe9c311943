"""`rag-ft demo` as a command: what it refuses in one sentence, and a whole visit over a real library and a server."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from demo_visitor import Visitor, text_file
from openai_server import Reply, Server, serving
from tiny_embedder import write_embedder

pytest.importorskip("gradio", reason="the demo needs gradio: pip install 'rag-ft[demo]'")
pytest.importorskip("chromadb", reason="the demo needs chromadb: pip install 'rag-ft[demo]'")

from rag_ft.app.demo_words import WORDS


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "there is no file and no folder nowhere"),
            ([".", ".."], ". and ..: give one folder of documents"),
            (["chunk_token=3"], "chunk_token: there is no such setting of a library; did you mean chunk_tokens?"),
            (["--run", "x", "--adapter", "y"], "--adapter y and --run x name two adapters"),
            (["--run", "x"], "--run x: there is no run in x or runs/x"),
            (["--server", "http://127.0.0.1:9/v1"], "--model NAME is missing"),
            (["--adapter", "a/b", "--model", "m"], "Give its address as --server URL"),
            (["--adapter", "nowhere"], "--adapter nowhere: no such folder"),
            (["--store", "there"], "--store there keeps the library of documents for everyone: name their folder too"),
            (
                ["--server", "http://127.0.0.1:9/v1", "--model", "m", "--compare-base"],
                "which model is the base on http://127.0.0.1:9/v1? Add --base-model NAME.",
            ),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_cannot_be_served_is_one_sentence(self, refused, tmp_path, monkeypatch, arguments, message):
        (tmp_path / "a.txt").write_text("Something.")
        monkeypatch.chdir(tmp_path)
        assert message in refused("demo", *arguments)

    def test_base_of_whole_weights_cannot_be_compared(self, refused, tiny_weights):
        message = refused("demo", "--adapter", tiny_weights, "--allow-prompt-mismatch", "--compare-base")
        assert "no adapter" in message
        assert "--base-model b goes with --server" in refused(
            "demo", "--adapter", tiny_weights, "--allow-prompt-mismatch", "--base-model", "b"
        )


def answers(messages, body):
    """The base model answers something else."""
    return Reply("They are hot." if body["model"] == "base" else "green [1]")


class TestVisit:
    @pytest.fixture(scope="class")
    def embedder(self, tmp_path_factory):
        return write_embedder(tmp_path_factory.mktemp("embedder"))

    def test_documents_are_asked_over_a_server_and_a_polite_kill_deletes_what_was_added(self, embedder, tmp_path):
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "flag.txt").write_text("The flag of Aldo is red and blue, as everyone can see there.")
        (tmp_path / "shared" / "letter.docx").write_bytes(b"PK")
        with serving(Server(answers)) as server:
            options = ["--server", server.url, "--model", "tuned", "--base-model", "base", "--port", "0"]
            options += ["--store", "kept"]
            with Started(tmp_path, "shared", f"embedder={embedder}", *options, "--host", "0.0.0.0") as (url, told):
                assert any(line.startswith("warning: whoever can reach port") for line in told)
                assert any(line.startswith("  letter.docx: is a .docx file, which is not read") for line in told)
                assert (tmp_path / "kept" / "library.sqlite").is_file()
                with Visitor(url) as visitor:
                    assert "flag.txt" in visitor.shown["documents"]
                    visitor.upload(text_file("own.txt", "The flag of Bexa is green, and its town is black."))
                    visitor.ask("Which flag is green?", compare=True)
                    assert "own.txt" in visitor.shown["passages"]
                    assert "flag.txt" in visitor.shown["passages"]
                    assert "green [" in visitor.shown["turn"]
                    assert "They are hot." in visitor.shown["turn"]
                    assert WORDS["en"]["failed"] not in visitor.raw
                with Visitor(url) as other:
                    other.ask("Which flag is green?")
                    assert "own.txt" not in other.raw
        assert told[-1] == "ended; what was added is deleted"
        assert list((tmp_path / "tmp").iterdir()) == []


class Started:
    """The verb in a process of its own, until the block ends; gives its address and the lines it told so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "tmp").mkdir()
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "RAG_FT_CACHE": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rag_ft", "demo", *arguments],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.told: list[str] = []
        self.open = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.told.append(line.rstrip("\n"))
            if " is open; " in line:
                self.open.set()
        self.open.set()

    def __enter__(self):
        assert self.open.wait(timeout=300)
        url = next((re.match(r"(http://\S+) is open", line) for line in self.told if " is open; " in line), None)
        assert url, "\n".join(self.told)
        return url[1].replace("0.0.0.0", "127.0.0.1"), self.told

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0
        self.reader.join(timeout=10)
