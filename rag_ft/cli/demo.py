"""`rag-ft demo`: a page in the browser to ask one's own documents. The work is in rag_ft/app."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_ft.cli.arguments import (
    AdapterOption,
    KeyOption,
    MismatchOption,
    ModelOption,
    RunOption,
    ServerOption,
)

if TYPE_CHECKING:
    from rag_ft.app.demo import Backing
    from rag_ft.app.settings import LibrarySettings
    from rag_ft.generator import Generator

_OF_VISITORS = {"minutes_per_file": 5, "max_passages": 2000}
"""Limits of a file that a visitor adds, at most: others wait while it is read and embedded."""


def run(  # typer makes an option of every argument
    documents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DOCS|key=value",
            help="A folder of documents that everyone on the page may ask, and settings of libraries, for example "
            "ocr_languages=kor+eng.",
            show_default=False,
        ),
    ] = None,
    adapter: AdapterOption = None,
    run: RunOption = None,
    server: ServerOption = None,
    model: ModelOption = None,
    api_key_env: KeyOption = None,
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Let visitors see the adapter's base model answer beside it.")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same with --server: the base model's name on it.")
    ] = None,
    passages: Annotated[int, typer.Option("-k", "--passages", min=1, max=200, help="How many passages to show.")] = 10,
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the library of DOCS is kept; else in the cache.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 7860,
    max_upload_mb: Annotated[int, typer.Option(min=1, max=1000, help="The most that an uploaded file may have.")] = 20,
    allow_prompt_mismatch: MismatchOption = False,
) -> int:
    """Serve a page on which documents are added and asked. Ctrl+C ends it and deletes what visitors added."""
    from rag_ft.app.demo import DemoSettings, serving
    from rag_ft.cli.references import named_as_options, reference_of
    from rag_ft.generator import load_generator

    folder, chosen = _documents_and_settings(documents or (), store)
    reference = reference_of(adapter, run, server, _tell)
    settings = DemoSettings(host=host, port=port, megabytes=max_upload_mb, passages=passages)
    access: dict[str, Any] = {"server": server, "api_key_env": api_key_env}
    with named_as_options():
        loaded = load_generator(reference, model=model, **access, allow_prompt_mismatch=allow_prompt_mismatch)
        base = _base(loaded, reference, base_model, access) if compare_base or base_model else None
    with ExitStack() as stack:
        backing = _backing(stack, (loaded, base), (folder, store), chosen, max_upload_mb)
        address = stack.enter_context(serving(settings, backing))
        if not settings.is_private:
            _tell(
                f"warning: whoever can reach port {port} of this machine can use this page: it asks for no password "
                "and does not encrypt. Leave --host out to keep it to this machine."
            )
        _tell(f"{address} is open; Ctrl+C ends it and deletes what was added there")
        stack.enter_context(_ended_by_signal()).wait()
    _tell("ended; what was added is deleted")
    return 0


def _documents_and_settings(given: Sequence[str], store: Path | None) -> tuple[Path | None, LibrarySettings]:
    """Split documents and settings, which have an equals sign and are no path."""
    from data_builders.errors import RagFtError
    from rag_ft.app.listing import list_documents
    from rag_ft.app.options import library_settings

    paths = [one for one in given if "=" not in one or Path(one).exists()]
    if len(paths) > 1:
        raise RagFtError(f"{paths[0]} and {paths[1]}: give one folder of documents; more are uploaded on the page.")
    folder = Path(paths[0]) if paths else None
    if folder is None and store is not None:
        raise RagFtError(f"--store {store} keeps the library of documents for everyone: name their folder too.")
    if folder is not None:
        list_documents(folder)  # a name that is wrong is told before a model is loaded
    return folder, library_settings([one for one in given if one not in paths])


def _base(loaded: Generator, reference: str | None, name: str | None, access: dict[str, Any]) -> Generator:
    """Return the base model, asked exactly as the tuned one."""
    from data_builders.errors import RagFtError
    from rag_ft.generator import load_generator

    if access["server"] is not None:
        if name is None:
            raise RagFtError(f"--compare-base: which model is the base on {access['server']}? Add --base-model NAME.")
        return load_generator(reference, model=name, **access, allow_prompt_mismatch=True)
    if name is not None:
        raise RagFtError(f"--base-model {name} goes with --server; without one write --compare-base.")
    from rag_ft.generator.local import LocalGenerator

    if not isinstance(loaded, LocalGenerator):
        raise RagFtError("--compare-base: these weights have no adapter to switch off. Leave it out.")
    return loaded.without_adapter()


def _backing(
    stack: ExitStack,
    generators: tuple[Generator, Generator | None],
    documents: tuple[Path | None, Path | None],
    chosen: LibrarySettings,
    megabytes: int,
) -> Backing:
    """Read the documents that everyone may ask, and say how a visitor's own library is opened.

    Args:
        stack: closes the library of the former.
        generators: the tuned one, and the base beside it.
        documents: what everyone may ask, and where its library is kept.
        chosen: settings of libraries.
        megabytes: the most that an uploaded file may have.
    """
    from rag_ft.app.demo import Backing
    from rag_ft.app.embedding import open_embedder
    from rag_ft.app.library import open_library, store_of
    from rag_ft.app.words import problem_lines, update_line

    embedder = open_embedder(chosen)
    limits = {name: min(most, getattr(chosen, name)) for name, most in _OF_VISITORS.items()}
    own = chosen.model_copy(update={**limits, "max_megabytes": megabytes})
    folder, store = documents
    shared, names = None, tuple[str, ...]()
    if folder is not None:
        place = store or store_of(folder)
        shared = stack.enter_context(open_library(place, settings=chosen, embedder=embedder, report=_tell))
        added = shared.update(folder)
        for line in (update_line(added), *problem_lines(added)):
            _tell(line)
        names = tuple(sorted({*added.read, *added.unchanged}))
    return Backing(*generators, lambda: open_library(None, settings=own, embedder=embedder), shared, names)


@contextmanager
def _ended_by_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl+C or a polite kill sets, so that either way everything is cleaned up."""
    ended = threading.Event()
    before = {one: signal.signal(one, lambda *_: ended.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _tell(line: str) -> None:
    from rag_ft.app.words import printable

    typer.echo(printable(line), err=True)
