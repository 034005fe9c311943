"""`rag-ft ask`: what it prints, in which order passages are shown, exit codes, and what it says of mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from openai_server import Messages, Reply, Server, serving
from pdf_files import write_words
from tiny_embedder import write_embedder
from word_embedder import WordEmbedder

from rag_ft.app.ask import answer, seek
from rag_ft.app.library import open_library
from rag_ft.app.settings import LibrarySettings
from rag_ft.app.words import answer_lines
from rag_ft.cli import main
from rag_ft.generator import load_generator
from rag_ft.prompting.contract import PromptContract
from rag_ft.prompting.render import prompt_hash
from rag_ft.prompting.settings import PromptSettings

REASONED = """Relevance:
[1] yes: it is about the ferry
[2] no: it is about a lighthouse
Evidence:
[1] "The ferry leaves at noon.": it gives the time
[2] "The lighthouse sails at noon.": it is invented
Analysis: The first passage gives the time.
Answer: at noon"""

Asked = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that embeds."""
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two documents."""
    root = tmp_path / "docs"
    root.mkdir()
    (root / "aldern.txt").write_text("The lighthouse of Aldern was built in 1911.")
    (root / "ferry.md").write_text("# Ferry\n\nThe ferry leaves at noon.")
    return root


@pytest.fixture
def asked(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    """Asks over the documents and a server that writes `reply`; returns exit code, stdout, stderr."""

    def ask(*more: str, reply: str | Callable[[Messages], str] = "at noon", question: str = "When?") -> tuple:
        write = reply if callable(reply) else lambda messages: reply
        with serving(Server(lambda messages, body: Reply(write(messages)))) as server:
            store = ["--store", str(folder.parent / "store")]
            options = ["--server", server.url, "--model", "m", *store, *more]
            code = main(["ask", str(folder), question, f"embedder={model}", *options])
        return code, *capsys.readouterr()

    return ask


def contract(folder: Path, style: str) -> str:
    """Write the prompt contract of an adapter trained in a style; return its folder."""
    settings = PromptSettings(style=style)
    folder.mkdir()
    PromptContract(prompt_hash(settings), "none", settings.model_dump(), {}, "").write(folder)
    return str(folder)


def shown(messages: Messages) -> list[str]:
    """Return the titles of the passages in a prompt, in their order."""
    return [line.split("] ")[1] for line in messages[-1]["content"].splitlines() if line.startswith("[")]


class TestAnswer:
    def test_answer_is_printed_with_its_passages_and_nothing_else_on_stdout(self, asked: Asked) -> None:
        code, out, err = asked("--passages", "2")
        assert code == 0
        lines = out.splitlines()
        assert lines[:3] == ["Answer: at noon", "", "Passages, in the order the model saw them:"]
        assert {line.split()[1] for line in lines[3:] if line.startswith("  [")} == {"aldern.txt", "ferry.md"}
        assert "2 passages of 2 files: 2 read, 0 unchanged, 0 removed, 0 with problems" in err

    def test_second_question_reads_nothing_again(self, asked: Asked) -> None:
        asked()
        assert "0 read, 2 unchanged" in asked()[2]

    def test_abstention_is_said_plainly_with_exit_code_1(self, asked: Asked) -> None:
        code, out, _ = asked(reply="The passages do not say.")
        assert code == 1
        assert out.splitlines()[0] == "No answer: the model says that the passages do not hold one."

    def test_silence_is_no_answer(self, asked: Asked, tmp_path: Path) -> None:
        code, out, _ = asked("--adapter", contract(tmp_path / "a", "reasoning"), reply="Answer:")
        assert code == 1
        assert out.startswith("No answer: what the model wrote holds none")

    def test_folder_without_a_passage_is_no_answer_and_the_model_is_not_asked(self, asked: Asked, folder: Path) -> None:
        for path in folder.iterdir():
            path.write_text(" ")

        def never(messages: Messages) -> str:
            raise AssertionError("asked without passages")

        code, out, _ = asked(reply=never)
        assert code == 1
        assert out.splitlines()[0] == "No answer: the documents hold no passage."
        assert "  aldern.txt, ferry.md: has no text" in out.splitlines()

    def test_reasoned_answer_has_evidence_with_file_and_judgements(self, asked: Asked, tmp_path: Path) -> None:
        order: list[str] = []

        def reply(messages: Messages) -> str:
            order.extend(shown(messages))
            return REASONED

        _, out, _ = asked("--adapter", contract(tmp_path / "a", "self_reasoning"), reply=reply)
        files = [{"aldern": "aldern.txt", "Ferry": "ferry.md"}[title] for title in order]
        assert out.splitlines()[0] == "Answer: at noon"
        assert f'  [2] {files[1]}: "The lighthouse sails at noon." (it is invented)\n      Beware: ' in out
        ferry = files.index("ferry.md") + 1
        assert ("Beware" in out.split(f"[1] {files[0]}: ")[1].splitlines()[1]) == (ferry != 1)
        assert "Analysis: The first passage gives the time." in out
        passages = out.split("Passages, in the order the model saw them:\n")[1].splitlines()
        assert passages[1::3] == [
            "      relevant: it is about the ferry",
            "      not relevant: it is about a lighthouse",
        ]

    def test_json_has_everything(self, asked: Asked, tmp_path: Path) -> None:
        code, out, _ = asked("--json", "--adapter", contract(tmp_path / "a", "self_reasoning"), reply=REASONED)
        found = json.loads(out)
        assert code == 0
        assert found["answer"] == "at noon"
        assert found["analysis"] == "The first passage gives the time."
        assert [one["relevant"] for one in found["passages"]] == [True, False]
        first = found["passages"][0]["file"]
        assert [one["verbatim"] for one in found["citations"]] == [first == "ferry.md", False]
        assert found["files"]["read"] == ["aldern.txt", "ferry.md"]
        assert set(found["seconds"]) == {"update", "search", "answer"}

    def test_prompt_is_shown_as_it_was_sent(self, asked: Asked) -> None:
        sent: list[str] = []

        def reply(messages: Messages) -> str:
            sent.extend(message["content"] for message in messages)
            return "at noon"

        _, out, _ = asked("--show-prompt", reply=reply)
        assert out.startswith(f"--- system\n{sent[0]}\n--- user\n{sent[1]}\n---\nAnswer: at noon\n")


class TestOrder:
    @pytest.mark.parametrize(("order", "places"), [("retrieved", [0, 1, 2, 3]), ("reordered", [0, 2, 3, 1])])
    def test_best_passages_stand_at_both_ends_unless_told_otherwise(
        self, asked: Asked, folder: Path, order: str, places: list[int]
    ) -> None:
        (folder / "a.txt").write_text("blue")
        (folder / "b.txt").write_text("green black")
        found = json.loads(asked("--json", "--order", order, question="blue flag")[1])["passages"]
        scores = [one["score"] for one in found]
        ranked = sorted(scores, reverse=True)
        assert scores == [ranked[place] for place in places]
        assert [one["number"] for one in found] == [1, 2, 3, 4]

    def test_only_as_many_passages_are_shown_as_asked_for(self, asked: Asked) -> None:
        assert len(json.loads(asked("--json", "-k", "1")[1])["passages"]) == 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["nowhere", "When?"], "there is no file and no folder nowhere. Give a folder of documents"),
            (["docs", " "], "the question is empty. Write it in quotes"),
            (["docs", "When?", "--server", "http://127.0.0.1:1/v1"], "--model NAME is missing"),
            (["docs", "When?", "--model", "m"], "--server URL is missing"),
            (["docs", "When?", "--adapter", "a", "--run", "b"], "name two adapters. Give one of them."),
            (["docs", "When?", "--run", "b"], "--run b: there is no run in b or runs/b. Give the run's folder."),
            (["docs", "When?", "--adapter", "./a"], "./a"),
            (["docs", "When?", "chunk_token=5"], "did you mean chunk_tokens?"),
        ],
    )
    def test_mistake_is_one_sentence_with_exit_code_2(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments, said
    ) -> None:
        monkeypatch.chdir(folder.parent)
        assert main(["ask", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert "Traceback" not in err

    def test_embedder_that_is_not_there_is_named_by_its_key(self, asked: Asked) -> None:
        code, _, err = asked("embedder=./nowhere")
        assert code == 2
        assert "error: embedder=./nowhere: there is no such folder" in err
        assert "data.retrievers" not in err


PAGE = Path(__file__).parent.parent / "docs/ask.md"
SAID = """Relevance:
[1] yes: it states the warranty
[2] no: it is about the valve
Evidence:
[1] "The warranty of the pump is 24 months.": it states the warranty
Analysis: Passage 1 states the warranty of the pump; passage 2 is about the valve.
Answer: 24 months"""


def between(name: str) -> str:
    """Return what stands between two markers of the page."""
    return PAGE.read_text().split(f"<!-- {name}:begin -->\n")[1].split(f"\n<!-- {name}:end -->")[0]


def settings_table() -> list[str]:
    """Return the settings of a library with defaults and help as lines of a Markdown table."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, field in LibrarySettings.model_fields.items():
        default = "" if field.default in ("", None) else f"`{field.default}`"
        lines.append(f"| `{key}` | {default} | {' '.join(field.description.split())} |")
    return lines


class TestPage:
    def test_sample_is_what_is_printed(self, tmp_path: Path) -> None:
        folder = tmp_path / "docs"
        (folder / "manuals").mkdir(parents=True)
        write_words(
            folder / "manuals/pump.pdf", "The warranty of the pump is 24 months. It begins with the day of delivery."
        )
        (folder / "manuals/valve.md").write_text("# Valve\n\nThe warranty of the valve is twelve months.")
        (folder / "letter.docx").write_bytes(b"PK\x03\x04")
        with open_library(None, embedder=WordEmbedder()) as library:
            sought = seek(library, folder, "How long is the warranty of the pump?", 10, "reordered")
        with serving(Server(lambda messages, body: Reply(SAID))) as server:
            generator = load_generator(contract(tmp_path / "a", "self_reasoning"), server=server.url, model="m")
            lines = answer_lines(sought, answer(generator, sought))
            assert "```text\n" + "\n".join(lines) + "\n```" == between("answer")

    def test_settings_of_a_library_are_those_of_its_class(self) -> None:
        assert between("library").splitlines() == settings_table()
