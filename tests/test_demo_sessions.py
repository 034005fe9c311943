"""Visitors of the demo: what one adds and asks is within nobody else's reach, and goes when the visitor does."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from demo_stub import Failing, Quoting, WordLibrary

from data_builders.errors import RagFtError
from rag_ft.app import Added
from rag_ft.app.demo_desk import MOST_CHARACTERS, Desk, Options
from rag_ft.app.demo_sessions import GRACE, IDLE, MOST_TURNS, Sessions
from rag_ft.app.demo_talk import at_once
from rag_ft.app.demo_uploads import KEPT, MOST_FILES, Uploads, add_files
from rag_ft.app.demo_words import say


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Opened(list):
    """Makes libraries and keeps them for a look."""

    def __call__(self):
        self.append(WordLibrary())
        return self[-1]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened():
    return Opened()


@pytest.fixture
def sessions(clock, opened):
    return Sessions(opened, clock=clock, most=3)


def files(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return [folder / f"{name}.txt" for name in texts]


def add(sessions, key, paths, megabytes=20):
    lines = [line.text for line in add_files(sessions, sessions.of(key), paths, megabytes)]
    assert lines[::2] == [say("en", "reading", name=path.name) for path in paths]
    return lines[1::2]


def uploaded(folder, **texts):
    """Write files as Gradio has them, each in a folder named by what it holds."""
    for name in texts:
        (folder / f"hash-{name}").mkdir()
    return [files(folder / f"hash-{name}", **{name: text})[0] for name, text in texts.items()]


def ask(desk, key, question, options=None):
    return list(desk.ask(desk.sessions.of(key), question, options or Options()))


class TestSessions:
    def test_documents_of_one_session_are_not_found_in_another(self, sessions, tmp_path):
        add(sessions, "ada", files(tmp_path, secret="The key of the cellar is blue."))
        add(sessions, "bo", files(tmp_path, other="Tea is hot."))
        assert [one.file for one in sessions.search(sessions.of("ada"), "key of the cellar", 5)] == ["secret.txt"]
        assert [one.file for one in sessions.search(sessions.of("bo"), "key of the cellar", 5)] == ["other.txt"]
        assert sessions.of("bo").documents.keys() == {"other.txt"}

    def test_shared_documents_are_found_by_everyone_and_the_best_of_both_come_first(self, opened, tmp_path):
        shared = WordLibrary()
        (path,) = files(tmp_path, shared="The mill stands by the river.")
        shared.add_file(path, "shared.txt")
        sessions = Sessions(opened, shared=shared)
        add(sessions, "ada", files(tmp_path, own="The mill stands empty since the river was moved by hand."))
        found = sessions.search(sessions.of("ada"), "the mill by the river is empty", 2)
        assert [one.file for one in found] == ["own.txt", "shared.txt"]
        assert [one.file for one in sessions.search(sessions.of("bo"), "the mill", 2)] == ["shared.txt"]
        assert sessions.has_documents(sessions.of("bo"))

    def test_session_that_asks_nothing_is_deleted_and_one_that_does_is_kept(self, sessions, clock, opened, tmp_path):
        add(sessions, "idle", files(tmp_path, a="One."))
        add(sessions, "busy", files(tmp_path, b="Two."))
        clock.now = IDLE - 1
        sessions.of("busy")
        clock.now = IDLE
        sessions.sweep()
        assert [one.closed for one in opened] == [True, False]
        assert sessions.of("busy").documents
        assert not sessions.of("idle").documents

    def test_session_whose_page_was_closed_goes_after_the_grace_unless_it_comes_back(self, sessions, clock):
        back, gone = sessions.of("back"), sessions.of("gone")
        sessions.leave("back")
        sessions.leave("gone")
        sessions.leave("nobody")
        clock.now = GRACE - 1
        assert sessions.of("back") is back
        clock.now = GRACE
        assert sessions.of("back") is back
        assert sessions.of("gone") is not gone

    def test_there_is_a_limit_to_sessions_and_room_again_when_one_goes(self, sessions):
        for key in "abc":
            sessions.of(key)
        with pytest.raises(RagFtError, match="too_many_sessions"):
            sessions.of("d")
        sessions.drop("a")
        assert sessions.of("d") is not None

    def test_closing_deletes_everything(self, sessions, opened, tmp_path):
        add(sessions, "ada", files(tmp_path, a="One."))
        session = sessions.of("ada")
        sessions.close()
        assert opened[0].closed
        assert not session.documents
        assert len(sessions) == 0


class TestUploads:
    def test_every_file_gets_a_sentence_and_a_bad_one_stops_no_other(self, sessions, tmp_path):
        (tmp_path / "empty.pdf").write_bytes(b"")
        (tmp_path / "letter.docx").write_bytes(b"PK")
        (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
        (tmp_path / "large.txt").write_bytes(b"x" * (2**20 + 1))
        good = files(tmp_path, good="It is good.")
        names = ["empty.pdf", "letter.docx", "broken.pdf", "large.txt"]
        told_of = add(sessions, "ada", [*(tmp_path / name for name in names), *good], megabytes=1)
        assert told_of[0] == say("en", "empty_file", name="empty.pdf")
        assert told_of[1].startswith("letter.docx is of a kind that is not read. Add .txt")
        assert told_of[2].startswith("broken.pdf: ")
        assert told_of[3] == say("en", "too_large", name="large.txt", megabytes=1)
        assert told_of[4] == "good.txt: 1 passage."
        assert str(tmp_path) not in "".join(told_of)
        assert sessions.of("ada").documents == {"good.txt": 1}

    def test_file_of_the_same_name_takes_the_place_of_the_first(self, sessions, tmp_path):
        add(sessions, "ada", files(tmp_path, a="The first text.", b="Another."))
        add(sessions, "ada", files(tmp_path, a="The second text."))
        session = sessions.of("ada")
        assert session.documents == {"a.txt": 1, "b.txt": 1}
        assert [one.passage.text for one in sessions.search(session, "second text", 1)] == ["The second text."]

    def test_a_session_holds_so_many_documents_and_no_more(self, sessions, tmp_path):
        names = {f"n{number}": f"Number {number}." for number in range(MOST_FILES + 1)}
        told_of = add(sessions, "ada", files(tmp_path, **names))
        assert told_of[-1] == say("en", "too_many_files", name=f"n{MOST_FILES}.txt", most=MOST_FILES)
        assert len(sessions.of("ada").documents) == MOST_FILES

    def test_files_that_wait_stay_while_their_uploads_are_deleted(self, sessions, tmp_path):
        uploads, (one, two) = Uploads(tmp_path), uploaded(tmp_path, a="The first text.", b="Another text.")
        with uploads.held([one, two]) as paths:
            one.unlink()
            assert add(sessions, "ada", paths) == ["a.txt: 1 passage.", "b.txt: 1 passage."]
        assert not any(path.exists() for path in paths)
        with uploads.held([one]) as paths:
            assert add(sessions, "bo", paths) == [say("en", "failed_file", name="a.txt")]

    def test_upload_is_deleted_when_it_was_read_and_one_of_two_visitors_when_both_have_read_it(self, tmp_path):
        uploads, (own, shared) = Uploads(tmp_path), uploaded(tmp_path, own="Mine.", both="Everyone's.")
        uploads.arrived([str(own), str(shared)])
        uploads.arrived([str(shared)])
        with uploads.held([own, shared]):
            pass
        assert (own.exists(), shared.exists()) == (False, True)
        with uploads.held([shared]) as (kept,):
            assert kept.read_text() == "Everyone's."
        assert [one for one in tmp_path.rglob("*") if one.is_file()] == []

    def test_upload_that_took_the_place_of_another_while_that_was_read_stays(self, tmp_path):
        uploads, (file,) = Uploads(tmp_path), uploaded(tmp_path, a="The text.")
        with uploads.held([file]):
            (tmp_path / "part").write_text("The text.")
            (tmp_path / "part").replace(file)
        assert file.exists()

    def test_what_nobody_reads_is_deleted_after_a_while_but_not_what_is_being_read(self, tmp_path):
        uploads, (old, new, read) = Uploads(tmp_path), uploaded(tmp_path, old="Old.", new="New.", read="Read.")
        (tmp_path / "half").write_text("Half of a file whose connection bro")
        with uploads.held([read]) as (kept,):
            for one in (old, kept, tmp_path / "half"):
                os.utime(one, (0, time.time() - KEPT - 1))
            uploads.sweep()
            assert [one.exists() for one in (old, new, kept, tmp_path / "half")] == [False, True, True, False]

    def test_what_is_deleted_while_a_file_is_read_stays_deleted(self, clock, tmp_path):
        class Slow(WordLibrary):
            def add_file(self, path, name):
                sessions.drop("ada")
                return super().add_file(path, name)

        opened = []
        sessions = Sessions(lambda: opened.append(Slow()) or opened[-1], clock=clock)
        session = sessions.of("ada")
        lines = list(add_files(sessions, session, files(tmp_path, a="One.", b="Two."), 20))
        assert [line.text for line in lines] == [say("en", "reading", name="a.txt")]
        assert session.documents == {}
        assert len(opened) == 1
        with pytest.raises(RagFtError, match=r"^forgotten$"):
            sessions.open(session)

    def test_files_added_at_once_are_counted_each_for_itself(self, tmp_path):
        class Meeting(WordLibrary):
            def add_file(self, path, name):
                added = super().add_file(path, name)
                if added.passages == 1:  # the other file, if it may be read meanwhile, is counted before this one
                    other.wait(timeout=0.5)
                return added

        other = threading.Event()
        sessions = Sessions(Meeting)
        paths = files(tmp_path, a="One.", b="Two.")
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda path: list(add_files(sessions, sessions.of("ada"), [path], 20)), paths))
        assert sessions.of("ada").documents == {"a.txt": 1, "b.txt": 1}

    def test_reasons_are_told_without_paths_and_in_the_language_of_the_page(self, tmp_path):
        class Scans(WordLibrary):
            def add_file(self, path, name):
                failed = "2 of its pages are pictures and were not read: tesseract failed: no /usr/share/tessdata/kor"
                return Added((), (), (), ((name, failed),), 0)

        sessions = Sessions(Scans)
        (line,) = add(sessions, "ada", files(tmp_path, a="One."))
        assert line == "a.txt: 2 of its pages are pictures and were not read: tesseract failed: no ..."
        sessions.of("ada").language = "ko"
        *_, line = add_files(sessions, sessions.of("ada"), files(tmp_path, a="One."), 20)
        assert line.text == "a.txt: 2개 쪽은 그림이어서 읽지 못했습니다(tesseract 오류: no ...)."

    def test_advice_for_who_runs_the_page_is_not_given_to_visitors(self, tmp_path):
        class Slow(WordLibrary):
            def add_file(self, path, name):
                slow = "takes longer than 60 seconds for page 3: set seconds_per_page=120 to give it more"
                return Added((), (), (), ((name, slow),), 0)

        sentences = add(Sessions(Slow), "ada", files(tmp_path, a="One."))
        assert sentences == ["a.txt: takes longer than 60 seconds for page 3"]

    def test_whatever_a_reader_raises_is_a_sentence_without_a_path(self, clock, tmp_path, caplog):
        class Bad(WordLibrary):
            def add_file(self, path, name):
                raise error

        sessions = Sessions(Bad)
        paths = files(tmp_path, a="One.")
        error = ValueError(f"cannot read {paths[0]}")
        assert add(sessions, "ada", paths) == [say("en", "failed_file", name="a.txt")]
        assert "cannot read" in caplog.text
        error = RagFtError(f"the library cannot be kept in {tmp_path}: no room")
        (line,) = add(sessions, "ada", paths)
        assert line == "a.txt: the library cannot be kept in ...: no room"


class TestAsking:
    @pytest.fixture
    def desk(self, sessions, tmp_path):
        add(sessions, "ada", files(tmp_path, a="The pump is green. It is old.", b="Tea is hot."))
        return Desk(sessions, Quoting(), Quoting(says="Answer: red"))

    def test_turn_grows_and_ends_with_an_answer_that_quotes(self, desk):
        turns = ask(desk, "ada", "What colour is the pump?")
        assert not turns[0].done
        assert turns[-1].done
        assert turns[-1].said["tuned"].answer.citations[0].quote == "The pump is green."
        assert turns[-1].said.keys() == {"tuned"}
        assert desk.sessions.of("ada").current == turns[-1]

    def test_base_answers_beside_the_tuned_one_where_that_is_wanted(self, desk):
        said = ask(desk, "ada", "What colour is the pump?", Options(compare=True))[-1].said
        assert [one.answer.answer for one in said.values()] == ["The pump is green. [1]", "red"]

    @pytest.mark.parametrize(
        ("question", "problem"),
        [(" \n ", "empty_question"), ("x" * (MOST_CHARACTERS + 1), "long_question")],
    )
    def test_question_that_cannot_be_asked_is_refused_by_the_key_of_a_sentence(self, desk, question, problem):
        with pytest.raises(RagFtError, match=f"^{problem}$"):
            ask(desk, "ada", question)
        with pytest.raises(RagFtError, match="nothing_to_ask"):
            ask(desk, "bo", "Why?")

    def test_earlier_turns_are_kept_up_to_a_limit_and_are_the_sessions_own(self, desk):
        for number in range(MOST_TURNS + 2):
            ask(desk, "ada", f"Question {number}?")
        session = desk.sessions.of("ada")
        assert [session.turns[0].question, session.turns[-1].question] == ["Question 1?", f"Question {MOST_TURNS}?"]
        assert desk.sessions.of("bo").turns == []

    @pytest.mark.parametrize(
        ("error", "problem"),
        [
            (RagFtError("the server at http://127.0.0.1:9/v1 refuses"), "the server at http://127.0.0.1:9/v1 refuses"),
            (ValueError("/secret/place is bad"), "failed"),
        ],
    )
    def test_failure_of_one_generator_is_told_and_the_other_still_answers(self, desk, error, problem, caplog):
        broken = Desk(desk.sessions, Failing(error), Quoting())
        said = ask(broken, "ada", "What colour is the pump?", Options(compare=True))[-1].said
        assert said["tuned"].problem == problem
        assert said["tuned"].written == "It is "
        assert said["base"].answer.answer == "The pump is green. [1]"
        assert ("Traceback" in caplog.text) == (problem == "failed")

    def test_leaving_early_stops_the_generator_and_keeps_what_it_wrote_as_stopped(self, desk):
        closed = threading.Event()

        class Endless(Quoting):
            def stream(self, question, passages):
                try:
                    while True:
                        yield "more "
                finally:
                    closed.set()

        endless = Desk(desk.sessions, Endless())
        turns = endless.ask(endless.sessions.of("ada"), "Why?", Options())
        next(turns), next(turns)
        turns.close()
        assert closed.wait(timeout=10)
        ask(desk, "ada", "What colour is the pump?")
        before = desk.sessions.of("ada").turns[-1].said["tuned"]
        assert before.problem == "stopped"
        assert before.written.startswith("more ")


class TestStreams:
    def test_pieces_of_each_stream_keep_their_order_and_an_error_ends_its_own_only(self):
        def failing():
            yield 1
            raise ValueError("no")

        got = list(at_once({"a": lambda: iter(range(200)), "b": failing}))
        assert [piece for name, piece in got if name == "a"] == list(range(200))
        first, error = (piece for name, piece in got if name == "b")
        assert first == 1
        assert isinstance(error, ValueError)
