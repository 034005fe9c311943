"""The demo page itself: its parts in Gradio and what they do. What happens behind it is in demo_desk.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from data_builders.errors import RagFtError
from rag_ft.app.demo_desk import MOST_CHARACTERS, Desk, Options
from rag_ft.app.demo_html import TEMPLATES, documents_html, head_html, lines_html, passages_html, start_html, turn_html
from rag_ft.app.demo_sessions import Session
from rag_ft.app.demo_talk import Turn, told
from rag_ft.app.demo_uploads import Uploads, add_files
from rag_ft.app.demo_words import LANGUAGES, WORDS, PageLanguage, preferred, say
from rag_ft.app.language import AnswerLanguage
from rag_ft.app.routing import FEW

ASKING_AT_ONCE = 16
"""Questions under way at a time; others wait in the queue and are told so."""
WAITING = 100
"""Events that may wait."""

_NAMES = {"en": "English", "ko": "한국어"}
_STATUS = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"
_TO_NEW_QUESTION = """
let asked = '';
watch('value', () => {
  const head = element.querySelector('h2');
  const text = head ? head.textContent : '';
  if (text && text !== asked) { head.scrollIntoView({block: 'start', behavior: 'instant'}); }
  asked = text;
});
"""


@dataclass(frozen=True)
class Parts:
    """The parts of the page that change."""

    head: gr.HTML
    page_language: gr.Radio
    upload: gr.File
    reading: gr.HTML
    documents: gr.HTML
    past: gr.HTML
    turn: gr.HTML
    passages: gr.HTML
    status: gr.HTML
    question: gr.Textbox
    compare: gr.Checkbox
    route: gr.Checkbox
    language: gr.Radio
    forget: gr.Button

    def all(self) -> list[Any]:
        """Return every part, in the order in which `_everything` fills them."""
        return [getattr(self, one.name) for one in fields(self)]


def build_page(desk: Desk, uploads: Uploads) -> gr.Blocks:
    """Return the page of a desk, not yet served."""
    with gr.Blocks(title=WORDS["en"]["title"], analytics_enabled=False) as page:
        parts = _parts(desk)
        _Wiring(desk, parts, uploads).wire(page)
    page.queue(max_size=WAITING, default_concurrency_limit=ASKING_AT_ONCE, api_open=False)
    return page


def theme() -> gr.themes.Base:
    """Return colours and fonts: those of the reader's own system, so that nothing is loaded from elsewhere."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans KR", "Malgun Gothic", "sans-serif"]
    plain = gr.themes.Base(
        primary_hue="blue", neutral_hue="zinc", font=sans, font_mono=["ui-monospace", "Consolas", "monospace"]
    )
    quiet = {  # Gradio's own are too pale to read: 4.5 : 1 is the least (WCAG 2.2, 1.4.3)
        f"{name}{mode}": colour
        for name in (
            "body_text_color_subdued",
            "input_placeholder_color",
            "block_info_text_color",
            "block_label_text_color",
            "block_title_text_color",
        )
        for mode, colour in (("", "#59636e"), ("_dark", "#a3aeb9"))
    }
    return plain.set(**quiet)


def css() -> str:
    """Return the page's style sheet."""
    return (TEMPLATES / "demo.css").read_text(encoding="utf-8")


