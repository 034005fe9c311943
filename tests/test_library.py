"""Libraries of documents: what is read again, what goes, what is found, and what killed and rival processes leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pdf_files import write_report, write_words
from word_embedder import WordEmbedder

from data_builders.errors import RagFtError
from rag_ft.app.ask import page_of
from rag_ft.app.library import KeptLibrary, open_library, store_of
from rag_ft.app.listing import list_documents
from rag_ft.app.reading import Reader
from rag_ft.app.settings import LibrarySettings

TEXTS = {
    "aldern.txt": "The lighthouse of Aldern was built in 1911.",
    "boats/ferry.md": "# Ferry\n\nThe ferry leaves at noon.",
    "pump.html": "<title>Pump</title><p>The warranty of the pump is two years.</p>",
}
QUESTIONS = {
    "When was the lighthouse of Aldern built?": "aldern.txt",
    "When does the ferry leave?": "boats/ferry.md",
    "How long is the warranty of the pump?": "pump.html",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a text, a Markdown file and a page."""
    root = tmp_path / "docs"
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., KeptLibrary]:
    """Opens the library of one store with a given embedder, or a new one that embeds words."""

    def open_(embedder: Any = None, **changes: Any) -> KeptLibrary:
        settings = LibrarySettings(**changes)
        return open_library(tmp_path / "store", settings=settings, embedder=embedder or WordEmbedder())

    return open_


def contents(library: KeptLibrary) -> set[tuple[str, str]]:
    """Return file and text of every passage that a search can find."""
    return {(found.file, found.passage.text) for found in library.search("the", 1000)}


