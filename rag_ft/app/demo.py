"""Serves the demo page: private to this machine unless told otherwise, and with nothing left behind at its end."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from rag_ft.app.demo_desk import Desk
from rag_ft.app.demo_sessions import OwnLibrary, Sessions, SharedLibrary
from rag_ft.app.demo_uploads import Uploads
from rag_ft.generator import Generator

LOOPBACK = ("127.0.0.1", "localhost")
FILES_AT_ONCE = 20
"""Files of one upload, of the largest size each."""
_SWEEP_EVERY = 30.0
_LOG = logging.getLogger(__name__)
_NO_TELEMETRY = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_RUN_HISTORY": "False",
}


@dataclass(frozen=True)
class DemoSettings:
    """How the page is served.

    Attributes:
        host: address to listen at.
        port: to listen at; 0 takes a free one.
        megabytes: the most that one uploaded file may have.
        passages: found for each question.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    megabytes: int = 20
    passages: int = 10

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK


@dataclass(frozen=True)
class Backing:
    """What stands behind the page.

    Attributes:
        tuned: answers every question.
        base: answers beside it; None where there is none.
        open_library: makes an empty library for one session.
        shared: documents that everyone may search; None where there are none.
        shared_names: their names.
    """

    tuned: Generator
    base: Generator | None
    open_library: Callable[[], OwnLibrary]
    shared: SharedLibrary | None = None
    shared_names: tuple[str, ...] = ()


@contextmanager
def serving(settings: DemoSettings, backing: Backing) -> Iterator[str]:
    """Serve the page until the block ends; yields its address.

    Everything that visitors add lies in one temporary folder, which goes with the block.

    Raises:
        RagFtError: gradio is not installed, or the port is taken.
    """
    if ":" in settings.host:
        raise RagFtError(f"--host {settings.host}: the page is served over IPv4. Write 127.0.0.1, or 0.0.0.0 for all.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rag-ft-demo-")))
        stack.enter_context(_environment(folder / "uploads"))
        sessions = Sessions(backing.open_library, shared=backing.shared)
        stack.callback(sessions.close)
        uploads = Uploads(folder / "uploads")
        stack.enter_context(_sweeping(sessions.sweep, uploads.sweep))
        desk = Desk(
            sessions,
            backing.tuned,
            backing.base,
            passages=settings.passages,
            megabytes=settings.megabytes,
            shared=backing.shared_names,
        )
        yield _launched(desk, settings, uploads, stack)


def _launched(desk: Desk, settings: DemoSettings, uploads: Uploads, stack: ExitStack) -> str:
    try:
        from rag_ft.app.demo_page import build_page, css, theme
    except ModuleNotFoundError as error:
        raise RagFtError(f"the demo needs {error.name}: pip install 'rag-ft[demo,retrieval,documents]'.") from None
    page = build_page(desk, uploads)
    stack.callback(page.close, verbose=False)
    try:
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=settings.port or _free_port(settings.host),
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=settings.megabytes * 2**20,
            theme=theme(),
            css=css(),
            app_kwargs={
                "middleware": [_gate(settings, uploads)],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
        )
    except OSError as error:
        raise RagFtError(
            f"cannot listen at {settings.host}, port {settings.port}: another program has it, or the address is not "
            "this machine's. Choose another with --port N or --host ADDRESS."
        ) from error
    return address


def _gate(settings: DemoSettings, uploads: Uploads) -> Any:
    from starlette.middleware import Middleware

    from rag_ft.app.demo_gate import Gate

    hosts = frozenset(LOOPBACK) if settings.is_private else frozenset[str]()
    most = settings.megabytes * FILES_AT_ONCE * 2**20
    folder = str(uploads.folder)
    return Middleware(Gate, folder=folder, hosts=hosts, upload_bytes=most, arrived=uploads.arrived)


@contextmanager
def _environment(uploads: Path) -> Iterator[None]:
    """Nothing is reported to anyone, and uploads wait in our folder; restored at the end."""
    wanted = {**_NO_TELEMETRY, "GRADIO_TEMP_DIR": str(_made(uploads))}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _sweeping(*sweeps: Callable[[], None]) -> Iterator[None]:
    """Delete what visitors left behind when their time is up, also while nobody comes."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(_SWEEP_EVERY):
            for one in sweeps:
                try:
                    one()
                except Exception:  # what could not be deleted now is tried again
                    _LOG.exception("the demo could not delete what is old")

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _free_port(host: str) -> int:
    import socket

    with socket.socket() as tried:
        tried.bind((host, 0))
        return int(tried.getsockname()[1])


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