def _parts(desk: Desk) -> Parts:
    """Lay the page out; its words are filled in when somebody opens it."""
    made: dict[str, Any] = {}
    with gr.Row(elem_id="top"):
        made["head"] = _html("head")
        made["page_language"] = gr.Radio(
            [(_NAMES[one], one) for one in LANGUAGES], value="en", elem_id="page-language", container=True
        )
    with gr.Row(elem_id="columns"):
        with gr.Column(elem_id="side"):
            made["upload"] = gr.File(file_count="multiple", elem_id="upload", height=150)
            made["reading"] = _html("reading", _STATUS)
            made["documents"] = _html("documents")
        with gr.Column(elem_id="main"):
            made["past"] = _html("past")
            made["turn"] = _html("turn", _TO_NEW_QUESTION)
            made["passages"] = _html("passages")
            with gr.Column(elem_id="ask"):
                made["status"] = _html("status", _STATUS)
                made["question"] = gr.Textbox(elem_id="question", lines=1, max_lines=6, submit_btn="Ask")
        with gr.Column(elem_id="options"):
            with gr.Group():
                made["compare"] = gr.Checkbox(False, elem_id="compare", visible=desk.base is not None)
                made["route"] = gr.Checkbox(False, elem_id="route", visible=desk.passages > FEW)
                made["language"] = gr.Radio(["as_asked"], value="as_asked", elem_id="answer-language")
            made["forget"] = gr.Button("", elem_id="forget", size="sm", variant="secondary")
    return Parts(**made)


def _html(name: str, on_load: str | None = None) -> gr.HTML:
    """Return a place for HTML of ours."""
    return gr.HTML("", elem_id=name, js_on_load=on_load, apply_default_css=False)