class TestUpdate:
    def test_each_question_finds_the_passage_that_shares_most_words_with_it(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            assert library.update(folder).read == tuple(sorted(TEXTS))
            for question, file in QUESTIONS.items():
                found = library.search(question, 3)
                assert found[0].file == file
                assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
                assert len(found) == 3

    def test_score_is_the_cosine_similarity(self, tmp_path: Path, opened: Any) -> None:
        (tmp_path / "a.txt").write_text("red green blue")
        with opened() as library:
            library.update(tmp_path / "a.txt")
            # the title, the file's name, stands before the text: four words, two of them asked
            assert library.search("red green", 1)[0].score == pytest.approx(2 / (2**0.5 * 4**0.5), abs=1e-5)

    def test_second_update_reads_nothing(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        embedder = WordEmbedder()
        with opened(embedder) as library:
            again = library.update(folder)
            assert (again.read, again.unchanged, again.removed) == ((), tuple(sorted(TEXTS)), ())
            assert again.passages == 3
        assert embedder.asked == []

    def test_changed_new_and_deleted_files_alone_are_touched(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        (folder / "aldern.txt").write_text("The lighthouse of Aldern burnt down.")
        (folder / "boats/ferry.md").unlink()
        write_words(folder / "new.pdf", "The mill grinds wheat.")
        embedder = WordEmbedder()
        with opened(embedder) as library:
            second = library.update(folder)
            assert (second.read, second.unchanged, second.removed) == (
                ("aldern.txt", "new.pdf"),
                ("pump.html",),
                ("boats/ferry.md",),
            )
            assert contents(library) == {
                ("aldern.txt", "The lighthouse of Aldern burnt down."),
                ("new.pdf", "The mill grinds wheat."),
                ("pump.html", "The warranty of the pump is two years."),
            }
        assert len(embedder.asked) == 2

    def test_touched_file_with_the_same_content_is_not_read(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
            (folder / "aldern.txt").write_text(TEXTS["aldern.txt"])
            assert library.update(folder).read == ()

    def test_file_that_became_unreadable_loses_its_passages(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
            (folder / "aldern.txt").write_bytes(b"")
            assert library.update(folder).refused == (("aldern.txt", "is empty"),)
            assert "aldern.txt" not in {file for file, _ in contents(library)}

    def test_setting_of_passages_reads_all_again_and_a_limit_nothing(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        with opened(max_pages=7, seconds_per_page=9) as library:
            assert library.update(folder).read == ()
        with opened(chunk_tokens=64) as library:
            assert library.update(folder).read == tuple(sorted(TEXTS))
            assert library.update(folder).passages == 3

    def test_other_embedder_embeds_all_again(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        other = WordEmbedder("other words")
        with opened(other) as library:
            assert library.search("lighthouse", 5) == []
            assert library.update(folder).read == tuple(sorted(TEXTS))
        assert len(other.asked) == 3

    def test_single_document_is_a_library_too(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            assert library.update(folder / "pump.html").read == ("pump.html",)
            assert contents(library) == {("pump.html", "The warranty of the pump is two years.")}

    def test_page_of_a_pdf_comes_with_its_passage(self, tmp_path: Path, opened: Any) -> None:
        write_report(tmp_path / "report.pdf")
        with opened(chunk_tokens=48, overlap_tokens=0) as library:
            library.update(tmp_path / "report.pdf")
            found = library.search("Chapter 3 tells how the works went on. Hall 3 made 33 pumps.", 1)[0]
        assert (found.file, found.page) == ("report.pdf", 3)
        assert found.passage.title == "Annual report"

    def test_page_of_a_quote_is_its_own_where_a_passage_goes_over_several(self, tmp_path: Path, opened: Any) -> None:
        write_report(tmp_path / "report.pdf")
        with opened() as library:
            library.update(tmp_path / "report.pdf")
            (found,) = library.search("pumps", 5)
        assert [page for _, page in found.pages] == [1, 2, 3, 4]
        for page in range(1, 5):
            assert page_of(found, f"Chapter {page} tells how the works went on.") == page
        assert page_of(found, "which is nowhere") == 1

    def test_hidden_files_are_passed_over(self, folder: Path) -> None:
        (folder / ".secret.txt").write_text("x")
        (folder / ".git").mkdir()
        (folder / ".git/notes.txt").write_text("x")
        assert [one.name for one in list_documents(folder)] == sorted(TEXTS)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from word_embedder import WordEmbedder
from rag_ft.app import index, kept
from rag_ft.app.library import open_library

store, documents, place = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
owner, name = {"reading": (WordEmbedder, "passages"), "index": (index.Index, "add"),
               "old": (index.Index, "delete"), "table": (kept.Kept, "_forget")}[place]
real, calls = getattr(owner, name), []

def killing(*arguments):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(owner, name, killing)
open_library(store, embedder=WordEmbedder()).update(documents)
"""


class TestKilled:
    @pytest.mark.parametrize("place", ["reading", "table", "index", "old"])
    def test_next_update_finishes_what_a_killed_one_left(self, folder: Path, opened: Any, place: str) -> None:
        with opened() as library:
            library.update(folder)
        for number in range(6):
            (folder / f"new-{number}.txt").write_text(f"Number {number} stands here.")
        (folder / "aldern.txt").write_text("The lighthouse of Aldern burnt down.")
        store = folder.parent / "store"
        command = [sys.executable, "-c", KILLED, str(store), str(folder), place]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert done.returncode == -signal.SIGKILL, done.stderr
        embedder = WordEmbedder()
        with opened(embedder) as library:
            after = library.update(folder)
            # aldern.txt, new-0 and at most the file under way had been read
            assert len(embedder.asked) == len(after.read) in (4, 5)
            assert after.passages == 9
            assert len(library.search("the", 100)) == 9
            assert contents(library) == {
                ("aldern.txt", "The lighthouse of Aldern burnt down."),
                ("boats/ferry.md", "# Ferry\n\nThe ferry leaves at noon."),
                ("pump.html", "The warranty of the pump is two years."),
                *((f"new-{number}.txt", f"Number {number} stands here.") for number in range(6)),
            }

    def test_damaged_index_is_made_anew_without_embedding(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        (folder.parent / "store/chroma/chroma.sqlite3").write_bytes(b"no database" * 1000)
        embedder = WordEmbedder()
        with opened(embedder) as library:
            assert library.update(folder).read == ()
            assert library.search("When does the ferry leave?", 1)[0].file == "boats/ferry.md"
        assert embedder.asked == []

    def test_change_that_failed_is_mended_by_the_next_update(
        self, folder: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened() as library:
            library.update(folder)
            (folder / "new.txt").write_text("The bakery opens at six.")

            def full(*arguments: Any) -> None:
                raise OSError("No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(type(library._index), "add", full)
                with pytest.raises(OSError, match="No space"):
                    library.update(folder)
            library.update(folder)
            assert ("new.txt", "The bakery opens at six.") in contents(library)

    def test_damaged_tables_are_told_in_one_sentence(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
        (folder.parent / "store/library.sqlite").write_bytes(b"no database" * 1000)
        with pytest.raises(RagFtError, match="Delete that folder: the next question makes the library again"):
            opened()


class TestShared:
    def test_second_process_is_told_to_wait(self, folder: Path, opened: Any) -> None:
        with opened() as library:
            library.update(folder)
            script = KILLED.replace("== 3", "== 0")
            command = [sys.executable, "-c", script, str(folder.parent / "store"), str(folder), "reading"]
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, cwd=Path(__file__).parent.parent
            )
        assert "RagFtError: another process uses the library" in done.stderr
        assert "--store FOLDER" in done.stderr
        with opened() as library:
            assert library.update(folder).passages == 3

    def test_documents_of_one_session_are_found_in_no_other(self, folder: Path) -> None:
        embedder = WordEmbedder()
        with open_library(None, embedder=embedder) as mine, open_library(None, embedder=embedder) as yours:
            assert mine.add_file(folder / "aldern.txt", "mine.txt").read == ("mine.txt",)
            yours.add_file(folder / "boats/ferry.md", "yours.md")
            assert [found.file for found in mine.search("the ferry leaves at noon", 10)] == ["mine.txt"]
            assert [found.file for found in yours.search("the lighthouse of Aldern", 10)] == ["yours.md"]

    def test_closed_session_leaves_no_collection(self, folder: Path) -> None:
        with open_library(None, embedder=WordEmbedder()) as library:
            library.add_file(folder / "aldern.txt", "mine.txt")
            client, name = library._index._client, library._index._name
            assert name in [one.name for one in client.list_collections()]
        assert name not in [one.name for one in client.list_collections()]

    def test_closing_gives_up_the_file_that_another_thread_adds(self, folder: Path) -> None:
        class Slow(WordEmbedder):
            def passages(self, texts: Sequence[str], before: Callable[[], None] = lambda: None) -> Any:
                if texts[0].startswith("Ferry"):
                    begun.set()
                    while time.monotonic() < deadline:
                        before()
                return super().passages(texts)

        begun, deadline = threading.Event(), time.monotonic() + 30
        library = open_library(None, embedder=Slow())
        with ThreadPoolExecutor(1) as threads:
            library.add_file(folder / "aldern.txt", "aldern.txt")
            added = threads.submit(library.add_file, folder / "boats/ferry.md", "ferry.md")
            assert begun.wait(timeout=30)
            library.close()
            assert time.monotonic() < deadline
            for asked in (added.result, lambda: library.search("the ferry", 1)):
                with pytest.raises(RagFtError, match="was closed"):
                    asked()

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
    def test_reader_gives_up_a_file_that_nobody_wants_any_more(self, folder: Path) -> None:
        os.mkfifo(folder / "endless.txt")
        unwanted, began = threading.Event(), time.monotonic()
        with Reader(LibrarySettings(), unwanted) as reader, ThreadPoolExecutor(1) as threads:
            assert reader.read(folder / "aldern.txt", "a.txt").passages
            read = threads.submit(reader.read, folder / "endless.txt", "endless.txt")
            unwanted.set()
            assert read.result(timeout=30).passages == ()
            assert not reader.read(folder / "aldern.txt", "a.txt").passages
        assert time.monotonic() - began < LibrarySettings().seconds_per_page

    def test_added_file_replaces_that_of_its_name_and_can_be_removed(self, folder: Path) -> None:
        with open_library(None, embedder=WordEmbedder()) as library:
            library.add_file(folder / "aldern.txt", "a.txt")
            assert library.add_file(folder / "aldern.txt", "a.txt").unchanged == ("a.txt",)
            (folder / "aldern.txt").write_text("Burnt.")
            library.add_file(folder / "aldern.txt", "a.txt")
            assert contents(library) == {("a.txt", "Burnt.")}
            library.remove_file("a.txt")
            library.remove_file("was never there")
            assert contents(library) == set()

    def test_added_file_of_another_kind_is_refused(self, folder: Path) -> None:
        (folder / "a.docx").write_bytes(b"PK\x03\x04")
        with open_library(None, embedder=WordEmbedder()) as library:
            assert library.add_file(folder / "a.docx", "a.docx").refused == (
                ("a.docx", "is a .docx file, which is not read: save it as PDF, text, Markdown or HTML"),
            )

    def test_threads_that_add_and_search_at_once_do_not_disturb_each_other(self, folder: Path) -> None:
        errors: list[BaseException] = []
        with open_library(None, embedder=WordEmbedder()) as library:

            def work(number: int) -> None:
                try:
                    path = folder / f"t{number}.txt"
                    path.write_text(f"thread{number} wrote this")
                    library.add_file(path, path.name)
                    assert library.search(f"thread{number}", 1)[0].file == path.name
                except BaseException as error:
                    errors.append(error)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            assert len(contents(library)) == 12


class TestPlaces:
    def test_folders_have_stores_of_their_own_in_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAG_FT_CACHE", str(tmp_path / "cache"))
        (tmp_path / "a").mkdir()
        monkeypatch.chdir(tmp_path)
        assert store_of(Path("a")).parent == tmp_path / "cache/libraries"
        assert store_of(Path("a")) == store_of(tmp_path / "a")
        assert store_of(Path("a")) != store_of(tmp_path / "b")

    def test_store_that_cannot_be_made_is_told_in_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RagFtError, match="Name another folder with --store FOLDER"):
            open_library(tmp_path / "file/store", embedder=WordEmbedder())