class _Wiring:
    """What the parts of a page do, for a desk and the files that are uploaded."""

    def __init__(self, desk: Desk, parts: Parts, uploads: Uploads) -> None:
        self._desk, self._parts, self._uploads = desk, parts, uploads

    def wire(self, page: gr.Blocks) -> None:
        """Connect the parts. Nothing of it is an API: programs have `load_generator`."""
        parts, private = self._parts, {"api_visibility": "private", "show_progress": "hidden"}
        everything = parts.all()
        page.load(self.opened, None, everything, **private)
        page.unload(self.left)
        parts.page_language.input(self.in_language, parts.page_language, everything, **private)
        reading = parts.upload.upload(
            self.uploaded,
            parts.upload,
            [parts.upload, parts.reading, parts.documents],
            concurrency_limit=2,
            **private,
        )
        asking = parts.question.submit(
            self.asked,
            [parts.question, parts.compare, parts.route, parts.language],
            [parts.question, parts.past, parts.turn, parts.passages, parts.status],
            concurrency_limit=ASKING_AT_ONCE,
            **private,
        )
        parts.question.stop(self.stopped, None, [parts.question, parts.turn, parts.status], cancels=[asking], **private)
        parts.forget.click(self.forgot, None, everything, cancels=[asking, reading], **private)

    def opened(self, request: gr.Request) -> list[Any]:
        """Fill the page in, in the language that the browser prefers."""
        language = preferred(request.headers.get("accept-language", ""))
        try:
            session = self._desk.sessions.of(_key(request))
        except RagFtError as error:
            return self._everything(Session(0.0, language=language), str(error))
        session.language = language
        return self._everything(session)

    def in_language(self, language: PageLanguage, request: gr.Request) -> list[Any]:
        """Show the page in another language."""
        session = self._session(request)
        session.language = language
        return self._everything(session)

    def left(self, request: gr.Request) -> None:
        """Forget, after a while, who closed the page."""
        self._desk.sessions.leave(_key(request))

    def forgot(self, request: gr.Request) -> list[Any]:
        """Delete all of this session, at once."""
        language = self._session(request).language
        self._desk.sessions.drop(_key(request))
        session = self._session(request)
        session.language = language
        return self._everything(session, "forgotten")

    def uploaded(self, files: list[str] | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Read uploaded files one by one; what was said of each stays."""
        session = self._session(request)
        said: list[str] = []
        with self._uploads.held([Path(file) for file in files or ()]) as paths:
            for line in add_files(self._desk.sessions, session, paths, self._desk.megabytes):
                said += [] if line.passing else [line.text]
                shown = lines_html([*said, line.text] if line.passing else said, session.language)
                yield None, shown, self._documents(session)

    def asked(
        self, question: str, compare: bool, route: bool, language: AnswerLanguage, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Answer a question, showing what there is as it comes."""
        session = self._session(request)
        yield _status_alone(session, "searching")
        options = Options(compare=compare, route=route, language=language)
        try:
            for number, turn in enumerate(self._desk.ask(session, question or "", options)):
                yield _shown(session, turn, first=number == 0)
        except Exception as error:  # whatever a question does to the search, the page lives on
            yield _status_alone(session, told(error), length=len(question or ""), most=MOST_CHARACTERS)

    def stopped(self, request: gr.Request) -> tuple[Any, ...]:
        """Show what was written so far."""
        session = self._session(request)
        box, status = _box(session, asking=False), _status(session, "stopped")
        if session.current is None:
            return box, gr.skip(), status
        session.current = session.current.stopped()
        return box, turn_html(session.current, session.language, current=True), status

    def _documents(self, session: Session) -> str:
        shared, megabytes = self._desk.shared, self._desk.megabytes
        return documents_html(session.documents, shared, session.language, megabytes=megabytes)

    def _session(self, request: gr.Request) -> Session:
        try:
            return self._desk.sessions.of(_key(request))
        except RagFtError as error:
            language = preferred(request.headers.get("accept-language", ""))
            raise gr.Error(say(language, str(error)), print_exception=False) from None

    def _everything(self, session: Session, status: str = "") -> list[Any]:
        """Return the whole page as a session sees it, in the order of `Parts`."""
        language, desk, turn = session.language, self._desk, session.current
        words = WORDS[language]
        few = say(language, "route", few=FEW, passages=desk.passages)
        answers = [(words[one], one) for one in ("as_asked", "english", "korean")]
        asking = turn is not None and not turn.done
        return [
            head_html(language),
            gr.update(value=language, label=words["page_language"]),
            gr.update(label=words["upload"]),
            "",
            self._documents(session),
            _past(session),
            turn_html(turn, language, current=True) if turn else start_html(language),
            passages_html(turn, language) if turn else "",
            _status(session, status),
            _box(
                session,
                asking=asking,
                label=words["question"],
                placeholder=words["question_hint"],
            ),
            gr.update(label=words["compare"]),
            gr.update(label=few),
            gr.update(choices=answers, label=words["answer_language"], info=words["departs"]),
            words["forget"],
        ]


def _key(request: gr.Request) -> str:
    """Return what the page calls its session; who gives no name would share what is no one's."""
    if not request.session_hash:
        raise gr.Error(WORDS["en"]["failed"], print_exception=False)
    return request.session_hash


def _status(session: Session, what: str, **values: object) -> str:
    """Return a sentence, given by its key or as it is, as the line above the question."""
    sentence = say(session.language, what, **values) if what in WORDS[session.language] else what
    return lines_html([sentence], session.language) if what else ""


def _status_alone(session: Session, what: str, **values: object) -> tuple[Any, ...]:
    """Return a change of the status alone, for somebody who may ask again."""
    return _box(session, asking=False), gr.skip(), gr.skip(), gr.skip(), _status(session, what, **values)


def _box(session: Session, *, asking: bool, **more: Any) -> Any:
    """Return the box of the question with the one button that makes sense now."""
    words = WORDS[session.language]
    return gr.update(submit_btn=False if asking else words["ask"], stop_btn=words["stop"] if asking else False, **more)


def _past(session: Session) -> str:
    return "".join(turn_html(turn, session.language, current=False) for turn in session.turns)


def _shown(session: Session, turn: Turn, *, first: bool) -> tuple[Any, ...]:
    """Return what changes on the page as a turn grows: the passages when they are found, and once all is said."""
    whole = first or turn.done
    return (
        _box(session, asking=not turn.done, **({"value": ""} if first else {})) if whole else gr.skip(),
        _past(session) if first else gr.skip(),
        turn_html(turn, session.language, current=True),
        passages_html(turn, session.language) if whole else gr.skip(),
        _status(session, "" if turn.done else "writing"),
    )
